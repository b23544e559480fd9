package pdu

// Address is a number or a name, with type of number and numbering plan (SMPP 3.4 §5.2.5, §5.2.6).
type Address struct {
	TON, NPI byte
	Addr     string
}

// Types of number and numbering plans.
const (
	TONUnknown       = 0
	TONInternational = 1
	TONNational      = 2
	TONNetwork       = 3
	TONSubscriber    = 4
	TONAlphanumeric  = 5
	TONAbbreviated   = 6

	NPIUnknown = 0
	NPIE164    = 1
)

// Bits of esm_class (SMPP 3.4 §5.2.12).
const (
	// ESMType masks the bits that say what kind of message it is.
	ESMType byte = 0x3C
	// ESMReceipt marks a delivery receipt of the message centre.
	ESMReceipt byte = 0x04
	// ESMDeliveryAck and ESMManualAck mark acknowledgements of the handset.
	ESMDeliveryAck byte = 0x08
	ESMManualAck   byte = 0x10
	// ESMIntermediate marks a receipt that is not final.
	ESMIntermediate byte = 0x20
	// ESMUDHI says that the text begins with a user data header.
	ESMUDHI byte = 0x40
)

// Values of data_coding (SMPP 3.4 §5.2.19).
const (
	CodingDefault byte = 0x00 // the message centre's default alphabet, nearly always GSM-7
	CodingASCII   byte = 0x01
	CodingOctets  byte = 0x02
	CodingLatin1  byte = 0x03
	CodingBinary  byte = 0x04
	CodingUCS2    byte = 0x08
)

// States of a message (message_state, SMPP 3.4 §5.2.28).
const (
	StateScheduled     byte = 0
	StateEnroute       byte = 1
	StateDelivered     byte = 2
	StateExpired       byte = 3
	StateDeleted       byte = 4
	StateUndeliverable byte = 5
	StateAccepted      byte = 6
	StateUnknown       byte = 7
	StateRejected      byte = 8
	StateSkipped       byte = 9
)

// Message is the body of submit_sm and deliver_sm (SMPP 3.4 §4.4.1, §4.6.1), and of data_sm, which has fewer fields
// (§4.7.1).
type Message struct {
	ServiceType  string
	Source, Dest Address
	ESMClass     byte
	Protocol     byte
	Priority     byte
	// Schedule and Validity are times in the format of the standard (§7.1.1): 16 characters, or empty.
	Schedule, Validity string
	Registered         byte
	Replace            byte
	Coding             byte
	Canned             byte // sm_default_msg_id
	// Short is short_message, at most 254 octets. data_sm does not have it.
	Short string
	TLVs  TLVs
}

// Text returns the octets of the message: message_payload if the unit has it, otherwise short_message.
func (m *Message) Text() string {
	if m.Short == "" {
		payload, _ := m.TLVs.Get(TagPayload)
		return payload
	}
	return m.Short
}

// DecodeMessage reads the body of the unit c: submit_sm, deliver_sm or data_sm.
func DecodeMessage(c Command, body string) (m Message, err error) {
	f := fields{s: body}
	m.ServiceType = f.text()
	m.Source, m.Dest = f.address(), f.address()
	m.ESMClass = f.byte()
	if c == DataSM {
		m.Registered, m.Coding = f.byte(), f.byte()
	} else {
		m.Protocol, m.Priority = f.byte(), f.byte()
		m.Schedule, m.Validity = f.text(), f.text()
		m.Registered, m.Replace, m.Coding, m.Canned = f.byte(), f.byte(), f.byte(), f.byte()
		m.Short = f.octets(int(f.byte()))
	}
	m.TLVs = TLVs(f.s)
	return m, f.err(c)
}

// Append writes the unit. If h is a data_sm, it omits the fields that data_sm does not have.
func (m *Message) Append(b []byte, h Header) ([]byte, error) {
	w := writer{b: begin(b, h)}
	w.text(m.ServiceType, maxServiceType, "service_type")
	w.address(m.Source, "source_addr")
	w.address(m.Dest, "destination_addr")
	w.bytes(m.ESMClass)
	if h.Command == DataSM {
		w.bytes(m.Registered, m.Coding)
	} else {
		w.bytes(m.Protocol, m.Priority)
		w.text(m.Schedule, maxTime, "schedule_delivery_time")
		w.text(m.Validity, maxTime, "validity_period")
		w.bytes(m.Registered, m.Replace, m.Coding, m.Canned, byte(len(m.Short)))
		if len(m.Short) > maxShort && w.err == nil {
			w.err = tooLong("short_message", len(m.Short), maxShort)
		}
		w.b = append(w.b, m.Short...)
	}
	w.b = append(w.b, m.TLVs...)
	return w.done(len(b))
}

// MessageResp is the answer to submit_sm, deliver_sm and data_sm.
type MessageResp struct {
	ID   string
	TLVs TLVs
}

// DecodeMessageResp reads the response. A response without a body, which message centres send with an error, gives a
// zero MessageResp.
func DecodeMessageResp(body string) MessageResp {
	f := fields{s: body}
	return MessageResp{ID: f.lastText(), TLVs: TLVs(f.s)}
}

// Append writes the unit. It writes no body if the command failed and the response has no fields.
func (m *MessageResp) Append(b []byte, h Header) ([]byte, error) {
	if h.Status != OK && *m == (MessageResp{}) {
		return h.Append(b), nil
	}
	w := writer{b: begin(b, h)}
	w.text(m.ID, maxMessageID, "message_id")
	w.b = append(w.b, m.TLVs...)
	return w.done(len(b))
}
