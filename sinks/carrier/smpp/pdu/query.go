package pdu

import "fmt"

// Query is the body of query_sm (SMPP 3.4 §4.8.1).
type Query struct {
	ID     string
	Source Address
}

// DecodeQuery reads a query_sm.
func DecodeQuery(body string) (m Query, err error) {
	f := fields{s: body}
	m.ID, m.Source = f.text(), f.address()
	return m, f.err(QuerySM)
}

// Append writes the unit.
func (m *Query) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.ID, maxMessageID, "message_id")
	w.address(m.Source, "source_addr")
	return w.done(len(b))
}

// QueryResp is the answer to query_sm.
type QueryResp struct {
	ID    string
	Final string // time of the final state; empty while there is none
	State byte
	Error byte
}

// DecodeQueryResp reads the answer to query_sm.
func DecodeQueryResp(body string) (m QueryResp, err error) {
	f := fields{s: body}
	m.ID, m.Final = f.text(), f.text()
	m.State, m.Error = f.byte(), f.byte()
	return m, f.err(QuerySMResp)
}

// Append writes the unit.
func (m *QueryResp) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.ID, maxMessageID, "message_id")
	w.text(m.Final, maxTime, "final_date")
	w.bytes(m.State, m.Error)
	return w.done(len(b))
}

// Cancel is the body of cancel_sm (SMPP 3.4 §4.9.1).
type Cancel struct {
	ServiceType  string
	ID           string
	Source, Dest Address
}

// DecodeCancel reads a cancel_sm.
func DecodeCancel(body string) (m Cancel, err error) {
	f := fields{s: body}
	m.ServiceType, m.ID = f.text(), f.text()
	m.Source, m.Dest = f.address(), f.address()
	return m, f.err(CancelSM)
}

// Append writes the unit.
func (m *Cancel) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.ServiceType, maxServiceType, "service_type")
	w.text(m.ID, maxMessageID, "message_id")
	w.address(m.Source, "source_addr")
	w.address(m.Dest, "destination_addr")
	return w.done(len(b))
}

func tooLong(name string, have, most int) error {
	return fmt.Errorf("%w: %s has %d octets, at most %d fit", ErrTooLong, name, have, most)
}
