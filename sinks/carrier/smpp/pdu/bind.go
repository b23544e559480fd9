package pdu

// Versions of the protocol, for interface_version and sc_interface_version.
const (
	Version33 = 0x33
	Version34 = 0x34
	Version50 = 0x50
)

// Bind is the body of bind_transmitter, bind_receiver and bind_transceiver (SMPP 3.4 §4.1).
type Bind struct {
	SystemID, Password, SystemType string
	Version                        byte
	// Range is address_range with its type and numbering plan: the numbers whose messages a receiver wants. Nearly all
	// message centres expect it to be empty.
	Range Address
}

// DecodeBind reads a bind.
func DecodeBind(c Command, body string) (m Bind, err error) {
	f := fields{s: body}
	m.SystemID, m.Password, m.SystemType = f.text(), f.text(), f.text()
	m.Version = f.byte()
	m.Range.TON, m.Range.NPI = f.byte(), f.byte()
	m.Range.Addr = f.lastText()
	return m, f.err(c)
}

// Append writes the unit.
func (m *Bind) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.SystemID, maxSystemID, "system_id")
	w.text(m.Password, maxPassword, "password")
	w.text(m.SystemType, maxSystemType, "system_type")
	w.bytes(m.Version)
	w.address(m.Range, "address_range")
	return w.done(len(b))
}

// BindResp is the answer to a bind.
type BindResp struct {
	SystemID string
	TLVs     TLVs
}

// DecodeBindResp reads the answer to a bind. An answer without a body, which message centres send with an error, gives
// a zero BindResp.
func DecodeBindResp(body string) BindResp {
	f := fields{s: body}
	return BindResp{SystemID: f.lastText(), TLVs: TLVs(f.s)}
}

// Append writes the unit. It writes no body if the command failed and the answer has no fields.
func (m *BindResp) Append(b []byte, h Header) ([]byte, error) {
	if h.Status != OK && *m == (BindResp{}) {
		return h.Append(b), nil
	}
	w := writer{b: begin(b, h)}
	w.text(m.SystemID, maxSystemID, "system_id")
	w.b = append(w.b, m.TLVs...)
	return w.done(len(b))
}

// OutbindBody is the body of outbind, with which a message centre asks a client to bind as receiver.
type OutbindBody struct{ SystemID, Password string }

// DecodeOutbind reads an outbind.
func DecodeOutbind(body string) (m OutbindBody, err error) {
	f := fields{s: body}
	m.SystemID, m.Password = f.text(), f.lastText()
	return m, f.err(Outbind)
}

// Append writes the unit.
func (m *OutbindBody) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.SystemID, maxSystemID, "system_id")
	w.text(m.Password, maxPassword, "password")
	return w.done(len(b))
}
