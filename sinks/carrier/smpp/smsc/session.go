package smsc

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"fanfare/sinks/carrier/smpp/pdu"
)

// session is a connection of a client.
type session struct {
	server *Server
	conn   net.Conn
	reader *pdu.Reader
	wake   chan struct{}
	ended  chan struct{}

	// Only the reader uses these fields.
	command  pdu.Command
	throttle throttle
	taken    int

	mu         sync.Mutex
	account    *account // nil until bound; only the reader sets it
	out        []byte
	spare      []byte
	closed     bool
	closing    bool // close the connection once out is written
	mute       bool // half open: the server writes nothing any more
	unanswered int  // submits without an answer
	sequence   uint32
	counter    uint64 // last id with Quirks.PerSession
	delivering map[uint32]*parcel
}

// bindWait is how long a client has to bind.
const bindWait = 30 * time.Second

// serve serves one connection until it ends.
func (s *Server) serve(ctx context.Context, conn net.Conn, running *sync.WaitGroup) {
	x := &session{
		server: s, conn: conn, reader: pdu.NewReader(slowReader{conn, s.cfg.Quirks.ReadPause}), wake: make(chan struct{}, 1),
		ended: make(chan struct{}), delivering: map[uint32]*parcel{},
	}
	defer x.end()
	defer context.AfterFunc(ctx, x.end)()
	running.Go(x.write)
	_ = conn.SetReadDeadline(time.Now().Add(bindWait))
	var submits []submission
	for {
		h, body, err := x.reader.Next()
		if err != nil {
			if errors.Is(err, pdu.ErrLength) {
				x.reply(pdu.Header{Command: pdu.GenericNack, Status: pdu.InvalidCmdLength, Sequence: h.Sequence}.Append)
			}
			return
		}
		switch {
		case h.Command == pdu.SubmitSM || h.Command == pdu.DataSM:
			submits = x.read(submits, h, string(body))
		case !x.other(ctx, h, string(body), running):
			return
		}
		// Units that are in the buffer already are handed over together.
		if len(submits) > 0 && (len(submits) >= mostSubmits || !x.reader.Ready()) {
			if !x.submit(ctx, submits) {
				return
			}
			submits = submits[:0]
		}
	}
}

// slowReader pauses before every read.
type slowReader struct {
	net.Conn
	pause time.Duration
}

func (r slowReader) Read(b []byte) (int, error) {
	if r.pause > 0 {
		time.Sleep(r.pause) //nolint:forbidigo // it is what the quirk is
	}
	return r.Conn.Read(b)
}

// other handles all commands except hand-overs. It returns false when the session must end.
func (x *session) other(ctx context.Context, h pdu.Header, body string, running *sync.WaitGroup) bool {
	head := func(c pdu.Command, s pdu.Status) func([]byte) []byte {
		return pdu.Header{Command: c, Status: s, Sequence: h.Sequence}.Append
	}
	switch h.Command {
	case pdu.BindTransmitter, pdu.BindReceiver, pdu.BindTransceiver:
		return x.bind(ctx, h, body, running)
	case pdu.EnquireLink:
		x.reply(head(pdu.EnquireLinkResp, pdu.OK))
	case pdu.Unbind:
		x.mu.Lock()
		x.closing = true
		x.mu.Unlock()
		x.reply(head(pdu.UnbindResp, pdu.OK))
		<-x.ended // the writer ends the session
		return false
	case pdu.DeliverSMResp, pdu.DataSMResp:
		x.delivered(h.Sequence, h.Status)
	case pdu.GenericNack:
		x.delivered(h.Sequence, max(h.Status, pdu.UnknownError))
	case pdu.QuerySM:
		x.reply(head(pdu.QuerySMResp, pdu.QueryFailed))
	case pdu.CancelSM:
		x.reply(head(pdu.CancelSMResp, pdu.CancelFailed))
	case pdu.EnquireLinkResp, pdu.UnbindResp:
	default:
		if !h.Command.IsResponse() {
			x.reply(head(pdu.GenericNack, pdu.InvalidCommand))
		}
	}
	return true
}

// bind binds the session, or refuses it with a status.
func (x *session) bind(ctx context.Context, h pdu.Header, body string, running *sync.WaitGroup) bool {
	s := x.server
	s.count(func(n *Stats) { n.Binds++ })
	m, err := pdu.DecodeBind(h.Command, body)
	status := pdu.OK
	switch {
	case err != nil || m.SystemID == "":
		status = pdu.InvalidSystemID
	case x.account != nil:
		status = pdu.AlreadyBound
	case s.binds.Add(1) <= int64(s.cfg.Quirks.RejectBinds):
		status = pdu.BindFailed
	case s.cfg.Authenticate != nil:
		status = s.cfg.Authenticate(m.SystemID, m.Password)
	}
	if status == pdu.OK {
		a, err := s.account(ctx, m.SystemID, running)
		if err != nil {
			s.log.WarnContext(ctx, "bind refused", "system_id", m.SystemID, "err", err)
			status = pdu.BindFailed
		}
		x.mu.Lock()
		x.account = a
		x.mu.Unlock()
	}
	resp := pdu.BindResp{SystemID: "fanfare-sim", TLVs: "\x02\x10\x00\x01\x34"}
	if status != pdu.OK {
		resp = pdu.BindResp{}
	}
	x.reply(func(b []byte) []byte {
		b, _ = resp.Append(b, pdu.Header{Command: h.Command.Response(), Status: status, Sequence: h.Sequence})
		return b
	})
	if status != pdu.OK {
		return x.account != nil // a second bind fails and does not end the first
	}
	_ = x.conn.SetReadDeadline(time.Time{})
	x.command = h.Command
	s.count(func(n *Stats) { n.Sessions++ })
	if h.Command != pdu.BindTransmitter {
		x.account.join(x)
	}
	return true
}

// reply queues the unit that f appends.
func (x *session) reply(f func([]byte) []byte) {
	x.mu.Lock()
	if !x.mute && !x.closed {
		x.out = f(x.out)
	}
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// write writes queued units until the session ends.
func (x *session) write() {
	for {
		select {
		case <-x.ended:
			return
		case <-x.wake:
		}
		for {
			x.mu.Lock()
			out, closing := x.out, x.closing
			if len(out) > 0 {
				x.out = x.spare[:0]
			}
			x.mu.Unlock()
			if len(out) == 0 {
				if closing {
					x.end()
				}
				break
			}
			_ = x.conn.SetWriteDeadline(time.Now().Add(bindWait))
			if _, err := x.conn.Write(out); err != nil {
				x.end()
				return
			}
			x.spare = out
		}
	}
}

// end closes the connection. Other receivers get the messages that the client has not accepted.
func (x *session) end() {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return
	}
	x.closed = true
	close(x.ended)
	a, back := x.account, x.delivering
	x.delivering = nil
	x.mu.Unlock()
	_ = x.conn.Close()
	if a != nil {
		a.leave(x, back)
	}
}

// reset ends the connection as a crash does: data in the kernel's buffers is lost.
func (x *session) reset() {
	x.server.count(func(n *Stats) { n.Resets++ })
	if tcp, ok := x.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	x.end()
}
