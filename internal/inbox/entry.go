package inbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrNone means that there is no such entry.
var ErrNone = errors.New("not in the inbox")

// Entry is an acknowledged callback that its sink doesn't have yet, as far as the inbox
// knows.
type Entry struct {
	// ID orders the entries by arrival. It may be used again once its entry is gone.
	ID int64
	// Key names the entry: there is one of each key.
	Key string
	// Body is what was put. Lists have the beginning of a large one, and are Truncated.
	Body      []byte
	Truncated bool `json:",omitempty"`
	// QueuedAt is when it was put, to the millisecond.
	QueuedAt time.Time
	// DeadAt is when it became a dead letter; zero while it waits.
	DeadAt time.Time
	// Reason is why it is a dead letter.
	Reason string
	// Trace is the traceparent of the callback; empty without one.
	Trace string
}

// Stats say how full an inbox is.
type Stats struct {
	// Waiting is the number of entries that wait, and DeadLetters that of dead letters.
	Waiting, DeadLetters int64
	// Oldest is when the first of those that wait was put; zero without any.
	Oldest time.Time
}

// The store has two keys for an entry. One holds all of it, ordered by ID: waiting or dead.
// The other is the entry's own key and holds the first one. Entries that wait are written in
// order, and so are hardly ever moved again.
const (
	waitingPrefix = 'e' // and the ID, 8 bytes, big-endian
	deadPrefix    = 's' // and the ID
	namePrefix    = 'k' // and the key
	probeKey      = "p"
	versionKey    = "v"
	// version is that of all this.
	version = "1"
)

// place is where an entry is; the zero place is nowhere.
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

// size is what an entry takes of a page.
func (e *Entry) size() int { return len(e.Key) + len(e.Reason) + len(e.Body) }

// encode returns all of an entry but its ID.
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

// decode reads an entry with at most maxBody bytes of its body; 0 is without a limit.
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
