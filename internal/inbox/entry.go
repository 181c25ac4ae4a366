package inbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrNone means that the inbox has no such entry.
var ErrNone = errors.New("not in the inbox")

// Entry is an acknowledged callback whose delivery the inbox does not know of yet.
type Entry struct {
	// ID orders entries by arrival. It may be reused after the entry is removed.
	ID int64
	// Key identifies the entry.
	Key string
	// Body is the callback. In lists, a large body is cut and Truncated is set.
	Body      []byte
	Truncated bool `json:",omitempty"`
	// QueuedAt is the time of Put, in milliseconds.
	QueuedAt time.Time
	// DeadAt is the time when the entry became a dead letter; zero while it waits.
	DeadAt time.Time
	// Reason is the reason of a dead letter.
	Reason string
	// Trace is the traceparent of the callback; empty without one.
	Trace string
}

// Stats counts the entries of an inbox.
type Stats struct {
	// Waiting and DeadLetters are the numbers of entries.
	Waiting, DeadLetters int64
	// Oldest is the QueuedAt of the oldest waiting entry; zero without one.
	Oldest time.Time
}

// The store has two keys for each entry: one made of a prefix and the ID, which holds the
// entry, and one made of the entry's own key, which holds the first. Waiting entries are
// written in order, so that compactions hardly ever move them.
const (
	waitingPrefix = 'e' // and the ID, 8 bytes, big-endian
	deadPrefix    = 's' // and the ID
	namePrefix    = 'k' // and the key
	probeKey      = "p"
	versionKey    = "v"
	// version is the version of this format.
	version = "1"
)

// place is the position of an entry in the store. The zero place means none.
type place struct {
	prefix byte
	id     int64
}

func (p place) key() []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), p.prefix), uint64(p.id))
}

func parsePlace(b []byte) (place, error) {
	if len(b) != 9 || b[0] != waitingPrefix && b[0] != deadPrefix {
		return place{}, fmt.Errorf("read inbox: %x is not the place of an entry", b)
	}
	return place{b[0], int64(binary.BigEndian.Uint64(b[1:]))}, nil
}

func nameOf(key string) []byte {
	return append(append(make([]byte, 0, 1+len(key)), namePrefix), key...)
}

// size returns the bytes of an entry that count towards a page.
func (e *Entry) size() int { return len(e.Key) + len(e.Reason) + len(e.Body) }

// encode encodes an entry without its ID.
func (e *Entry) encode() []byte {
	b := make([]byte, 0, 32+len(e.Key)+len(e.Reason)+len(e.Trace)+len(e.Body))
	b = binary.AppendUvarint(b, uint64(e.QueuedAt.UnixMilli()))
	dead := uint64(0)
	if !e.DeadAt.IsZero() {
		dead = uint64(e.DeadAt.UnixMilli())
	}
	b = binary.AppendUvarint(b, dead)
	for _, s := range []string{e.Key, e.Reason, e.Trace} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, e.Body...)
}

// decode decodes an entry with at most maxBody bytes of its body, or all if maxBody is 0.
func decode(id int64, b []byte, maxBody int) (Entry, error) {
	whole := true
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if whole = whole && n > 0; whole {
			b = b[n:]
		}
		return v
	}
	text := func() string {
		n := number()
		if whole = whole && n <= uint64(len(b)); !whole {
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	e := Entry{ID: id, QueuedAt: time.UnixMilli(int64(number())).UTC()}
	if dead := number(); dead != 0 {
		e.DeadAt = time.UnixMilli(int64(dead)).UTC()
	}
	e.Key, e.Reason, e.Trace = text(), text(), text()
	if !whole {
		return Entry{}, fmt.Errorf("read inbox: entry %d is damaged", id)
	}
	if maxBody > 0 && len(b) > maxBody {
		b, e.Truncated = b[:maxBody], true
	}
	e.Body = append([]byte(nil), b...)
	return e, nil
}
