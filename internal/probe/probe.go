// Package probe asks things that may hang: a peer that accepts connections and
// never answers, or a disk whose system calls never return.
package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoAnswer is in the error of a question that was not answered in time.
var ErrNoAnswer = errors.New("no answer")

// Probe asks one question and returns in time, whether or not the asked heeds its
// context. Concurrent callers share an answer, and a question that hangs is not
// asked again: it holds one goroutine, however often it is asked for.
type Probe[T any] struct {
	within time.Duration
	ask    func(context.Context) (T, error)

	mu   sync.Mutex
	call *call[T] // nil when none is under way
}

type call[T any] struct {
	began time.Time
	done  chan struct{}
	value T // value and err are set when done is closed
	err   error
}

// New returns a probe that waits for an answer of ask for at most within.
func New[T any](within time.Duration, ask func(context.Context) (T, error)) *Probe[T] {
	return &Probe[T]{within: within, ask: ask}
}

// Get asks, and returns the answer or an error that wraps [ErrNoAnswer].
func (p *Probe[T]) Get(ctx context.Context) (T, error) {
	c := p.start(ctx)
	timer := time.NewTimer(p.within)
	defer timer.Stop()
	var err error
	select {
	case <-c.done:
		return c.value, c.err
	case <-timer.C:
		err = fmt.Errorf("%w for %v", ErrNoAnswer, time.Since(c.began).Round(100*time.Millisecond))
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
	select {
	case <-c.done: // at the same moment
		return c.value, c.err
	default:
		var none T
		return none, err
	}
}

func (p *Probe[T]) start(ctx context.Context) *call[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.call != nil {
		return p.call
	}
	c := &call[T]{began: time.Now(), done: make(chan struct{})}
	p.call = c
	// Others may join: who asked first takes nothing back by leaving.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.within)
	go func() {
		defer cancel()
		c.value, c.err = p.ask(ctx)
		if c.err != nil && ctx.Err() != nil {
			c.err = fmt.Errorf("%w within %v: %w", ErrNoAnswer, p.within, c.err)
		}
		p.mu.Lock()
		p.call = nil
		p.mu.Unlock()
		close(c.done)
	}()
	return c
}

// Do asks once.
func Do[T any](ctx context.Context, within time.Duration, ask func(context.Context) (T, error)) (T, error) {
	return New(within, ask).Get(ctx)
}

// Err returns ask as a question without a value.
func Err(ask func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, ask(ctx) }
}
