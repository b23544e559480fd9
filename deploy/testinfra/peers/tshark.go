package peers

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Recording records the bytes of connections as a packet capture would. A real capture would need privileges that a
// test may lack.
type Recording struct {
	mu    sync.Mutex
	pcap  []byte
	conns uint16
}

// NewRecording returns an empty recording: a libpcap file whose packets begin with IPv4.
func NewRecording() *Recording {
	h := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...)
	h = binary.LittleEndian.AppendUint32(h, 65535)
	h = binary.LittleEndian.AppendUint32(h, 101) // LINKTYPE_RAW
	return &Recording{pcap: h}
}

// recordedPort is the port of the server's side in a recording.
const recordedPort = 2775

// Conn returns c, recorded as the client's side of a connection.
func (r *Recording) Conn(c net.Conn) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns++
	return &recorded{Conn: c, r: r, port: 40000 + r.conns, next: [2]uint32{1, 1}}
}

type recorded struct {
	net.Conn
	r    *Recording
	port uint16
	next [2]uint32 // sequence numbers of client and server
}

func (c *recorded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.r.add(c, 1, b[:n])
	return n, err
}

func (c *recorded) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.r.add(c, 0, b[:n])
	return n, err
}

// add appends octets from one side, in segments as they fit into an Ethernet frame.
func (r *Recording) add(c *recorded, side int, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(b) > 0 {
		n := min(len(b), 1400)
		ports := [2]uint16{c.port, recordedPort}
		p := make([]byte, 0, 40+n)
		p = append(p, 0x45, 0)
		p = binary.BigEndian.AppendUint16(p, uint16(40+n))
		p = append(p, 0, 0, 0x40, 0, 64, 6, 0, 0)
		p = append(p, 127, 0, 0, byte(1+side), 127, 0, 0, byte(2-side))
		p = binary.BigEndian.AppendUint16(p, ports[side])
		p = binary.BigEndian.AppendUint16(p, ports[1-side])
		p = binary.BigEndian.AppendUint32(p, c.next[side])
		p = binary.BigEndian.AppendUint32(p, c.next[1-side])
		p = append(p, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0)
		p = append(p, b[:n]...)
		c.next[side] += uint32(n)
		now := time.Now()
		r.pcap = binary.LittleEndian.AppendUint32(r.pcap, uint32(now.Unix()))
		r.pcap = binary.LittleEndian.AppendUint32(r.pcap, uint32(now.Nanosecond()/1000))
		r.pcap = binary.LittleEndian.AppendUint32(r.pcap, uint32(len(p)))
		r.pcap = binary.LittleEndian.AppendUint32(r.pcap, uint32(len(p)))
		r.pcap = append(r.pcap, p...)
		b = b[n:]
	}
}

// Dissect has Wireshark read a recording and returns, for each packet that the filter lets through, the fields,
// separated by tabs; several values of a field in one packet are separated by `|`.
func (r *Recording) Dissect(tb testing.TB, filter string, fields ...string) []string {
	tb.Helper()
	Need(tb, Tshark)
	r.mu.Lock()
	at := filepath.Join(tb.TempDir(), "recording.pcap")
	err := os.WriteFile(at, r.pcap, 0o600)
	r.mu.Unlock()
	if err != nil {
		tb.Fatal(err)
	}
	args := []string{
		"60", "tshark", "-n", "-r", at, "-d", "tcp.port==2775,smpp", "-o", "tcp.check_checksum:FALSE", "-o", "ip.check_checksum:FALSE",
		"-o", "smpp.decode_sms_over_smpp:GSM 7-bit",
		"-Y", filter, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|",
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("timeout", args...).Output()
	if err != nil {
		tb.Fatalf("tshark: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	return lines
}
