package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// receiptID is the permanent name of a receipt: the offset of its submission's line in the truth file, and its number
// in that line.
func receiptID(offset int64, n int) uint64 { return uint64(offset)*maxReceipts + uint64(n) }

// ackedPath is the file of acknowledged receipts, beside the truth file.
func ackedPath(truth string) string {
	return strings.TrimSuffix(truth, filepath.Ext(truth)) + ".acked"
}

// watermarkBit marks an entry of the acknowledged file that is an offset of the truth file and no receipt: all receipts
// of the lines before it are acknowledged. So a restart need not read the truth file from its beginning.
const watermarkBit = 1 << 63

// journal is the truth file and the file of acknowledged receipts: entries of eight bytes, little-endian, appended.
type journal struct {
	truth *os.File
	size  int64 // of the truth file; the caller's lock

	mu    sync.Mutex
	acked *os.File
	buf   []byte
}

// openJournal opens both files, cuts off what a kill left incomplete, and returns the acknowledged receipts.
func openJournal(path string) (j *journal, done ackedSet, watermark int64, err error) {
	fail := func(err error) (*journal, ackedSet, int64, error) {
		if j != nil {
			err = errors.Join(err, j.close())
		}
		return nil, nil, 0, fmt.Errorf("open the carrier's truth: %w", err)
	}
	// 0600: the file holds numbers and texts in clear.
	truth, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fail(err)
	}
	j = &journal{truth: truth}
	if j.size, err = cutTorn(truth); err != nil {
		return fail(err)
	}
	if done, watermark, err = readAcked(ackedPath(path)); err != nil {
		return fail(err)
	}
	if watermark > j.size || len(done) > 0 && done[len(done)-1] >= receiptID(j.size, 0) {
		// The truth file was deleted or cut, so the acknowledged receipts belong to another file.
		done, watermark = nil, 0
		if err = os.Remove(ackedPath(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fail(err)
		}
	}
	if err = compactAcked(ackedPath(path), done, watermark); err != nil {
		return fail(err)
	}
	j.acked, err = os.OpenFile(ackedPath(path), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fail(err)
	}
	return j, done, watermark, nil
}

// append writes the lines of a batch with one write, and returns the offset of the first. After an error it truncates
// the file, so that the file never calls a submission accepted that the carrier did not accept.
func (j *journal) append(lines []byte) (offset int64, err error) {
	offset = j.size
	n, err := j.truth.Write(lines)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, j.truth.Truncate(offset))
		}
		return 0, fmt.Errorf("write the carrier's truth: %w", err)
	}
	j.size += int64(n)
	return offset, nil
}

// ack appends acknowledged receipts with one write.
func (j *journal) ack(ids []uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = j.buf[:0]
	for _, id := range ids {
		j.buf = binary.LittleEndian.AppendUint64(j.buf, id)
	}
	if _, err := j.acked.Write(j.buf); err != nil {
		return fmt.Errorf("write the carrier's acknowledged receipts: %w", err)
	}
	return nil
}

func (j *journal) close() error {
	err := j.truth.Close()
	if j.acked != nil {
		err = errors.Join(err, j.acked.Close())
	}
	return err
}

// ackedSet are the ids of acknowledged receipts, sorted.
type ackedSet []uint64

func (s ackedSet) has(id uint64) bool {
	_, found := slices.BinarySearch(s, id)
	return found
}

// readAcked reads the file of acknowledged receipts: the greatest watermark, and the receipts above it. A torn last
// entry does not count.
func readAcked(path string) (set ackedSet, watermark int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 64<<10)
	fill := 0
	for {
		n, err := f.Read(buf[fill:])
		fill += n
		whole := fill &^ 7
		for b := buf[:whole]; len(b) > 0; b = b[8:] {
			id := binary.LittleEndian.Uint64(b)
			if id&watermarkBit == 0 {
				if id >= receiptID(watermark, 0) {
					set = append(set, id)
				}
				continue
			}
			if offset := int64(id &^ watermarkBit); offset > watermark {
				watermark = offset
				// Receipts below the watermark are dropped at once, so that a file of a hundred million does not fill
				// the memory.
				set = slices.DeleteFunc(set, func(id uint64) bool { return id < receiptID(watermark, 0) })
			}
		}
		fill = copy(buf, buf[whole:fill])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
	}
	slices.Sort(set)
	return slices.Compact(set), watermark, nil
}

// compactAcked rewrites the file without the entries that the watermark covers, and without a torn last entry.
func compactAcked(path string, set ackedSet, watermark int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries := int64(len(set)) + 1
	if info.Size()%8 == 0 && info.Size() <= 2*8*entries {
		return nil
	}
	b := make([]byte, 0, 8*entries)
	b = binary.LittleEndian.AppendUint64(b, watermarkBit|uint64(watermark))
	for _, id := range set {
		b = binary.LittleEndian.AppendUint64(b, id)
	}
	// The new file is written beside the old one and renamed, so that after a kill there is a complete file.
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// segment is how much of the truth file one count of outstanding receipts covers.
const segment = 1 << 20

// outstanding counts the unacknowledged receipts of each segment of the truth file, to find the watermark. It takes
// four bytes per megabyte of file.
type outstanding struct {
	first  int64 // segment of counts[0]
	counts []int32
}

func (o *outstanding) add(offset int64, n int32) {
	i := int(offset/segment - o.first)
	if i < 0 {
		return // no receipt below the watermark is outstanding
	}
	for len(o.counts) <= i {
		o.counts = append(o.counts, 0)
	}
	o.counts[i] += n
}

// advance moves over the segments that have nothing outstanding and end at or before limit, and returns the offset
// reached.
func (o *outstanding) advance(limit int64) int64 {
	n := 0
	for (o.first+int64(n)+1)*segment <= limit && (n >= len(o.counts) || o.counts[n] == 0) {
		n++
	}
	o.counts = slices.Delete(o.counts, 0, min(n, len(o.counts)))
	o.first += int64(n)
	return o.first * segment
}
