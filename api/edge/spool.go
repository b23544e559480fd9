package edge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
)

// spool keeps unpublished records in a file, in order, until they are published. A line is a record in JSON. A last
// line without its newline, which a crash leaves, is dropped. Writes are not synced: they survive kill -9 but not a
// power cut.
type spool struct {
	most int64

	mu   sync.Mutex
	file *os.File
	size int64 // bytes of complete lines
	read int64 // bytes of lines that are published
	n    int   // lines that are not published
}

type spooled struct {
	Topic string `json:"topic"`
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
	// Names and Values are those of the headers.
	Names  []string `json:"names"`
	Values [][]byte `json:"values"`
}

// errFull means that the file has reached its maximum size.
var errFull = errors.New("the file of unpublished clicks is full")

// openSpool opens the file and counts what an earlier process has left in it.
func openSpool(path string, most int64) (*spool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("file of unpublished clicks: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("file of unpublished clicks %s is used by another edge: give each its own directory: %w", path, err)
	}
	s := &spool{most: most, file: f}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // the end of the file, or a line without its newline
			break
		}
		s.size += int64(len(line))
		s.n++
	}
	if err := f.Truncate(s.size); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("file of unpublished clicks: %w", err)
	}
	return s, nil
}

// add appends a record.
func (s *spool) add(r *kgo.Record) error {
	line := spooled{Topic: r.Topic, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		line.Names, line.Values = append(line.Names, h.Key), append(line.Values, h.Value)
	}
	b, err := json.Marshal(&line)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+int64(len(b)) > s.most {
		return errFull
	}
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		_ = s.file.Truncate(s.size)
		return fmt.Errorf("file of unpublished clicks: %w", err)
	}
	s.size += int64(len(b))
	s.n++
	return nil
}

// waiting returns how many records are unpublished.
func (s *spool) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// head returns the records of the first n lines at most, with the number of lines and their bytes. A line that is not a
// record counts, but gives no record.
func (s *spool) head(n int) (records []*kgo.Record, lines int, bytes int64, err error) {
	s.mu.Lock()
	in := bufio.NewReader(io.NewSectionReader(s.file, s.read, s.size-s.read))
	s.mu.Unlock()
	for lines < n {
		b, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, 0, fmt.Errorf("file of unpublished clicks: %w", err)
		}
		lines++
		bytes += int64(len(b))
		var line spooled
		if json.Unmarshal(b, &line) != nil || len(line.Names) != len(line.Values) {
			continue // another program wrote into the file
		}
		r := &kgo.Record{Topic: line.Topic, Key: line.Key, Value: line.Value}
		for i, name := range line.Names {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: line.Values[i]})
		}
		records = append(records, r)
	}
	return records, lines, bytes, nil
}

// drop marks the first bytes, which are n lines, as published. If no lines are left, it truncates the file.
func (s *spool) drop(bytes int64, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += bytes
	s.n = max(0, s.n-n)
	if s.read < s.size {
		return nil
	}
	s.read, s.size, s.n = 0, 0, 0
	if err := s.file.Truncate(0); err != nil {
		return fmt.Errorf("file of unpublished clicks: %w", err)
	}
	return nil
}

func (s *spool) close() error { return s.file.Close() }
