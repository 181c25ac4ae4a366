// Package outage logs an outage in few lines: one with its cause when it begins, one
// a minute with counts while it lasts, and one when it ends.
package outage

import (
	"log/slog"
	"sync"
	"time"
)

// sayAgain is how far apart the lines of an outage are that lasts: an operator who
// looks at the end of a log finds one, and a night of it is some hundred.
const sayAgain = time.Minute

// Outage knows whether one thing is out of order, since when and why. It is safe for
// concurrent use.
type Outage struct {
	log  *slog.Logger
	of   string
	then string

	mu       sync.Mutex
	since    time.Time // zero while there is none
	said     time.Time
	cause    error // of the last failure
	failures int64
	queued   int64
}

// New returns one of the named thing. What happens meanwhile is said by then, as in
// "callbacks are queued on disk".
func New(log *slog.Logger, of, then string) *Outage { return &Outage{log: log, of: of, then: then} }

// Fail notes that the thing failed. The first failure begins the outage.
func (o *Outage) Fail(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.cause = cause
	o.failures++
	if o.since.IsZero() {
		o.since, o.said = now, now
		o.log.Error("outage begins", "of", o.of, "error", cause, "meanwhile", o.then)
		return
	}
	o.sayAgain(now)
}

// Queue counts a callback that is queued during the outage, and reports whether
// there is one.
func (o *Outage) Queue() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return false
	}
	o.queued++
	o.sayAgain(time.Now())
	return true
}

func (o *Outage) sayAgain(now time.Time) {
	if now.Sub(o.said) < sayAgain {
		return
	}
	o.said = now
	o.log.Warn("outage lasts", append(o.counts(now), "error", o.cause)...)
}

func (o *Outage) counts(now time.Time) []any {
	attrs := []any{"of", o.of, "for", now.Sub(o.since).Round(time.Second), "failures", o.failures}
	if o.queued > 0 {
		attrs = append(attrs, "queued", o.queued)
	}
	return attrs
}

// End notes that the thing works.
func (o *Outage) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info("outage ends", o.counts(time.Now())...)
	o.since, o.cause, o.failures, o.queued = time.Time{}, nil, 0, 0
}

// Cause returns why the thing failed last, or nil while it works.
func (o *Outage) Cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}
