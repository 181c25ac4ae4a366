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

// What a server that a callback names may cost.
const (
	// maxURLFile is the largest file: 48 hours, the longest recording, at 12 Mbit/s.
	maxURLFile = 256 << 30
	// maxURLSession is how much all files of a call may have together.
	maxURLSession = 1 << 40
	// minURLRate is how much has to come in rateWindow that is spent waiting for it:
	// 70 kB/s, at which an hour of sound and picture takes less than the hour.
	minURLRate = 4 << 20
)

// rateWindow is how long a server may take for minURLRate.
var rateWindow = time.Minute

var (
	errSlow = errors.New("the server is too slow")
	errMore = errors.New("the server sends more than it said")
)

// paced is the body of a URL that has to come fast enough. Time that our side takes
// doesn't count.
type paced struct {
	io.ReadCloser
	waited time.Duration
	bytes  int64 // in the time waited
	slow   bool
}

// Read implements [io.Reader].
func (p *paced) Read(b []byte) (int, error) {
	if p.slow {
		return 0, errSlow
	}
	// A read that hangs ends with the window.
	timer := time.AfterFunc(rateWindow-p.waited, func() { _ = p.ReadCloser.Close() })
	begun := time.Now()
	n, err := p.ReadCloser.Read(b)
	hung := !timer.Stop()
	p.waited, p.bytes = p.waited+time.Since(begun), p.bytes+int64(n)
	switch {
	case errors.Is(err, io.EOF):
		return n, err
	case p.waited >= rateWindow || hung:
		if p.bytes < minURLRate {
			p.slow = true
			return n, fmt.Errorf("%w: %d bytes came in %v, want %d", errSlow, p.bytes, p.waited.Round(time.Second), minURLRate)
		}
		p.waited, p.bytes = 0, 0
		if hung {
			return n, errors.Join(err, io.ErrUnexpectedEOF) // opened anew
		}
	}
	return n, err
}

// slots are for reading URLs, apart from those for objects: servers that dribble hold
// up neither those nor the other apps.
type slots struct {
	all *semaphore.Weighted
	app int64
	mu  sync.Mutex
	by  map[string]*semaphore.Weighted
}

// newSlots returns slots beside those for so many transfers: half as many again, and
// half of them for an app.
func newSlots(transfers int) *slots {
	all := int64(max(2, transfers/2))
	return &slots{all: semaphore.NewWeighted(all), app: all / 2, by: map[string]*semaphore.Weighted{}}
}

// acquire waits for a slot of the app that a session's folder is of.
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
