package postgrestest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Moment is when a fault strikes.
type Moment string

// Moments.
const (
	Connect   Moment = "connect"   // a client connects
	Begin     Moment = "begin"     // a transaction begins
	Read      Moment = "read"      // a statement that reads
	Write     Moment = "write"     // a statement that writes
	Commit    Moment = "commit"    // a transaction is committed, before that is done
	Committed Moment = "committed" // a transaction is committed, after that is done and before the client is told
)

// Fault is what goes wrong.
type Fault struct {
	At Moment
	// Code is the SQLSTATE that the client gets. Without one, the server cuts the connection, or does not answer.
	Code   string
	Silent bool
	// After is how often its moment passes before it strikes.
	After int
	// Times is how often it strikes; 0: until [Server.Mend].
	Times int
	// Old: it strikes only connections that were made before it, as those to a primary that was demoted.
	Old bool
}

// ends reports whether the connection ends with the fault, as Postgres and its poolers have it.
func (f Fault) ends() bool {
	return f.Code == "" || f.At == Connect || strings.HasPrefix(f.Code, "57P") || strings.HasPrefix(f.Code, "08")
}

// Server is a Postgres.
type Server struct {
	listener net.Listener
	open     func() (upstream, error)

	mu       sync.Mutex
	fault    *Fault
	since    int // the number of the session at which the fault began
	passed   int
	hits     int
	mended   chan struct{} // closed by Mend
	sessions map[*session]bool
	numbers  int
}

// upstream is a session with the database behind the server.
type upstream interface {
	// handle runs one message of the client and gives each message of the answer to send.
	handle(msg pgproto3.FrontendMessage, send func(pgproto3.BackendMessage)) error
	// text is the SQL that a message runs, "" if it runs none.
	text(msg pgproto3.FrontendMessage) string
	// abort makes the transaction one that can only be rolled back, and returns the status of the session.
	abort() (status byte, err error)
	// close ends the session: what it has not committed is rolled back.
	close()
}

func newServer(tb testing.TB, open func() (upstream, error)) *Server {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{listener: l, open: open, mended: make(chan struct{}), sessions: map[*session]bool{}}
	tb.Cleanup(func() {
		_ = l.Close()
		s.Mend()
		s.mu.Lock()
		defer s.mu.Unlock()
		for session := range s.sessions {
			_ = session.conn.Close()
		}
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

// Fail makes the server fail from now on. If clients cannot connect, those that are connected are cut.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.passed, s.hits, s.since, s.mended = &f, 0, 0, s.numbers, make(chan struct{})
	if f.At == Connect {
		for session := range s.sessions {
			_ = session.conn.Close()
		}
	}
}

// Mend ends the fault. Connections that kept silent are cut.
func (s *Server) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		s.fault = nil
		close(s.mended)
	}
}

// Hits returns how often the last fault has struck.
func (s *Server) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

// strikes returns the fault if it strikes a session now.
func (s *Server) strikes(at Moment, number int) (*Fault, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f == nil || f.At != at || f.Old && number > s.since || f.Times > 0 && s.hits >= f.Times {
		return nil, nil
	}
	if s.passed++; s.passed <= f.After {
		return nil, nil
	}
	s.hits++
	return f, s.mended
}

// session is one connection of a client.
type session struct {
	server  *Server
	conn    net.Conn
	client  *pgproto3.Backend
	behind  upstream
	number  int
	discard bool // a fault struck within a pipeline: everything up to its Sync is dropped
}

var errEnd = errors.New("the session ends")

func (s *Server) serve(conn net.Conn) {
	c := &session{server: s, conn: conn, client: pgproto3.NewBackend(conn, conn)}
	s.mu.Lock()
	s.numbers++
	c.number = s.numbers
	s.sessions[c] = true
	s.mu.Unlock()
	defer func() {
		if c.behind != nil {
			c.behind.close()
		}
		_ = conn.Close()
		s.mu.Lock()
		delete(s.sessions, c)
		s.mu.Unlock()
	}()
	if c.greet() != nil {
		return
	}
	for {
		msg, err := c.client.Receive()
		if err != nil || c.handle(msg) != nil || c.client.Flush() != nil {
			return
		}
	}
}

// greet lets the client in.
func (c *session) greet() error {
	for {
		msg, err := c.client.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		switch msg.(type) {
		case *pgproto3.StartupMessage:
		case *pgproto3.SSLRequest:
			if _, err := c.conn.Write([]byte("N")); err != nil {
				return err
			}
			continue
		default:
			return errEnd // asks to cancel what another session does
		}
		break
	}
	if f, mended := c.server.strikes(Connect, c.number); f != nil {
		return c.strike(*f, mended)
	}
	var err error
	if c.behind, err = c.server.open(); err != nil {
		c.client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "XX000", Message: err.Error()})
		return errors.Join(err, c.client.Flush())
	}
	c.client.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{"server_version": "16.1", "client_encoding": "UTF8", "standard_conforming_strings": "on"} {
		c.client.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	c.client.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	c.client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.client.Flush()
}

// handle answers one message.
func (c *session) handle(msg pgproto3.FrontendMessage) error {
	switch msg.(type) {
	case *pgproto3.Terminate:
		return errEnd
	case *pgproto3.Sync:
		if c.discard {
			return c.resume(msg)
		}
	}
	if c.discard {
		return nil
	}
	at := momentOf(c.behind.text(msg))
	if at == "" {
		return c.behind.handle(msg, c.client.Send)
	}
	if f, mended := c.server.strikes(at, c.number); f != nil {
		if err := c.strike(*f, mended); err != nil {
			return err
		}
		if _, simple := msg.(*pgproto3.Query); simple {
			return c.resume(nil)
		}
		c.discard = true
		return nil
	}
	if at == Commit {
		if f, mended := c.server.strikes(Committed, c.number); f != nil {
			if err := c.behind.handle(msg, func(pgproto3.BackendMessage) {}); err != nil {
				return err
			}
			if f.Code != "" {
				// Whatever error it gets, the client must not use this session any more
				return errors.Join(c.strike(*f, mended), errEnd)
			}
			return c.strike(*f, mended)
		}
	}
	return c.behind.handle(msg, c.client.Send)
}

// resume ends the answer to statements that failed; sync is the message that ended them, if there was one.
func (c *session) resume(sync pgproto3.FrontendMessage) error {
	c.discard = false
	if sync != nil {
		if err := c.behind.handle(sync, func(pgproto3.BackendMessage) {}); err != nil {
			return err
		}
	}
	status, err := c.behind.abort()
	if err != nil {
		return err
	}
	c.client.Send(&pgproto3.ReadyForQuery{TxStatus: status})
	return nil
}

// strike does what the fault says. It returns an error if the session ends with it.
func (c *session) strike(f Fault, mended <-chan struct{}) error {
	switch {
	case f.Silent:
		<-mended
		return errEnd
	case f.Code == "":
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // reset and not ended
		}
		return errEnd
	}
	severity := "ERROR"
	if f.ends() {
		severity = "FATAL"
	}
	c.client.Send(&pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: f.Code, Message: fmt.Sprintf("%s: as the test wants", f.Code)})
	if !f.ends() {
		return nil
	}
	return errors.Join(c.client.Flush(), errEnd)
}

// momentOf returns what a statement does, "" if no fault strikes it.
func momentOf(text string) Moment {
	text = strings.ToLower(bare(text))
	switch firstWord(text) {
	case "begin":
		return Begin
	case "commit":
		return Commit
	case "select", "with":
		if strings.Contains(text, "pg_advisory_unlock") || strings.Contains(text, "txid_") {
			return ""
		}
		return Read
	case "insert", "update", "delete":
		return Write
	}
	return ""
}

// bare is a statement without blanks around it and comments before it.
func bare(text string) string {
	text = strings.TrimSpace(text)
	for strings.HasPrefix(text, "--") {
		_, text, _ = strings.Cut(text, "\n")
		text = strings.TrimSpace(text)
	}
	return text
}

func firstWord(text string) string {
	return text[:len(text)-len(strings.TrimLeft(text, "abcdefghijklmnopqrstuvwxyz"))]
}
