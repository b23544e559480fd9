package pdu

import "fmt"

// Command is a command_id (SMPP 3.4 §5.1.2.1).
type Command uint32

// Commands. The response to a command has the same number with the top bit set.
const (
	GenericNack         Command = 0x80000000
	BindReceiver        Command = 0x00000001
	BindReceiverResp    Command = 0x80000001
	BindTransmitter     Command = 0x00000002
	BindTransmitterResp Command = 0x80000002
	QuerySM             Command = 0x00000003
	QuerySMResp         Command = 0x80000003
	SubmitSM            Command = 0x00000004
	SubmitSMResp        Command = 0x80000004
	DeliverSM           Command = 0x00000005
	DeliverSMResp       Command = 0x80000005
	Unbind              Command = 0x00000006
	UnbindResp          Command = 0x80000006
	ReplaceSM           Command = 0x00000007
	ReplaceSMResp       Command = 0x80000007
	CancelSM            Command = 0x00000008
	CancelSMResp        Command = 0x80000008
	BindTransceiver     Command = 0x00000009
	BindTransceiverResp Command = 0x80000009
	Outbind             Command = 0x0000000B
	EnquireLink         Command = 0x00000015
	EnquireLinkResp     Command = 0x80000015
	SubmitMulti         Command = 0x00000021
	SubmitMultiResp     Command = 0x80000021
	AlertNotification   Command = 0x00000102
	DataSM              Command = 0x00000103
	DataSMResp          Command = 0x80000103
)

var commandNames = map[Command]string{
	GenericNack: "generic_nack", BindReceiver: "bind_receiver", BindTransmitter: "bind_transmitter", QuerySM: "query_sm", SubmitSM: "submit_sm",
	DeliverSM: "deliver_sm", Unbind: "unbind", ReplaceSM: "replace_sm", CancelSM: "cancel_sm", BindTransceiver: "bind_transceiver",
	Outbind: "outbind", EnquireLink: "enquire_link", SubmitMulti: "submit_multi", AlertNotification: "alert_notification", DataSM: "data_sm",
}

// IsResponse reports whether c is a response to another command. generic_nack is one.
func (c Command) IsResponse() bool { return c&0x80000000 != 0 }

// Response returns the response command of c.
func (c Command) Response() Command { return c | 0x80000000 }

// String returns the standard's name of c, or its number.
func (c Command) String() string {
	if name, ok := commandNames[c]; ok {
		return name
	}
	if name, ok := commandNames[c&^0x80000000]; ok && c.IsResponse() {
		return name + "_resp"
	}
	return fmt.Sprintf("0x%08x", uint32(c))
}

// Status is a command_status (SMPP 3.4 §5.1.3). The numbers from 0x400 to 0x4FF are specific to a message centre.
type Status uint32

// Statuses on which a client or a message centre acts. The connector's table of codes has the meaning of all others.
const (
	OK                Status = 0x00
	InvalidMsgLength  Status = 0x01 // ESME_RINVMSGLEN
	InvalidCmdLength  Status = 0x02 // ESME_RINVCMDLEN
	InvalidCommand    Status = 0x03 // ESME_RINVCMDID
	IncorrectBind     Status = 0x04 // ESME_RINVBNDSTS
	AlreadyBound      Status = 0x05 // ESME_RALYBND
	SystemError       Status = 0x08 // ESME_RSYSERR
	InvalidSource     Status = 0x0A // ESME_RINVSRCADR
	InvalidDest       Status = 0x0B // ESME_RINVDSTADR
	BindFailed        Status = 0x0D // ESME_RBINDFAIL
	InvalidPassword   Status = 0x0E // ESME_RINVPASWD
	InvalidSystemID   Status = 0x0F // ESME_RINVSYSID
	CancelFailed      Status = 0x11 // ESME_RCANCELFAIL
	QueueFull         Status = 0x14 // ESME_RMSGQFUL
	InvalidESMClass   Status = 0x43 // ESME_RINVESMCLASS
	SubmitFailed      Status = 0x45 // ESME_RSUBMITFAIL
	Throttled         Status = 0x58 // ESME_RTHROTTLED
	TemporaryAppError Status = 0x64 // ESME_RX_T_APPN
	PermanentAppError Status = 0x65 // ESME_RX_P_APPN
	QueryFailed       Status = 0x67 // ESME_RQUERYFAIL
	InvalidTLVs       Status = 0xC0 // ESME_RINVOPTPARSTREAM
	DeliveryFailure   Status = 0xFE // ESME_RDELIVERYFAILURE
	UnknownError      Status = 0xFF // ESME_RUNKNOWNERR
)

// String returns the number in the form that carriers' documents use, such as 0x00000058.
func (s Status) String() string { return fmt.Sprintf("0x%08X", uint32(s)) }
