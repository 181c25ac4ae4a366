package outage

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limit returns a handler for the log of another library. It passes each warning or error
// at most once a minute, with the number of repetitions in between: Temporal's SDK logs
// every failed poll of every poller. Lines about a single run pass without a limit.
func Limit(next slog.Handler) slog.Handler {
	return limited{next, &repeats{said: map[string]*repeat{}}, false}
}

type limited struct {
	slog.Handler
	repeats *repeats
	ofARun  bool // the logger has the attribute of a run
}

// repeats remembers messages. There are few, because they are constants of the library.
type repeats struct {
	mu   sync.Mutex
	said map[string]*repeat
}

type repeat struct {
	at    time.Time
	since int
}

// pass reports whether a message may pass. dropped is the number of messages that did not
// pass since the last one that did.
func (r *repeats) pass(message string) (dropped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	last := r.said[message]
	switch {
	case last == nil:
		r.said[message] = &repeat{at: now}
	case now.Sub(last.at) < logInterval:
		last.since++
		return 0, false
	default:
		dropped = last.since
		*last = repeat{at: now}
	}
	return dropped, true
}

// Handle implements [slog.Handler].
func (l limited) Handle(ctx context.Context, r slog.Record) error {
	ofARun := l.ofARun
	r.Attrs(func(a slog.Attr) bool {
		ofARun = ofARun || a.Key == runKey
		return !ofARun
	})
	if ofARun || r.Level < slog.LevelWarn {
		return l.Handler.Handle(ctx, r)
	}
	dropped, ok := l.repeats.pass(r.Message)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", dropped))
	}
	return l.Handler.Handle(ctx, r)
}

// runKey is the attribute of the SDK's log lines about a run.
const runKey = "WorkflowID"

// WithAttrs implements [slog.Handler].
func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		l.ofARun = l.ofARun || a.Key == runKey
	}
	l.Handler = l.Handler.WithAttrs(attrs)
	return l
}

// WithGroup implements [slog.Handler].
func (l limited) WithGroup(name string) slog.Handler {
	l.Handler = l.Handler.WithGroup(name)
	return l
}
