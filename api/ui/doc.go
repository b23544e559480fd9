// Package ui is the console: the web pages of Fanfare.
//
// The console is a client of the API. A screen calls the API's handler, in the same process, on behalf of the logged-in
// person ([UI.call]). So the API checks every action, its errors are shown beside their fields, and a person sees only
// the tenants that the API would show. A screen has three files: a handler, a template and a test.
//
// Pages are HTML made on the server. They work without JavaScript: links are links, and every action is a form that
// answers with a redirect. With JavaScript, htmx swaps pages in place and live pages follow the server by server-sent
// events ([hub]). There is no build step: the files in assets are served unchanged, with a Content-Security-Policy that
// allows no inline code.
package ui
