package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Limits of servers that callbacks name.
const (
	maxURLFile    = 256 << 30 // 48 hours, the longest recording, at 12 Mbit/s
	maxURLSession = 1 << 40   // all files of a call together
	minURLRate    = 4 << 20   // in each rateWindow of waiting: 70 kB/s, as fast as a recording plays
)

var rateWindow = time.Minute

var (
	errSlow = errors.New("the server is too slow")
	errMore = errors.New("the server sends more than it said")
)

// paced enforces a minimum rate on the body of a URL. Only time spent in Read counts.
type paced struct {
	io.ReadCloser
	waited time.Duration
	bytes  int64 // read during waited
	slow   bool
}

// Read implements [io.Reader].
func (p *paced) Read(b []byte) (int, error) {
	if p.slow {
		return 0, errSlow
	}
	// Closing the body ends a hanging read.
	timer := time.AfterFunc(rateWindow-p.waited, func() { _ = p.ReadCloser.Close() })
	begun := time.Now()
	n, err := p.ReadCloser.Read(b)
	hung := !timer.Stop()
	p.waited, p.bytes = p.waited+time.Since(begun), p.bytes+int64(n)
	switch {
	case errors.Is(err, io.EOF):
		return n, err
	case hung:
		p.waited = max(p.waited, rateWindow)
		fallthrough
	case p.waited >= rateWindow:
		if slow := p.tooSlow(); slow != nil {
			p.slow = true
			return n, slow
		}
		p.waited, p.bytes = 0, 0
		if hung {
			return n, errors.Join(err, io.ErrUnexpectedEOF) // reopens the body
		}
	}
	return n, err
}

// tooSlow returns an error if too few bytes arrived in a window of waiting.
func (p *paced) tooSlow() error {
	if p.waited < rateWindow || p.bytes >= minURLRate {
		return nil
	}
	return fmt.Errorf("%w: %d bytes came in %v, want %d", errSlow, p.bytes, p.waited.Round(time.Second), minURLRate)
}

// slots limits transfers from URLs separately, so that slow servers delay neither transfers of
// objects nor other apps.
type slots struct {
	all *semaphore.Weighted
	app int64
	mu  sync.Mutex
	by  map[string]*semaphore.Weighted
}

// newSlots returns half as many slots as there are transfers, half of them for an app.
func newSlots(transfers int) *slots {
	all := int64(max(2, transfers/2))
	return &slots{all: semaphore.NewWeighted(all), app: all / 2, by: map[string]*semaphore.Weighted{}}
}

// acquire waits for a slot of the app of a session's folder.
func (s *slots) acquire(ctx context.Context, folder string) (release func(), err error) {
	app, _, _ := strings.Cut(folder, "/")
	s.mu.Lock()
	own := s.by[app]
	if own == nil {
		own = semaphore.NewWeighted(s.app)
		s.by[app] = own
	}
	s.mu.Unlock()
	if err := own.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	if err := s.all.Acquire(ctx, 1); err != nil {
		own.Release(1)
		return nil, err
	}
	return func() { s.all.Release(1); own.Release(1) }, nil
}
