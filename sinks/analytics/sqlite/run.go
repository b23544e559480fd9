package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// blockSize is how many consecutive recipients share runs. It is the size of an audience blob, whose recipients are
// dealt together.
const blockSize = 5000

// runVersion is the first byte of who and of rest. Old versions must stay readable for ever.
const runVersion = 1

// shape holds the fields that many events have in common. A run stores each shape once, and its events refer to it by
// number.
type shape struct {
	kind     schemas.Kind
	code     schemas.Code
	channel  schemas.Channel
	try, leg uint8
	variant  uint8
	segments uint8
	holds    holds
	price    uint32
	route    string
	sender   string
	country  string
	currency string
	rawCode  string
	link     string
}

// holds says which fields a run stores for each event of a shape.
type holds uint8

const (
	holdsTo holds = 1 << iota
	holdsContact
	holdsProvider
	holdsRef
	// The message id consists of campaign, seq and a signature of six bytes, so only the signature is stored. Any other
	// id is stored in full.
	holdsPlainID
)

func shapeOf(e *analytics.Event, campaignNumber uint64) shape {
	s := shape{
		kind: e.Kind, code: e.Code, channel: e.Channel, try: e.Try, leg: e.Leg, variant: e.Variant, segments: e.Segments, price: e.PriceMicros,
		route: e.Route, sender: e.Sender, country: e.Country, currency: e.Currency, rawCode: e.RawCode, link: e.LinkID,
	}
	if e.To != "" {
		s.holds |= holdsTo
	}
	if e.ContactID != 0 {
		s.holds |= holdsContact
	}
	if e.ProviderID != "" {
		s.holds |= holdsProvider
	}
	if e.CustomerRef != "" {
		s.holds |= holdsRef
	}
	if e.MessageID.CampaignNumber() == campaignNumber && e.MessageID.Seq() == e.Seq && e.MessageID.Try() == 0 {
		s.holds |= holdsPlainID
	}
	return s
}

// runWriter encodes runs. It is used again for the next run. Each field is a column, because the values of one field
// resemble each other and compress well, and because most queries need only a few columns.
type runWriter struct {
	n        int
	shapes   []shape
	seqs     []byte
	numbers  []byte
	which    []byte
	times    []byte
	contacts []byte
	ids      []byte
	texts    []byte
	scratch  []byte

	lastSeq, lastTime, lastContact int64
}

func (w *runWriter) reset() {
	w.n, w.shapes = 0, w.shapes[:0]
	w.seqs, w.numbers, w.which, w.times, w.contacts, w.ids, w.texts = w.seqs[:0], w.numbers[:0], w.which[:0], w.times[:0], w.contacts[:0], w.ids[:0], w.texts[:0]
	w.lastSeq, w.lastTime, w.lastContact = 0, 0, 0
}

// shape adds a shape and returns its number within the run.
func (w *runWriter) shape(s *shape) int {
	w.shapes = append(w.shapes, *s)
	return len(w.shapes) - 1
}

// add appends an event. Its shape must have been added before.
func (w *runWriter) add(e *analytics.Event, number int, h holds) {
	w.n++
	w.seqs = binary.AppendVarint(w.seqs, int64(e.Seq)-w.lastSeq)
	w.lastSeq = int64(e.Seq)
	w.which = binary.AppendUvarint(w.which, uint64(number))
	w.times = binary.AppendVarint(w.times, e.TimeMS-w.lastTime)
	w.lastTime = e.TimeMS
	if h&holdsTo != 0 {
		w.numbers = appendNumber(w.numbers, e.To)
	}
	if h&holdsContact != 0 {
		w.contacts = binary.AppendVarint(w.contacts, int64(e.ContactID)-w.lastContact)
		w.lastContact = int64(e.ContactID)
	}
	if h&holdsPlainID != 0 {
		w.ids = append(w.ids, e.MessageID[10:]...)
	} else {
		w.ids = append(w.ids, e.MessageID[:]...)
	}
	if h&holdsProvider != 0 {
		w.texts = appendText(w.texts, e.ProviderID)
	}
	if h&holdsRef != 0 {
		w.texts = appendText(w.texts, e.CustomerRef)
	}
}

// finish returns the two blobs of the run.
func (w *runWriter) finish() (who, rest []byte) {
	// The shapes are part of who, because a reader of who must know which events have a number.
	b := binary.AppendUvarint(w.scratch[:0], uint64(w.n))
	b = binary.AppendUvarint(b, uint64(len(w.shapes)))
	for i := range w.shapes {
		b = appendShape(b, &w.shapes[i])
	}
	for _, column := range [][]byte{w.seqs, w.which, w.numbers} {
		b = binary.AppendUvarint(b, uint64(len(column)))
		b = append(b, column...)
	}
	who = compress(b)
	b = b[:0]
	for _, column := range [][]byte{w.times, w.contacts, w.ids, w.texts} {
		b = binary.AppendUvarint(b, uint64(len(column)))
		b = append(b, column...)
	}
	w.scratch = b
	return who, compress(b)
}

func compress(b []byte) []byte {
	out := make([]byte, 1+s2.MaxEncodedLen(len(b)))
	out[0] = runVersion
	return out[:1+len(s2.Encode(out[1:], b))]
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendNumber writes an E.164 number as an integer, and any other text as text. The lowest bit says which of the two
// it is.
func appendNumber(b []byte, to string) []byte {
	if n, ok := packNumber(to); ok {
		return binary.AppendUvarint(b, n<<1)
	}
	return append(binary.AppendUvarint(b, uint64(len(to))<<1|1), to...)
}

func packNumber(to string) (n uint64, ok bool) {
	if len(to) < 2 || len(to) > 18 || to[0] != '+' || to[1] == '0' {
		return 0, false
	}
	for i := 1; i < len(to); i++ {
		digit := to[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = n*10 + uint64(digit)
	}
	return n, true
}

func appendShape(b []byte, s *shape) []byte {
	for _, v := range []uint64{
		uint64(uint32(s.kind)), uint64(uint32(s.code)), uint64(uint32(s.channel)), uint64(s.try), uint64(s.leg),
		uint64(s.variant), uint64(s.segments), uint64(s.holds), uint64(s.price),
	} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []string{s.route, s.sender, s.country, s.currency, s.rawCode, s.link} {
		b = appendText(b, v)
	}
	return b
}

var errRun = errors.New("broken run")

// reader reads integers and strings from a run. After a failure it returns zeros, and bad is true.
type reader struct {
	b   string
	at  int
	bad bool
}

func (r *reader) uvarint() uint64 {
	var x uint64
	for shift := 0; shift < 64; shift += 7 {
		if r.at >= len(r.b) {
			break
		}
		c := r.b[r.at]
		r.at++
		x |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return x
		}
	}
	r.bad = true
	return 0
}

func (r *reader) varint() int64 {
	x := r.uvarint()
	return int64(x>>1) ^ -int64(x&1)
}

func (r *reader) take(n uint64) string {
	if n > uint64(len(r.b)-r.at) {
		r.bad = true
		return ""
	}
	s := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return s
}

func (r *reader) text() string { return r.take(r.uvarint()) }

// column returns a reader of the next column.
func (r *reader) column() reader { return reader{b: r.text(), bad: r.bad} }

func (r *reader) shape() (s shape) {
	s.kind, s.code, s.channel = schemas.Kind(r.uvarint()), schemas.Code(r.uvarint()), schemas.Channel(r.uvarint())
	s.try, s.leg, s.variant, s.segments = uint8(r.uvarint()), uint8(r.uvarint()), uint8(r.uvarint()), uint8(r.uvarint())
	s.holds, s.price = holds(r.uvarint()), uint32(r.uvarint())
	s.route, s.sender, s.country, s.currency, s.rawCode, s.link = r.text(), r.text(), r.text(), r.text(), r.text(), r.text()
	return s
}

func decompress(b []byte) (reader, error) {
	if len(b) == 0 || b[0] != runVersion {
		return reader{}, fmt.Errorf("%w: version is not %d", errRun, runVersion)
	}
	raw, err := s2.Decode(nil, b[1:])
	if err != nil {
		return reader{}, fmt.Errorf("%w: %w", errRun, err)
	}
	return reader{b: string(raw)}, nil
}

// whoReader iterates over the shapes, seqs and numbers of the events of a run.
type whoReader struct {
	n, left              int
	shapes               []shape
	seqs, which, numbers reader
	seq                  int64
}

func readWho(who []byte) (*whoReader, error) {
	r, err := decompress(who)
	if err != nil {
		return nil, err
	}
	w := &whoReader{n: int(r.uvarint())}
	w.left = w.n
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		return nil, fmt.Errorf("%w: %d shapes", errRun, n)
	}
	w.shapes = make([]shape, n)
	for i := range w.shapes {
		w.shapes[i] = r.shape()
	}
	w.seqs, w.which, w.numbers = r.column(), r.column(), r.column()
	if r.bad {
		return nil, fmt.Errorf("%w: cut off", errRun)
	}
	return w, nil
}

// next returns seq, shape and number of the next event. An E.164 number is returned as packed, any other as text.
func (w *whoReader) next() (seq uint32, s *shape, packed uint64, text string, err error) {
	w.left--
	w.seq += w.seqs.varint()
	i := w.which.uvarint()
	if w.seqs.bad || w.which.bad || i >= uint64(len(w.shapes)) || w.seq < 0 {
		return 0, nil, 0, "", fmt.Errorf("%w: event %d of %d", errRun, w.n-w.left, w.n)
	}
	s = &w.shapes[i]
	if s.holds&holdsTo != 0 {
		v := w.numbers.uvarint()
		if packed = v >> 1; v&1 == 1 {
			text, packed = w.numbers.take(v>>1), 0
		}
		if w.numbers.bad {
			return 0, nil, 0, "", fmt.Errorf("%w: number of event %d of %d", errRun, w.n-w.left, w.n)
		}
	}
	return uint32(w.seq), s, packed, text, nil
}

// readRun calls yield for every event of the run whose seq is accepted by want. The event is valid only during the
// call. All events belong to the given campaign.
func readRun(who, rest []byte, campaign *analytics.Campaign, number uint64, want func(seq uint32) bool, yield func(*analytics.Event)) error {
	w, err := readWho(who)
	if err != nil {
		return err
	}
	r, err := decompress(rest)
	if err != nil {
		return err
	}
	times, contacts, ids, texts := r.column(), r.column(), r.column(), r.column()
	var at, contact int64
	for w.left > 0 {
		seq, s, packed, text, err := w.next()
		if err != nil {
			return err
		}
		at += times.varint()
		if s.holds&holdsContact != 0 {
			contact += contacts.varint()
		}
		id := ids.take(16 - 10*uint64(s.holds&holdsPlainID/holdsPlainID))
		var provider, ref string
		if s.holds&holdsProvider != 0 {
			provider = texts.text()
		}
		if s.holds&holdsRef != 0 {
			ref = texts.text()
		}
		if times.bad || contacts.bad || ids.bad || texts.bad {
			return fmt.Errorf("%w: event %d of %d is cut off", errRun, w.n-w.left, w.n)
		}
		if !want(seq) {
			continue
		}
		e := analytics.Event{
			Campaign: campaign, TimeMS: at, Seq: seq, Kind: s.kind, Code: s.code, Channel: s.channel, Try: s.try, Leg: s.leg, Variant: s.variant,
			Segments: s.segments, PriceMicros: s.price, Route: s.route, Sender: s.sender, Country: s.country, Currency: s.currency,
			RawCode: s.rawCode, LinkID: s.link, To: text, ProviderID: provider, CustomerRef: ref,
		}
		if packed != 0 {
			e.To = unpackNumber(packed)
		}
		if s.holds&holdsContact != 0 {
			e.ContactID = uint64(contact)
		}
		if s.holds&holdsPlainID != 0 {
			e.MessageID = plainID(number, seq)
			copy(e.MessageID[10:], id)
		} else {
			copy(e.MessageID[:], id)
		}
		yield(&e)
	}
	return nil
}

// plainID returns the part of a message id that is determined by campaign and seq.
func plainID(number uint64, seq uint32) (id schemas.ID) {
	binary.BigEndian.PutUint64(id[:], number<<16|uint64(seq>>8)&0xffff)
	id[8] = byte(seq)
	return id
}

func unpackNumber(n uint64) string {
	var b [20]byte
	i := len(b)
	for ; n > 0; n /= 10 {
		i--
		b[i] = '0' + byte(n%10)
	}
	i--
	b[i] = '+'
	return string(b[i:])
}
