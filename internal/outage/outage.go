// Package outage logs an outage in few lines: one with the cause when it begins, one a
// minute with counts while it lasts, and one when it ends.
package outage

import (
	"log/slog"
	"sync"
	"time"
)

// logInterval is the time between two lines of a lasting outage. An operator who looks at
// the end of the log finds a line, and a night has a few hundred.
const logInterval = time.Minute

// Outage records whether a component is failing, since when and why. It is safe for
// concurrent use.
type Outage struct {
	log       *slog.Logger
	component string
	effect    string

	mu       sync.Mutex
	since    time.Time // zero without an outage
	logged   time.Time // when the last line was logged
	cause    error     // the last failure
	failures int64
	queued   int64
}

// New returns the Outage of a component. effect describes what happens during the outage,
// such as "callbacks are queued on disk".
func New(log *slog.Logger, component, effect string) *Outage {
	return &Outage{log: log, component: component, effect: effect}
}

// Fail records a failure. The first failure begins the outage.
func (o *Outage) Fail(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.cause = cause
	o.failures++
	if o.since.IsZero() {
		o.since, o.logged = now, now
		o.log.Error("outage begins", "component", o.component, "error", cause, "meanwhile", o.effect)
		return
	}
	o.logLasting(now)
}

// Queue counts a queued callback if there is an outage, and reports whether there is.
func (o *Outage) Queue() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return false
	}
	o.queued++
	o.logLasting(time.Now())
	return true
}

func (o *Outage) logLasting(now time.Time) {
	if now.Sub(o.logged) < logInterval {
		return
	}
	o.logged = now
	o.log.Warn("outage lasts", append(o.counts(now), "error", o.cause)...)
}

func (o *Outage) counts(now time.Time) []any {
	attrs := []any{"component", o.component, "duration", now.Sub(o.since).Round(time.Second), "failures", o.failures}
	if o.queued > 0 {
		attrs = append(attrs, "queued", o.queued)
	}
	return attrs
}

// End records a success. It ends the outage, if there is one.
func (o *Outage) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Info("outage ends", o.counts(time.Now())...)
	o.since, o.cause, o.failures, o.queued = time.Time{}, nil, 0, 0
}

// Cause returns the last failure of the outage, or nil without an outage.
func (o *Outage) Cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}
