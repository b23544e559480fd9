package smsc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// Line is the carrier behind an account: it accepts the messages and brings the receipts. Receipt.Ref must be the
// decimal number that the message had in [carrier.Outbound.Meta] under [MetaRef].
type Line interface {
	carrier.Connector
	carrier.ReceiptSource
}

// MetaRef is the key in Meta under which a message has the id that its receipts must name: a number, in decimal.
const MetaRef = "ref"

// Config of a message centre.
type Config struct {
	// Open returns the line of an account. It is called once for each account. Required.
	Open func(systemID string) (Line, error)
	// Authenticate returns pdu.OK if an account may bind; nil: every account may.
	Authenticate func(systemID, password string) pdu.Status
	// Keys sign the submission ids of messages that have none. Required.
	Keys *schemas.Keys
	// ReferenceTLV is the parameter in which a message carries its submission id; 0: [DefaultReferenceTLV]. Echo puts
	// it into receipts, too.
	ReferenceTLV pdu.Tag
	Echo         bool
	Quirks       Quirks
	// Logger may be nil.
	Logger *slog.Logger
}

// DefaultReferenceTLV is the default of Config.ReferenceTLV. It is in the range that is specific to a message centre.
const DefaultReferenceTLV pdu.Tag = 0x1403

// Server is a message centre.
type Server struct {
	cfg   Config
	log   *slog.Logger
	binds atomic.Int64 // binds that clients have tried
	refs  atomic.Uint64
	names strangers

	mu       sync.Mutex
	accounts map[string]*account
	stats    Stats
}

// Stats counts what a message centre has received.
type Stats struct {
	Sessions, Binds                  int
	Submits, Refused, Resets         int
	Delivered, DeliverRefused, Alone int
}

// New returns a message centre.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil || cfg.Keys == nil {
		return nil, errors.New("smsc: a line and keys are needed")
	}
	cfg.ReferenceTLV = cmp.Or(cfg.ReferenceTLV, DefaultReferenceTLV)
	s := &Server{cfg: cfg, log: cfg.Logger, accounts: map[string]*account{}, names: strangers{keys: cfg.Keys}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	// Ids are never used twice, because a later run starts at a later millisecond.
	s.refs.Store(uint64(time.Now().UnixMilli()) << 12)
	s.names.campaign = 1<<47 + uint64(time.Now().UnixMilli())&(1<<46-1)
	return s, nil
}

// Serve accepts sessions from a listener until ctx ends, and then closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("smsc: %w", err)
		}
		running.Go(func() { s.serve(ctx, conn, &running) })
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Server) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// account returns the account of a system id. From the first session on, it brings receipts until ctx ends.
func (s *Server) account(ctx context.Context, name string, running *sync.WaitGroup) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[name]; a != nil {
		return a, nil
	}
	line, err := s.cfg.Open(name)
	if err != nil {
		return nil, err
	}
	a := newAccount(s, line)
	s.accounts[name] = a
	running.Go(func() {
		if err := line.Receipts(ctx, func(list []carrier.Receipt) error { return a.emit(ctx, list) }); err != nil {
			s.log.ErrorContext(ctx, "receipts of an account ended", "account", name, "err", err)
		}
	})
	return a, nil
}

// Deliver sends a message to a client that is bound as a receiver, such as a message of a recipient, and waits until
// the client has accepted it.
func (s *Server) Deliver(ctx context.Context, systemID string, m pdu.Message) error {
	s.mu.Lock()
	a := s.accounts[systemID]
	s.mu.Unlock()
	if a == nil {
		return fmt.Errorf("smsc: account %q was never bound", systemID)
	}
	return a.deliver(ctx, []pdu.Message{m})
}

// messageNumber identifies a message: 56 bits that no other message has, and in the last 8 bits the number of its
// units. In the id of a unit, the last 8 bits are the unit's place instead. So the receipt for a message tells how many
// units it had, also to a server that was started later.
type messageNumber uint64

func newMessageNumber(n uint64, units int) messageNumber {
	return messageNumber(n<<8 | uint64(units)&0xff)
}

func (n messageNumber) units() int        { return int(n & 0xff) }
func (n messageNumber) unit(i int) uint64 { return uint64(n)&^0xff | uint64(i) }

// strangers makes submission ids for messages that carry none.
type strangers struct {
	mu       sync.Mutex
	keys     *schemas.Keys
	campaign uint64
	seq      uint32
}

func (n *strangers) next() carrier.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seq++; n.seq > schemas.MaxSeq {
		n.campaign, n.seq = n.campaign+1, 1
	}
	return n.keys.Submission(n.campaign, n.seq, 1)
}
