// Package remote makes commands of the API's operations: every operation of the OpenAPI document is a command, every
// field of its body and every parameter of its query a flag. So a feature of the API is on the command line as soon as
// it is described.
//
//	fanfare campaign create --name Spring --channel sms --message 'Ciao!' --contact-list people --draft
//	fanfare template list --status approved --output csv
//
// Commands speak HTTP to a server (--server, FANFARE_SERVER) with a key (--key, FANFARE_KEY). They exit with 0 when the
// API did what was asked, 1 when it could not be reached or failed, 2 when the command line is wrong, 3 when the API
// refused.
package remote
