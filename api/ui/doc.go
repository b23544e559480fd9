// Package ui is the live page: the campaigns of one tenant with their progress, as it happens, on the machine that the process
// runs on. It is embedded, needs no build and asks nothing of any other host.
//
// It promises: only a browser on this machine is let in, by a link that works once; what the page shows comes from the same
// source as the API's answers, so the two cannot disagree. It is no way in for programs: those use the API and a key.
package ui
