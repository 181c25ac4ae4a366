// Package probe bounds calls that may hang, such as a request to a peer that never answers,
// or a system call to a broken disk.
package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoAnswer means that a call did not return in time.
var ErrNoAnswer = errors.New("no answer")

// Probe makes a call and returns in time, even if the call ignores its context. Concurrent
// callers share one call. While a call hangs, no other is made, so it holds one goroutine.
type Probe[T any] struct {
	within time.Duration
	ask    func(context.Context) (T, error)

	mu   sync.Mutex
	call *call[T] // nil if none is in progress
}

type call[T any] struct {
	began time.Time
	done  chan struct{}
	value T // value and err are set when done is closed
	err   error
}

// New returns a Probe that calls ask and waits for it for at most within.
func New[T any](within time.Duration, ask func(context.Context) (T, error)) *Probe[T] {
	return &Probe[T]{within: within, ask: ask}
}

// Get returns the result of the call, or an error that wraps [ErrNoAnswer].
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
	// Other callers may share the call, so it outlives the ctx of the first.
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

// Do makes one call of a new [Probe].
func Do[T any](ctx context.Context, within time.Duration, ask func(context.Context) (T, error)) (T, error) {
	return New(within, ask).Get(ctx)
}

// Err converts a call that returns only an error.
func Err(ask func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, ask(ctx) }
}
