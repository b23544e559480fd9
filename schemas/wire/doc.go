// Package wire is the codec of the hot path: it reads and writes the protobuf records that are handled at least once
// per message, without the reflection and the allocations of the generated code.
//
//   - [Fields] reads a record into a table of its fields; a reader then takes the ones that it needs.
//   - [MessageBuf] reads a whole fanfare.v1.Message with one allocation.
//   - [AppendNumber], [AppendText], [AppendBytes] write single fields, [AppendDelivery] a whole fanfare.v1.Delivery.
//
// The field numbers are generated from the descriptors (fields.go). Tests compare everything here with the generated
// code, so a field that is added to a record and forgotten here fails them.
//
//go:generate go run ../wiregen
package wire
