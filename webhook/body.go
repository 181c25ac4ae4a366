package webhook

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

var (
	errCrowded   = errors.New("many large bodies are being read")
	errInflated  = errors.New("the body is too large once it is decompressed")
	errSlow      = errors.New("the body arrived too slowly")
	errNotGzip   = errors.New("the body is no gzip")
	errEncodings = errors.New("want no Content-Encoding, or gzip")
)

// bodies bounds the memory of the bodies that are being read. A newcomer gets its
// room, and the body that has been read for longest gives way: a good callback
// needs milliseconds.
type bodies struct {
	mu      sync.Mutex
	room    int       // bytes that are left
	readers list.List // of *body, those that are larger than smallBody, longest first
}

func newBodies(room int) *bodies { return &bodies{room: room} }

// body is one that is being read, and then until it is closed.
type body struct {
	of    *bodies
	data  []byte
	place *list.Element // among the readers, if it is large
	base  int           // bytes that it takes beside the data
	held  int           // of the room
	gone  bool          // it had to give way
	abort func()        // ends a Read that waits
}

// spare is the memory of bodies that were closed, to be used again: for a room_close,
// all the memory that reading it takes.
var spare = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// read reads the body of a request. The caller closes it, also after an error.
func (o *bodies) read(w http.ResponseWriter, r *http.Request) (*body, error) {
	control := http.NewResponseController(w)
	b := &body{of: o, data: (*spare.Get().(*[]byte))[:0], abort: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) }}

	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ",")))
	if encoding != "" && encoding != "identity" && encoding != "gzip" && encoding != "x-gzip" {
		return b, errEncodings
	}
	paced := &pace{Reader: http.MaxBytesReader(w, r.Body, MaxBody), body: b, control: control, began: time.Now()}
	if err := b.fill(paced, MaxBody, nil); err != nil {
		return b, err
	}
	// Its end came in time. How long the answer takes is another matter.
	b.whole()
	_ = control.SetReadDeadline(paced.began.Add(readTimeout))
	if encoding == "" || encoding == "identity" {
		return b, nil
	}
	return b, b.inflate()
}

// inflate puts what was compressed in the place of the data.
func (b *body) inflate() error {
	compressed := b.data
	unzip, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return errors.Join(errNotGzip, err)
	}
	b.data, b.base = make([]byte, 0, 1024), cap(compressed)
	switch err := b.fill(unzip, min(MaxBody, maxInflation*len(compressed)), errInflated); {
	case errors.Is(err, errInflated), errors.Is(err, errCrowded):
		return err
	case err != nil:
		return errors.Join(errNotGzip, err)
	}
	return nil
}

// fill appends to the data what r has, of which there may be so much. If there is
// more, it returns that error, unless r has its own.
func (b *body) fill(r io.Reader, limit int, tooMuch error) error {
	for {
		if len(b.data) > limit && tooMuch != nil {
			return tooMuch
		}
		if len(b.data) == cap(b.data) {
			if err := b.grow(2 * cap(b.data)); err != nil {
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

// grow gives the data more room, once the body has it.
func (b *body) grow(size int) error {
	if size > smallBody {
		if err := b.of.reserve(b, b.base+size); err != nil {
			return err
		}
	}
	b.data = append(make([]byte, 0, size), b.data...)
	return nil
}

// reserve gets a body so much room in all, from those that have been read for
// longer if need be.
func (o *bodies) reserve(b *body, size int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.gone {
		return errCrowded
	}
	if b.place == nil {
		b.place = o.readers.PushBack(b)
	}
	for o.room < size-b.held {
		longest := o.readers.Front().Value.(*body)
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

// leave takes a body out of the readers. The caller holds mu.
func (o *bodies) leave(b *body) {
	if b.place != nil {
		o.readers.Remove(b.place)
		o.room += b.held
		b.place, b.held = nil, 0
	}
}

// close gives the body's memory back. It may be called again, and does nothing then.
func (b *body) close() {
	b.of.mu.Lock()
	b.of.leave(b)
	b.of.mu.Unlock()
	if data := b.data; data != nil && cap(data) <= smallBody {
		spare.Put(&data)
	}
	b.data = nil
}

// whole notes that nothing more is read from the connection.
func (b *body) whole() {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.abort = func() {}
}

// hasToGo reports whether the body had to give way.
func (b *body) hasToGo() bool {
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
		if p.body.hasToGo() { // after the deadline that is set for that
			return 0, errCrowded
		}
	}
	n, err := p.Reader.Read(to)
	p.read += n
	if err != nil && err != io.EOF && p.read >= smallBody {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			err = errSlow
		}
		if p.body.hasToGo() {
			err = errCrowded
		}
	}
	return n, err
}
