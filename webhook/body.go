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

// bodies bounds the memory of large bodies, from the start of reading until the answer. If
// the memory is used up, a new body evicts the body that has been read for longest, because
// reading a genuine callback takes milliseconds.
type bodies struct {
	mu      sync.Mutex
	free    int       // bytes left
	readers list.List // of *body: bodies larger than smallBody being read, oldest first
}

func newBodies(memory int) *bodies { return &bodies{free: memory} }

// body is the body of one request, until it is closed.
type body struct {
	all      *bodies
	data     []byte
	complete bool          // read to its end
	place    *list.Element // in readers, or nil
	base     int           // bytes it takes in addition to data
	reserved int           // bytes taken from bodies.free
	evicted  bool          // another body got its memory
	abort    func()        // interrupts a blocked Read
}

// spare holds the memory of closed bodies. Reading a room_close needs no other memory.
var spare = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// read reads the body of a request. The caller must close it, even after an error.
func (o *bodies) read(w http.ResponseWriter, r *http.Request) (*body, error) {
	control := http.NewResponseController(w)
	b := &body{all: o, data: (*spare.Get().(*[]byte))[:0], abort: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) }}

	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ",")))
	if encoding != "" && encoding != "identity" && encoding != "gzip" && encoding != "x-gzip" {
		return b, refuse(RefusedEncoding, errors.New("found Content-Encoding "+strconv.Quote(clip(encoding))+", want none, or gzip"))
	}
	paced := &pacedReader{Reader: http.MaxBytesReader(w, r.Body, MaxBody), body: b, control: control, began: time.Now()}
	if err := b.fill(paced, MaxBody); err != nil {
		return b, refuse(RefusedUnread, err)
	}
	// The rest of the request has the usual timeout.
	b.finish()
	_ = control.SetReadDeadline(paced.began.Add(readTimeout))
	if encoding == "" || encoding == "identity" {
		return b, nil
	}
	return b, b.inflate()
}

// inflate decompresses the data.
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

// fill appends r to the data, up to limit bytes in all.
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

// grow enlarges the data's capacity to size, and reserves memory if that is large.
func (b *body) grow(size int) error {
	if size > smallBody {
		if err := b.all.reserve(b, b.base+size); err != nil {
			return err
		}
	}
	b.data = append(make([]byte, 0, size), b.data...)
	return nil
}

// reserve reserves size bytes in all for a body. If they are not free, it evicts bodies
// that have been read for longer.
func (o *bodies) reserve(b *body, size int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.evicted {
		return errCrowded
	}
	if b.place == nil && !b.complete {
		b.place = o.readers.PushBack(b)
	}
	for o.free < size-b.reserved {
		front := o.readers.Front()
		if front == nil {
			return errCrowded
		}
		oldest := front.Value.(*body)
		oldest.evicted = true
		o.release(oldest)
		if oldest == b {
			return errCrowded
		}
		oldest.abort()
	}
	o.free -= size - b.reserved
	b.reserved = size
	return nil
}

// release removes a body from the readers and frees its reservation. The caller must hold
// mu.
func (o *bodies) release(b *body) {
	if b.place != nil {
		o.readers.Remove(b.place)
	}
	o.free += b.reserved
	b.place, b.reserved = nil, 0
}

// close frees the body's reservation and data. Further calls do nothing.
func (b *body) close() {
	b.all.mu.Lock()
	b.all.release(b)
	b.all.mu.Unlock()
	b.freeData()
}

// freeData frees the body's data. The reservation stays, for the memory of the event
// parsed from the body.
func (b *body) freeData() {
	if data := b.data; data != nil && cap(data) <= smallBody {
		spare.Put(&data)
	}
	b.data = nil
}

// finish records that the body is read to its end. It can no longer be evicted.
func (b *body) finish() {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	b.complete = true
	if b.place != nil {
		b.all.readers.Remove(b.place)
		b.place = nil
	}
}

func (b *body) isEvicted() bool {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	return b.evicted
}

// pacedReader fails if a large body arrives more slowly than minRate.
type pacedReader struct {
	io.Reader
	body    *body
	control *http.ResponseController
	began   time.Time
	read    int
}

func (p *pacedReader) Read(to []byte) (int, error) {
	if p.read >= smallBody {
		due := paceAfter + time.Duration(p.read)*time.Second/minRate
		_ = p.control.SetReadDeadline(p.began.Add(min(due, readTimeout)))
		if p.body.isEvicted() { // checked after SetReadDeadline, which may undo abort
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
		if p.body.isEvicted() {
			err = errCrowded
		}
	}
	return n, err
}
