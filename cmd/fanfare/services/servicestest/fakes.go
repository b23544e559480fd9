package servicestest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Redis serves a connection as Redis does. answers has the answer to a whole command, or to all commands of a name, in
// upper case and in the notation of the protocol without its last line end; other commands are answered by OK.
func Redis(answers map[string]string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			words, err := readCommand(r)
			if err != nil {
				return
			}
			answer, ok := answers[strings.ToUpper(strings.Join(words, " "))]
			if !ok {
				answer, ok = answers[strings.ToUpper(words[0])]
			}
			switch {
			case ok:
			case strings.EqualFold(words[0], "HELLO"):
				answer = "-ERR unknown command"
			case strings.EqualFold(words[0], "TIME"):
				now := time.Now()
				answer = fmt.Sprintf("*2\r\n$%d\r\n%d\r\n$1\r\n0", len(strconv.FormatInt(now.Unix(), 10)), now.Unix())
			default:
				answer = "+OK"
			}
			if _, err := io.WriteString(c, answer+"\r\n"); err != nil {
				return
			}
		}
	}
}

// Bulk returns a text in the notation of the protocol of Redis, without the last line end.
func Bulk(text string) string { return fmt.Sprintf("$%d\r\n%s", len(text), text) }

func readCommand(r *bufio.Reader) (words []string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "*")))
	if err != nil || n < 1 {
		return nil, io.ErrUnexpectedEOF
	}
	for range n {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "$")))
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		words = append(words, string(b[:size]))
	}
	return words, nil
}

// Postgres is a fake Postgres without TLS.
type Postgres struct {
	// Refuse is the SQLSTATE with which it refuses connections; "": it accepts every client.
	Refuse string
	// Version is its server_version; default 16.1.
	Version string
	// Standby: it answers every query with true, so it also says that it is in recovery.
	Standby bool
}

// Serve serves a connection.
func (p Postgres) Serve(c net.Conn) {
	backend := pgproto3.NewBackend(c, c)
	for {
		msg, err := backend.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, secure := msg.(*pgproto3.SSLRequest); !secure {
			break
		}
		if _, err := c.Write([]byte("N")); err != nil {
			return
		}
	}
	if p.Refuse != "" {
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: p.Refuse, Message: "refused by the test"})
		_ = backend.Flush()
		return
	}
	if p.Version == "" {
		p.Version = "16.1"
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{"server_version": p.Version, "client_encoding": "UTF8", "standard_conforming_strings": "on"} {
		backend.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	answer := "f"
	if p.Standby {
		answer = "t"
	}
	const oidBool = 16
	for backend.Flush() == nil {
		msg, err := backend.Receive()
		if err != nil {
			return
		}
		if _, ok := msg.(*pgproto3.Query); ok {
			backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("answer"), DataTypeOID: oidBool, DataTypeSize: 1, TypeModifier: -1}}})
			backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(answer)}})
			backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	}
}

// ClickHouse is a fake ClickHouse that knows hello and ping of the native protocol.
type ClickHouse struct {
	// Refuse is the code of the exception with which it refuses connections; 0: it accepts every client.
	Refuse int32
	// Major and Minor are its version; default 25.3.
	Major, Minor uint64
}

// Serve serves a connection.
func (ch ClickHouse) Serve(c net.Conn) {
	const (
		clientHello, clientPing                  = 0, 4
		serverHello, serverException, serverPong = 0, 2, 4
		revision                                 = 54032 // old enough that the hello has no more fields
	)
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil || n < 9 || b[0] != clientHello || b[1] > 64 || b[2] < 'A' {
		return // not the hello of a client
	}
	text := func(out []byte, s string) []byte { return append(binary.AppendUvarint(out, uint64(len(s))), s...) }
	if ch.Refuse != 0 {
		out := binary.LittleEndian.AppendUint32([]byte{serverException}, uint32(ch.Refuse))
		for _, s := range []string{"DB::Exception", "refused by the test", ""} {
			out = text(out, s)
		}
		_, _ = c.Write(append(out, 0)) // no nested exception
		return
	}
	if ch.Major == 0 {
		ch.Major, ch.Minor = 25, 3
	}
	out := text([]byte{serverHello}, "ClickHouse")
	for _, v := range []uint64{ch.Major, ch.Minor, revision} {
		out = binary.AppendUvarint(out, v)
	}
	if _, err := c.Write(out); err != nil {
		return
	}
	for {
		if n, err := c.Read(b); err != nil || n != 1 || b[0] != clientPing {
			return
		}
		if _, err := c.Write([]byte{serverPong}); err != nil {
			return
		}
	}
}
