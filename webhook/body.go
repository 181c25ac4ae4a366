package webhook

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	errCrowded = &refusal{RefusedCrowded, errors.New("many large bodies are being read")}
	errSlow    = errors.New("the body arrived too slowly")
)

// bodies bounds the memory of large bodies, from when they are read until they are
// answered. A newcomer gets its room, and the body that has been read for longest gives
// way: a good callback needs milliseconds.
type bodies struct {
	mu      sync.Mutex
	room    int       // bytes left
	readers list.List // of *body, those larger than smallBody that aren't whole, longest first
}

func newBodies(room int) *bodies { return &bodies{room: room} }

// body is one that is being read, and then until it is closed.
type body struct {
	of    *bodies
	data  []byte
	whole bool          // it is read
	place *list.Element // among the readers, if it is one
	base  int           // bytes it takes beside the data
	held  int           // bytes of the room
	gone  bool          // it gave way
	abort func()        // ends a Read that waits
}

// spare is the memory of closed bodies: for a room_close, all that reading it takes.
var spare = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// read reads the body of a request. The caller closes it, also after an error.
func (o *bodies) read(w http.ResponseWriter, r *http.Request) (*body, error) {
	control := http.NewResponseController(w)
	b := &body{of: o, data: (*spare.Get().(*[]byte))[:0], abort: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) }}

	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ",")))
	if encoding != "" && encoding != "identity" && encoding != "gzip" && encoding != "x-gzip" {
		return b, refuse(RefusedEncoding, errors.New("found Content-Encoding "+strconv.Quote(clip(encoding))+", want none, or gzip"))
	}
	paced := &pace{Reader: http.MaxBytesReader(w, r.Body, MaxBody), body: b, control: control, began: time.Now()}
	if err := b.fill(paced, MaxBody); err != nil {
		return b, refuse(RefusedUnread, err)
	}
	// The pace is no matter of the answer.
	b.finish()
	_ = control.SetReadDeadline(paced.began.Add(readTimeout))
	if encoding == "" || encoding == "identity" {
		return b, nil
	}
	return b, b.inflate()
}

// inflate replaces the data by what it is the compression of.
func (b *body) inflate() error {
	compressed := b.data
	unzip, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return refuse(RefusedMalformed, fmt.Errorf("read the body as gzip: %w", err))
	}
	b.data, b.base = make([]byte, 0, 1024), cap(compressed)
	if err := b.fill(unzip, min(MaxBody, maxInflation*len(compressed))); err != nil {
		return refuse(RefusedMalformed, fmt.Errorf("read the body as gzip: %w", err))
	}
	return nil
}

// fill appends r to the data, which may have up to limit bytes then.
func (b *body) fill(r io.Reader, limit int) error {
	for {
		if len(b.data) > limit {
			return &refusal{RefusedTooLarge, fmt.Errorf("the body has more than %d bytes", limit)}
		}
		if len(b.data) == cap(b.data) {
			if err := b.grow(min(2*cap(b.data), limit+bytes.MinRead)); err != nil {
				return err
			}
		}
		n, err := r.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grow enlarges the data, once there is room.
func (b *body) grow(size int) error {
	if size > smallBody {
		if err := b.of.reserve(b, b.base+size); err != nil {
			return err
		}
	}
	b.data = append(make([]byte, 0, size), b.data...)
	return nil
}

// reserve gets a body that much room in all, from those that have been read for longer
// if need be.
func (o *bodies) reserve(b *body, size int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.gone {
		return errCrowded
	}
	if b.place == nil && !b.whole {
		b.place = o.readers.PushBack(b)
	}
	for o.room < size-b.held {
		front := o.readers.Front()
		if front == nil {
			return errCrowded
		}
		longest := front.Value.(*body)
		longest.gone = true
		o.leave(longest)
		if longest == b {
			return errCrowded
		}
		longest.abort()
	}
	o.room -= size - b.held
	b.held = size
	return nil
}

// leave removes a body from the readers and frees its room. The caller holds mu.
func (o *bodies) leave(b *body) {
	if b.place != nil {
		o.readers.Remove(b.place)
	}
	o.room += b.held
	b.place, b.held = nil, 0
}

// close frees the body's room and data. Further calls do nothing.
func (b *body) close() {
	b.of.mu.Lock()
	b.of.leave(b)
	b.of.mu.Unlock()
	b.free()
}

// free frees the body's data. Its room is what the event made of it takes now.
func (b *body) free() {
	if data := b.data; data != nil && cap(data) <= smallBody {
		spare.Put(&data)
	}
	b.data = nil
}

// finish notes that the body is read to its end, and so doesn't give way.
func (b *body) finish() {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.whole = true
	if b.place != nil {
		b.of.readers.Remove(b.place)
		b.place = nil
	}
}

// gaveWay reports whether the body gave way to another.
func (b *body) gaveWay() bool {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	return b.gone
}

// pace expects a large body to arrive at minRate.
type pace struct {
	io.Reader
	body    *body
	control *http.ResponseController
	began   time.Time
	read    int
}

func (p *pace) Read(to []byte) (int, error) {
	if p.read >= smallBody {
		due := paceAfter + time.Duration(p.read)*time.Second/minRate
		_ = p.control.SetReadDeadline(p.began.Add(min(due, readTimeout)))
		if p.body.gaveWay() { // after the deadline that is set for that
			return 0, errCrowded
		}
	}
	n, err := p.Reader.Read(to)
	p.read += n
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		err = &refusal{RefusedTooLarge, err}
	} else if err != nil && err != io.EOF && p.read >= smallBody {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			err = errSlow
		}
		if p.body.gaveWay() {
			err = errCrowded
		}
	}
	return n, err
}
