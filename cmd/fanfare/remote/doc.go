// Package remote makes the command line from the OpenAPI document of the API: every operation is a command, and every
// field of its body and every parameter of its query is a flag; the simple fields of an object in the body are flags,
// too, such as --care-down-after. So a new operation of the API is on the command line as
// soon as the document describes it.
//
//	fanfare campaign create --name Spring --channel sms --message 'Ciao!' --contact-list people --draft
//	fanfare template list --status approved --output csv
//
// The commands send HTTP requests to a server (--server, FANFARE_SERVER) with a key (--key, FANFARE_KEY). The exit code
// is 0 if the request succeeded, 1 if the API could not be reached or failed, 2 if the command line is wrong, and 3 if
// the API refused the request.
package remote
