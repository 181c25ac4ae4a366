package inbox

import (
	"encoding/binary"
	"fmt"
	"time"
)

// An entry has two keys in the store. One holds all of it, ordered by its ID: in
// the queue, or aside. The other is its own key and tells where that is. Those of
// the queue are written in order, and so are hardly ever moved again; a file that
// holds new ones spans none of the older.
const (
	queuePrefix = 'e' // and the ID, 8 bytes, big-endian
	namePrefix  = 'k' // and the key
	probeKey    = "p"
	asidePrefix = 's' // and the ID
	versionKey  = "v"
	// version is that of all this.
	version = "1"
)

// place is where an entry is: its prefix and its ID.
type place struct {
	prefix byte
	id     int64
}

func (p place) key() []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), p.prefix), uint64(p.id))
}

// value is what the entry's own key tells.
func (p place) value() []byte { return p.key() }

func parsePlace(b []byte) (place, error) {
	if len(b) != 9 || b[0] != queuePrefix && b[0] != asidePrefix {
		return place{}, fmt.Errorf("read inbox: %x is no place of an entry", b)
	}
	return place{b[0], int64(binary.BigEndian.Uint64(b[1:]))}, nil
}

func nameOf(key string) []byte {
	return append(append(make([]byte, 0, 1+len(key)), namePrefix), key...)
}

// encode gives all of an entry but its ID.
func (e *Entry) encode() []byte {
	b := make([]byte, 0, 24+len(e.Key)+len(e.Reason)+len(e.Body))
	b = binary.AppendUvarint(b, uint64(e.QueuedAt.UnixMilli()))
	aside := uint64(0)
	if !e.SetAsideAt.IsZero() {
		aside = uint64(e.SetAsideAt.UnixMilli())
	}
	b = binary.AppendUvarint(b, aside)
	for _, s := range []string{e.Key, e.Reason} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, e.Body...)
}

func decode(id int64, b []byte) (Entry, error) {
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
	if aside := number(); aside != 0 {
		e.SetAsideAt = time.UnixMilli(int64(aside)).UTC()
	}
	e.Key, e.Reason = text(), text()
	if !whole {
		return Entry{}, fmt.Errorf("read inbox: entry %d is damaged", id)
	}
	e.Body = append([]byte(nil), b...)
	return e, nil
}
