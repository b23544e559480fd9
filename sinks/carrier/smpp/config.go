package smpp

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/codes"
	"fanfare/sinks/carrier/settings"
	"fanfare/sinks/carrier/smpp/dlr"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// Config is one account at one message centre. Its JSON is the configuration of a route; [Parse] reads it.
type Config struct {
	// Host and Port of the message centre. Port 0 is 2775, or 3550 with TLS.
	Host string `json:"host"`
	Port int    `json:"port,omitempty"`
	// SystemID and Password are the credentials of the account. SystemType is empty unless the carrier names one.
	SystemID   string `json:"systemId"`
	Password   Secret `json:"password"`
	SystemType string `json:"systemType,omitempty"`
	// Version is interface_version: `3.4` (the default), `5.0` or `3.3`.
	Version string `json:"version,omitempty"`
	// TLS secures the connection; nil: no TLS.
	TLS *TLS `json:"tls,omitempty"`

	// Binds is how many sessions the connector keeps, 1..64; 0: one. With Split, each has a second session to receive.
	Binds int `json:"binds,omitempty"`
	// Split uses a transmitter and a receiver session. Otherwise each session is a transceiver.
	Split bool `json:"split,omitempty"`
	// Window is how many hand-overs of one session may wait for their answers, 1..2000; 0: 50. When a connection
	// breaks, up to this many hand-overs per session are in doubt.
	Window int `json:"window,omitempty"`
	// Throughput is how many hand-overs this process makes per second at most; 0: as many as the route's limit allows.
	// The route's limit counts messages of all processes. Throughput counts the parts of long texts, as the message
	// centre does.
	Throughput int `json:"throughput,omitempty"`

	// AnswerTimeout is how long the connector waits for the answer to a hand-over, which is then in doubt; 0: 10 s.
	// EnquireLink is the silence after which the connector sends enquire_link; 0: 30 s. Inactivity is the silence after
	// which it ends the session; it must be longer than EnquireLink; 0: the sum of EnquireLink and AnswerTimeout.
	// ConnectTimeout is for connecting and binding; 0: 10 s.
	AnswerTimeout  Duration `json:"answerTimeout,omitempty"`
	EnquireLink    Duration `json:"enquireLink,omitempty"`
	Inactivity     Duration `json:"inactivity,omitempty"`
	ConnectTimeout Duration `json:"connectTimeout,omitempty"`
	// ReconnectMin and ReconnectMax are the bounds of the pause before the next attempt to connect, which doubles each
	// time; 0: 1 s and 60 s.
	ReconnectMin Duration `json:"reconnectMin,omitempty"`
	ReconnectMax Duration `json:"reconnectMax,omitempty"`

	// Alphabet of texts that fit into GSM-7: `gsm7` (one septet to an octet, the default), `gsm7-packed` or `latin1`.
	Alphabet string `json:"alphabet,omitempty"`
	// DataCodingGSM and DataCodingUCS2 are the data_coding values of these encodings; 0 and nil: 0 and 8.
	DataCodingGSM  byte  `json:"dataCodingGsm,omitempty"`
	DataCodingUCS2 *byte `json:"dataCodingUcs2,omitempty"`
	// Long is how the connector sends texts of several segments: `udh8` (the default), `udh16`, `sar` or `payload`. See
	// package sms.
	Long string `json:"long,omitempty"`

	// ServiceType is the service_type of all messages; empty: the carrier's default.
	ServiceType string `json:"serviceType,omitempty"`
	// Numbering of sender and recipient.
	Numbering Numbering `json:"numbering,omitzero"`
	// RegisteredDelivery asks for receipts: nil is 1, a receipt for the final state of the message; 0 asks for none.
	RegisteredDelivery *byte `json:"registeredDelivery,omitempty"`
	// Validity is how the connector sends the end of a message's validity: `relative` (the default), `absolute` (UTC)
	// or `none`.
	Validity string `json:"validity,omitempty"`
	// ReferenceTLV is a carrier-specific parameter (0x1400..0x3FFF) in which each message carries our submission id, 16
	// octets; 0: none. With ReferenceEchoed, the carrier returns it in its receipts, so no index of provider ids is
	// needed.
	ReferenceTLV    uint16 `json:"referenceTlv,omitempty"`
	ReferenceEchoed bool   `json:"referenceEchoed,omitempty"`

	// IDs says how receipts spell the ids: `any` (the default: the connector tries hexadecimal, decimal and leading
	// zeros), `same`, `hex-to-dec` (hexadecimal in the receipt, decimal in the answer) or `dec-to-hex`.
	IDs string `json:"ids,omitempty"`
	// ReceiptFields are the fields of receipts that are a list without names, such as [id, stat, err, done], and
	// ReceiptSeparator is the text between the fields; none: the layout of SMPP 3.4, appendix B. ReceiptZone is the
	// time zone of their times, such as `Europe/Rome`; empty: UTC.
	ReceiptFields    []string `json:"receiptFields,omitempty"`
	ReceiptSeparator string   `json:"receiptSeparator,omitempty"`
	ReceiptZone      string   `json:"receiptZone,omitempty"`
	// Codes are lines in the format of codes.csv with the meanings of the carrier's own codes, such as
	// `err,069,,BARRED`.
	Codes []string `json:"codes,omitempty"`
}

// TLS configures TLS. The connector always verifies the message centre's certificate.
type TLS struct {
	// ServerName is the name in the certificate; empty: Config.Host.
	ServerName string `json:"serverName,omitempty"`
	// CA is a list of certificates in PEM that may sign it; empty: those of the system.
	CA string `json:"ca,omitempty"`
	// Certificate and Key are our client certificate in PEM, for carriers that require one.
	Certificate string `json:"certificate,omitempty"`
	Key         Secret `json:"key,omitempty"`
}

// Numbering is the type of number and the numbering plan for each form of address. nil means the usual values:
// alphanumeric 5/0, short 3/0, international 1/1, and 1/1 for the recipient.
type Numbering struct {
	// Alphanumeric is for senders with a letter in their name, Short for senders of at most eight digits without a +,
	// and International for all other senders. Recipient is for all recipients.
	Alphanumeric  *TONNPI `json:"alphanumeric,omitempty"`
	Short         *TONNPI `json:"short,omitempty"`
	International *TONNPI `json:"international,omitempty"`
	Recipient     *TONNPI `json:"recipient,omitempty"`
	// Plus keeps the + before international numbers. Nearly all message centres expect them without it.
	Plus bool `json:"plus,omitempty"`
}

// TONNPI is a type of number with a numbering plan.
type TONNPI struct {
	TON byte `json:"ton"`
	NPI byte `json:"npi"`
}

// Secret is a text that is never printed, logged or written as JSON.
type Secret = settings.Secret

// Duration is a time.Duration that JSON writes as text, such as `10s`.
type Duration = settings.Duration

// Parse reads a configuration. A field that it does not know is an error, as is what Validate refuses.
func Parse(raw []byte) (Config, error) {
	var c Config
	if err := settings.Read(raw, &c); err != nil {
		return Config{}, fmt.Errorf("smpp: %w", err)
	}
	return c, c.Validate()
}

// standardCodes are those of the standard, and of most carriers.
//
//go:embed codes.csv
var standardCodes string

// Defaults and bounds.
const (
	defaultPort          = 2775
	defaultTLSPort       = 3550
	defaultWindow        = 50
	defaultAnswerTimeout = 10 * time.Second
	defaultEnquireLink   = 30 * time.Second
	defaultConnect       = 10 * time.Second
	defaultReconnectMin  = time.Second
	defaultReconnectMax  = time.Minute

	maxWindow = 2000
	maxBinds  = 64
)

// Validate returns all errors of the configuration. Each line names the field and says what to do.
func (c *Config) Validate() error {
	_, err := c.resolve()
	return err
}

// Caps returns the capabilities of a connector with this configuration, or the error of Validate. It does not connect.
func (c *Config) Caps() (carrier.Caps, error) {
	s, err := c.resolve()
	if err != nil {
		return carrier.Caps{}, err
	}
	return s.caps(), nil
}

// resolved is a Config with its defaults, in the form that the connector uses.
type resolved struct {
	Config

	addr       string
	tls        *tls.Config
	version    byte
	sms        sms.Options
	ids        dlr.IDs
	layout     dlr.Layout
	validity   validity
	registered byte
	codes      *codes.Table
	numbering  numbering
}

type numbering struct {
	alphanumeric, short, international, recipient TONNPI
	plus                                          bool
}

type validity uint8

const (
	validityRelative validity = iota
	validityAbsolute
	validityNone
)

var (
	versions   = map[string]byte{"": pdu.Version34, "3.4": pdu.Version34, "5.0": pdu.Version50, "3.3": pdu.Version33}
	alphabets  = map[string]sms.Alphabet{"": sms.GSM7, "gsm7": sms.GSM7, "gsm7-packed": sms.GSM7Packed, "latin1": sms.Latin1}
	longs      = map[string]sms.Long{"": sms.UDH8, "udh8": sms.UDH8, "udh16": sms.UDH16, "sar": sms.SAR, "payload": sms.Payload}
	idFormats  = map[string]dlr.IDs{"": dlr.IDsAny, "any": dlr.IDsAny, "same": dlr.IDsSame, "hex-to-dec": dlr.IDsHexToDec, "dec-to-hex": dlr.IDsDecToHex}
	validities = map[string]validity{"": validityRelative, "relative": validityRelative, "absolute": validityAbsolute, "none": validityNone}
)

// resolve fills in the defaults.
func (c *Config) resolve() (*resolved, error) {
	s := &resolved{Config: *c}
	v := &faults{}
	s.resolveSession(v)
	s.resolveTimes(v)
	s.resolveMessages(v)
	s.resolveReceipts(v)
	if err := errors.Join(v.list...); err != nil {
		return nil, fmt.Errorf("smpp: %w", err)
	}
	return s, nil
}

// faults collects the errors of a configuration.
type faults struct{ list []error }

func (f *faults) add(format string, args ...any) {
	f.list = append(f.list, fmt.Errorf(format, args...))
}

func (f *faults) between(field string, value, least, most int) {
	if value < least || value > most {
		f.add("%s: want %d to %d, got %d", field, least, most, value)
	}
}

func (f *faults) text(field, value string, least, most int) {
	if len(value) < least || len(value) > most || strings.IndexByte(value, 0) >= 0 {
		f.add("%s: want %d to %d characters, got %d", field, least, most, len(value))
	}
}

// choice returns the value of one of the words that a field may have.
func choice[T any](f *faults, field, value string, words map[string]T, want string) T {
	v, ok := words[value]
	if !ok {
		f.add("%s %q: want %s", field, value, want)
	}
	return v
}

func (s *resolved) resolveSession(f *faults) {
	if s.Host == "" || strings.ContainsAny(s.Host, "/ ") {
		f.add("host %q: want a name or an address of the message centre, without a port", s.Host)
	}
	if s.Port == 0 {
		if s.Port = defaultPort; s.TLS != nil {
			s.Port = defaultTLSPort
		}
	}
	f.between("port", s.Port, 1, 65535)
	s.addr = net.JoinHostPort(s.Host, fmt.Sprint(s.Port))
	f.text("systemId", s.SystemID, 1, 32)
	f.text("password", string(s.Password), 0, 64)
	f.text("systemType", s.SystemType, 0, 12)
	s.version = choice(f, "version", s.Version, versions, "3.4, 5.0 or 3.3")
	if s.Binds == 0 {
		s.Binds = 1
	}
	f.between("binds", s.Binds, 1, maxBinds)
	if s.Window == 0 {
		s.Window = defaultWindow
	}
	f.between("window", s.Window, 1, maxWindow)
	f.between("throughput", s.Throughput, 0, 1_000_000)
	if s.TLS != nil {
		var err error
		if s.tls, err = s.TLS.config(s.Host); err != nil {
			f.list = append(f.list, err)
		}
	}
}

// config reads the certificates.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls.ca: want certificates as PEM, which begins with -----BEGIN CERTIFICATE-----")
		}
	}
	if t.Certificate != "" || t.Key != "" {
		pair, err := tls.X509KeyPair([]byte(t.Certificate), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.certificate and tls.key: want a certificate and its key as PEM: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (s *resolved) resolveTimes(f *faults) {
	for _, d := range []struct {
		name        string
		value       *Duration
		otherwise   time.Duration
		least, most time.Duration
	}{
		{"answerTimeout", &s.AnswerTimeout, defaultAnswerTimeout, 100 * time.Millisecond, 5 * time.Minute},
		{"enquireLink", &s.EnquireLink, defaultEnquireLink, 100 * time.Millisecond, time.Hour},
		{"connectTimeout", &s.ConnectTimeout, defaultConnect, 100 * time.Millisecond, time.Minute},
		{"reconnectMin", &s.ReconnectMin, defaultReconnectMin, 10 * time.Millisecond, time.Hour},
		{"reconnectMax", &s.ReconnectMax, defaultReconnectMax, 10 * time.Millisecond, time.Hour},
	} {
		if *d.value == 0 {
			*d.value = Duration(d.otherwise)
		}
		if v := time.Duration(*d.value); v < d.least || v > d.most {
			f.add("%s: want %v to %v, got %v", d.name, d.least, d.most, v)
		}
	}
	if s.Inactivity == 0 {
		s.Inactivity = s.EnquireLink + s.AnswerTimeout
	}
	if s.Inactivity <= s.EnquireLink {
		f.add("inactivity: want more than enquireLink (%v), got %v", time.Duration(s.EnquireLink), time.Duration(s.Inactivity))
	}
	if s.ReconnectMax < s.ReconnectMin {
		f.add("reconnectMax: want at least reconnectMin (%v), got %v", time.Duration(s.ReconnectMin), time.Duration(s.ReconnectMax))
	}
}

func (s *resolved) resolveMessages(f *faults) {
	s.sms = sms.Options{
		Alphabet: choice(f, "alphabet", s.Alphabet, alphabets, "gsm7, gsm7-packed or latin1"), GSM: s.DataCodingGSM, UCS2: pdu.CodingUCS2,
		Long: choice(f, "long", s.Long, longs, "udh8, udh16, sar or payload"),
	}
	if s.DataCodingUCS2 != nil {
		s.sms.UCS2 = *s.DataCodingUCS2
	}
	f.text("serviceType", s.ServiceType, 0, 5)
	s.numbering = numbering{
		alphanumeric:  either(s.Numbering.Alphanumeric, TONNPI{pdu.TONAlphanumeric, pdu.NPIUnknown}),
		short:         either(s.Numbering.Short, TONNPI{pdu.TONNetwork, pdu.NPIUnknown}),
		international: either(s.Numbering.International, TONNPI{pdu.TONInternational, pdu.NPIE164}),
		recipient:     either(s.Numbering.Recipient, TONNPI{pdu.TONInternational, pdu.NPIE164}),
		plus:          s.Numbering.Plus,
	}
	s.registered = 1
	if s.RegisteredDelivery != nil {
		s.registered = *s.RegisteredDelivery
	}
	s.validity = choice(f, "validity", s.Validity, validities, "relative, absolute or none")
	if s.ReferenceTLV != 0 {
		if s.ReferenceTLV < 0x1400 || s.ReferenceTLV > 0x3fff {
			f.add("referenceTlv: want 5120 to 16383 (0x1400 to 0x3FFF, the message centre's own), got %d", s.ReferenceTLV)
		}
	} else if s.ReferenceEchoed {
		f.add("referenceEchoed: want referenceTlv, the parameter that is echoed")
	}
}

func either(v *TONNPI, otherwise TONNPI) TONNPI {
	if v != nil {
		return *v
	}
	return otherwise
}

func (s *resolved) resolveReceipts(f *faults) {
	s.ids = choice(f, "ids", s.IDs, idFormats, "any, same, hex-to-dec or dec-to-hex")
	s.layout = dlr.Layout{Separator: s.ReceiptSeparator, Fields: s.ReceiptFields}
	if len(s.ReceiptFields) > 0 && (!slices.Contains(s.ReceiptFields, "id") || !slices.Contains(s.ReceiptFields, "stat")) {
		f.add("receiptFields %q: want at least id and stat among them", s.ReceiptFields)
	}
	if s.ReceiptZone != "" {
		var err error
		if s.layout.Location, err = time.LoadLocation(s.ReceiptZone); err != nil {
			f.add("receiptZone: want the name of a time zone such as Europe/Rome: %w", err)
		}
	}
	var err error
	if s.codes, err = codes.New(standardCodes, s.Codes); err != nil {
		f.list = append(f.list, err)
	}
}
