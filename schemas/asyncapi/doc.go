// Package asyncapi holds asyncapi.yaml, which describes the public topics in AsyncAPI 3.0 for their subscribers.
//
// A test generates the document from the code (topic table, records, the .proto files) with the template beside it, and
// fails while the committed file differs, so that no public change goes unnoticed. The document is one file without
// references to others, because tools cannot resolve references to a .proto file.
package asyncapi

//go:generate go test -run ^TestDocument$ -update .
