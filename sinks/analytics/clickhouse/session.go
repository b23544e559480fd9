package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// revision is the revision of the native protocol that this client announces. It is from 2021, and is the last one in
// which the server does not send profile events with every insert. Servers accept clients of any revision.
const revision = int(proto.FeatureDistributedDepth)

// session is one connection that inserts blocks over the native protocol. clickhouse-go is not used for this, because
// it boxes every value of a LowCardinality(String) column. An event has ten of these, so clickhouse-go needs four times
// as much time per event. After an error a session must not be used again.
type session struct {
	conn     net.Conn
	timeout  time.Duration
	buf      proto.Buffer
	reader   *proto.Reader
	compress *compress.Writer
}

// address says where to connect and with which login.
type address struct {
	addr                     string
	database, user, password string
	tls                      *tls.Config
	dialTimeout, readTimeout time.Duration
}

func dial(ctx context.Context, to address) (*session, error) {
	d := net.Dialer{Timeout: to.dialTimeout}
	var conn net.Conn
	var err error
	if to.tls != nil {
		conn, err = (&tls.Dialer{NetDialer: &d, Config: to.tls}).DialContext(ctx, "tcp", to.addr)
	} else {
		conn, err = d.DialContext(ctx, "tcp", to.addr)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := &session{conn: conn, timeout: to.readTimeout, reader: proto.NewReader(conn), compress: compress.NewWriter(compress.LevelZero, compress.LZ4)}
	defer s.watch(ctx)()
	s.buf.Encode(proto.ClientHello{
		Name: "fanfare", Major: 1, ProtocolVersion: revision, Database: to.database, User: to.user, Password: to.password,
	})
	if err = s.flush(); err == nil {
		err = s.hello()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greet %s: %w", to.addr, err), conn.Close())
	}
	return s, nil
}

// watch closes the connection if ctx ends before stop is called.
func (s *session) watch(ctx context.Context) (stop func()) {
	undo := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { undo() }
}

func (s *session) flush() error {
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.buf.Buf)
	s.buf.Reset()
	return err
}

// packet reads the type of the next packet. It returns an exception as an error.
func (s *session) packet() (proto.ServerCode, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.timeout)); err != nil {
		return 0, err
	}
	n, err := s.reader.UVarInt()
	if err != nil {
		return 0, err
	}
	code := proto.ServerCode(n)
	if code != proto.ServerCodeException {
		return code, nil
	}
	var e proto.Exception
	if err := e.DecodeAware(s.reader, revision); err != nil {
		return 0, fmt.Errorf("read an exception: %w", err)
	}
	return 0, &exception{Code: e.Code, message: e.Message}
}

// exception is an error that the server reported.
type exception struct {
	Code    proto.Error
	message string
}

func (e *exception) Error() string {
	return fmt.Sprintf("clickhouse code %d: %s", int(e.Code), e.message)
}

func (s *session) hello() error {
	code, err := s.packet()
	if err != nil {
		return err
	}
	if code != proto.ServerCodeHello {
		return fmt.Errorf("got packet %d, want a greeting", code)
	}
	var h proto.ServerHello
	return h.DecodeAware(s.reader, revision)
}

// insert sends one block and returns when the server has written it.
func (s *session) insert(ctx context.Context, table string, settings map[string]string, input proto.Input) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.watch(ctx)()
	q := proto.Query{
		Body: input.Into(table), Stage: proto.StageComplete, Compression: proto.CompressionEnabled,
		Info: proto.ClientInfo{
			ProtocolVersion: revision, Major: 1, Interface: proto.InterfaceTCP, Query: proto.ClientQueryInitial,
			InitialAddress: s.conn.LocalAddr().String(), ClientName: "fanfare",
		},
	}
	for k, v := range settings {
		q.Settings = append(q.Settings, proto.Setting{Key: k, Value: v, Important: true})
	}
	q.EncodeAware(&s.buf, revision)
	// An empty block ends the list of external tables. There are none.
	if err := s.block(proto.Block{}, nil); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("send the query: %w", err)
	}
	// The server answers with the columns that it expects, or with an exception.
	if err := s.await(proto.ServerCodeData); err != nil {
		return err
	}
	block := proto.Block{Info: proto.BlockInfo{BucketNum: -1}, Columns: len(input), Rows: input[0].Data.Rows()}
	if err := s.block(block, input); err != nil {
		return err
	}
	if err := s.block(proto.Block{}, nil); err != nil { // an empty block ends the data
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("send %d rows: %w", block.Rows, err)
	}
	return s.await(proto.ServerCodeEndOfStream)
}

// block encodes and compresses a block.
func (s *session) block(b proto.Block, input proto.Input) error {
	proto.ClientCodeData.Encode(&s.buf)
	proto.ClientData{}.EncodeAware(&s.buf, revision)
	start := len(s.buf.Buf)
	if err := b.EncodeBlock(&s.buf, revision, input); err != nil {
		return fmt.Errorf("encode %d rows: %w", b.Rows, err)
	}
	if err := s.compress.Compress(s.buf.Buf[start:]); err != nil {
		return fmt.Errorf("compress %d rows: %w", b.Rows, err)
	}
	s.buf.Buf = append(s.buf.Buf[:start], s.compress.Data...)
	return nil
}

// await reads packets until one of the wanted type.
func (s *session) await(want proto.ServerCode) error {
	for {
		code, err := s.packet()
		if err != nil {
			return err
		}
		switch code {
		case proto.ServerCodeData:
			err = s.skipBlock()
		case proto.ServerCodeProgress:
			err = new(proto.Progress).DecodeAware(s.reader, revision)
		case proto.ServerCodeProfile:
			err = new(proto.Profile).DecodeAware(s.reader, revision)
		case proto.ServerCodeTableColumns:
			err = new(proto.TableColumns).DecodeAware(s.reader, revision)
		case proto.ServerCodeEndOfStream:
		default:
			err = fmt.Errorf("packet %d was not to be expected", code)
		}
		if err != nil {
			return fmt.Errorf("read packet %d: %w", code, err)
		}
		if code == want {
			return nil
		}
		if code == proto.ServerCodeEndOfStream {
			return errors.New("the answer ended before the insert began")
		}
	}
}

// skipBlock reads a block without rows, which holds only names and types of columns.
func (s *session) skipBlock() error {
	if _, err := s.reader.Str(); err != nil {
		return err
	}
	s.reader.EnableCompression()
	defer s.reader.DisableCompression()
	var b proto.Block
	var columns proto.ColInfoInput
	return b.DecodeBlock(s.reader, revision, &columns)
}

func (s *session) close() error { return s.conn.Close() }
