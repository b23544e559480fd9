// Package asyncapi holds asyncapi.yaml, which describes the public topics in AsyncAPI 3.0 for their subscribers.
//
// The document is made of the code (topic table, records, the .proto files) by the template beside it; a test fails as long as
// what is committed differs, so nothing public changes unseen. It is one file without references to others, because tools
// resolve none to a .proto.
package asyncapi

//go:generate go test -run ^TestDocument$ -update .
