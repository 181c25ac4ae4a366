package service

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/config"
)

const (
	// sayWaiting is after how long a start says what it waits for, and saySoon how
	// often it says so again.
	sayWaiting, sayAgain = 10 * time.Second, time.Minute
	// closeWithin is how long a stop waits, after all that the settings give it, for
	// files and connections to close. Kubernetes kills ten seconds after those.
	closeWithin = 7 * time.Second
)

// patiently waits for what opens a part, says so while that takes long, and gives
// up when ctx ends: a disk that hangs keeps no process from stopping.
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
	say := time.NewTimer(sayWaiting)
	defer say.Stop()
	for {
		select {
		case r := <-done:
			return r.part, r.err
		case <-say.C:
			log.Warn("start waits", "for", what, "since", began)
			say.Reset(sayAgain)
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// closers close what was opened, the last first.
type closers struct {
	mu      sync.Mutex
	all     []closer
	closing string // what is being closed
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

// stopLimit is how long a stop takes at most.
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

// wait waits for the group, but after ctx ended no longer than limit: something that
// hangs, such as a disk, must not keep the process. Callbacks that were acknowledged
// are on the disk or in Temporal.
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
