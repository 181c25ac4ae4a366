package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/outage"
)

const (
	// logWaiting is the wait after which a start logs what it waits for. logAgain is the interval
	// of further lines.
	logWaiting, logAgain = 10 * time.Second, time.Minute
	// closeWithin bounds the closing of files and connections, beyond the timeouts of the
	// settings. Kubernetes kills the process ten seconds after those.
	closeWithin = 7 * time.Second
)

// patiently waits for open and logs a long wait. It returns when ctx ends, so that a hanging disk
// does not keep the process from stopping.
func patiently[T any](ctx context.Context, log *slog.Logger, what string, open func() (T, error)) (T, error) {
	type result struct {
		part T
		err  error
	}
	done := make(chan result, 1)
	began := time.Now()
	go func() {
		part, err := open()
		done <- result{part, err}
	}()
	say := time.NewTimer(logWaiting)
	defer say.Stop()
	for {
		select {
		case r := <-done:
			return r.part, r.err
		case <-say.C:
			log.Warn("start waits", "for", what, "since", began)
			say.Reset(logAgain)
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// closers closes what was opened, in reverse order.
type closers struct {
	mu      sync.Mutex
	all     []closer
	closing string // the name of what is being closed
}

type closer struct {
	name  string
	close func()
}

func (c *closers) add(name string, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, closer{name, f})
}

func (c *closers) close() {
	for {
		c.mu.Lock()
		if len(c.all) == 0 {
			c.mu.Unlock()
			return
		}
		last := c.all[len(c.all)-1]
		c.all, c.closing = c.all[:len(c.all)-1], last.name
		c.mu.Unlock()
		last.close()
	}
}

// stopLimit returns the maximum duration of a stop.
func stopLimit(c *config.Config, parts Parts) time.Duration {
	limit := c.StopTimeout + closeWithin
	switch {
	case parts.Webhook && parts.Worker: // the worker stops once the callbacks are answered
		limit += max(c.DrainTimeout, c.StopTimeout)
	case parts.Webhook:
		limit += c.DrainTimeout
	}
	return limit
}

// wait waits for the group, but at most limit after ctx has ended, so that a hanging disk does not
// keep the process. Acknowledged callbacks are on disk or in Temporal.
func (c *closers) wait(ctx context.Context, group *errgroup.Group, limit time.Duration, log *slog.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	what := c.closing
	if what == "" {
		what = "a part"
	}
	log.Error("stop gave up", "on", what, "after", limit)
	return fmt.Errorf("stop: %s has not ended within %v", what, limit)
}

// permanentError is an error for which a retry is useless.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanent(err error) error { return permanentError{err} }

// Pauses between retries double from the first to the last. Each varies by half, so that processes that
// lost the same store don't come back together.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
)

// retry calls try until it succeeds, fails with a permanent error or ctx ends, and logs the outage.
func retry(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	trouble := outage.New(log, what, "it is tried again")
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		err := try()
		if err == nil {
			trouble.End()
			return nil
		}
		if final := (permanentError{}); errors.As(err, &final) {
			return fmt.Errorf("%s: %w", what, final.error)
		}
		trouble.Fail(err)
		if ended := pause(ctx, wait/2+rand.N(wait)); ended != nil {
			return fmt.Errorf("%s: %w; the last try: %w", what, ended, err)
		}
	}
}

// pause waits for d, or returns the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
