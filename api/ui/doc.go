// Package ui is the console: what people do with Fanfare in a browser.
//
// The console is a client of the API. A screen asks the API's own handler, in the same process, as the person who is logged in
// ([UI.call]); so the console checks what the API checks, shows the API's errors beside their fields, and sees no tenant that
// the API would not show. A screen is three files: a handler, a template and a test.
//
// Pages are HTML made on the server. They work without JavaScript: links are links, and every action is a form that answers
// with a redirect. With JavaScript, htmx swaps pages in place and live pages follow the server by server-sent events
// ([hub]). Nothing is built: what is in assets is served as it is, with a Content-Security-Policy that allows no inline code.
package ui
