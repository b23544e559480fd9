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

// Line is what stands behind an account: it takes the messages and brings the receipts. It must give the number back
// that [carrier.Outbound.Meta] names under [MetaRef], in decimal, as Receipt.Ref.
type Line interface {
	carrier.Connector
	carrier.ReceiptSource
}

// MetaRef names the provider's id that a line is to give to a message: the number, in decimal.
const MetaRef = "ref"

// Config of a message centre.
type Config struct {
	// Open returns the line of an account, once for each. Required.
	Open func(systemID string) (Line, error)
	// Authenticate returns pdu.OK when an account may bind; nil: all may.
	Authenticate func(systemID, password string) pdu.Status
	// Keys sign the submission ids of messages that say none. Required.
	Keys *schemas.Keys
	// ReferenceTLV is the parameter in which a message says its submission id; 0: [DefaultReferenceTLV]. Echo sends it
	// back with receipts.
	ReferenceTLV pdu.Tag
	Echo         bool
	Quirks       Quirks
	// Logger may be nil.
	Logger *slog.Logger
}

// DefaultReferenceTLV is the parameter of Config.ReferenceTLV: one of those that are the message centre's own.
const DefaultReferenceTLV pdu.Tag = 0x1403

// Server is a message centre.
type Server struct {
	cfg   Config
	log   *slog.Logger
	binds atomic.Int64 // that were tried
	refs  atomic.Uint64
	names strangers

	mu       sync.Mutex
	accounts map[string]*account
	stats    Stats
}

// Stats count what a message centre has seen.
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
	// Ids are never given out twice: a later run begins at a later millisecond.
	s.refs.Store(uint64(time.Now().UnixMilli()) << 12)
	s.names.campaign = 1<<47 + uint64(time.Now().UnixMilli())&(1<<46-1)
	return s, nil
}

// Serve takes sessions from a listener until ctx ends, and closes it.
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

// Stats returns what it has seen.
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

// account returns the account of that name. It brings receipts, for as long as ctx lasts, from its first session on.
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

// Deliver sends any message to a client that is bound to receive, as a recipient who writes, and waits until the client
// has taken it.
func (s *Server) Deliver(ctx context.Context, systemID string, m pdu.Message) error {
	s.mu.Lock()
	a := s.accounts[systemID]
	s.mu.Unlock()
	if a == nil {
		return fmt.Errorf("smsc: account %q was never bound", systemID)
	}
	return a.deliver(ctx, []pdu.Message{m})
}

// messageNumber is what a message is known by: 56 bits that no other message has, and 8 bits of how many units it came
// in. The id of a unit has its place among them there instead. So a receipt can be sent for each unit, also by a server
// that was started after.
type messageNumber uint64

func newMessageNumber(n uint64, units int) messageNumber {
	return messageNumber(n<<8 | uint64(units)&0xff)
}

func (n messageNumber) units() int        { return int(n & 0xff) }
func (n messageNumber) unit(i int) uint64 { return uint64(n)&^0xff | uint64(i) }

// strangers gives submission ids to messages that say none.
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
