// Package delivery passes each callback to its sink within a fixed time, or stores it in the
// inbox. A relay delivers the inbox to the sink later.
package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"golang.org/x/sync/semaphore"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/outage"
)

// A Sink takes callbacks: Temporal or the ledger.
type Sink[T any] interface {
	// Deliver starts to deliver an item and returns without waiting. It calls done exactly
	// once, with the outcome for metrics or an error, even if the sink hangs. The ctx
	// carries the trace of the callback and never ends. If overdue is set, the item has
	// waited for a minute or the disk failed, and the sink omits what is optional.
	Deliver(ctx context.Context, item T, overdue bool, done func(outcome string, err error))
	// Fault returns why the sink is known to take nothing at the moment, or nil. It does
	// not block.
	Fault() error
	// Judge classifies an error of Deliver.
	Judge(err error) Verdict
	// Key returns the item's key in the inbox, which stores one item per key.
	Key(item T) string
}

// Verdict classifies an error.
type Verdict int

// The verdicts.
const (
	Unavailable Verdict = iota // the sink failed; retry the item
	Later                      // the sink works; retry the item later
	Refused                    // the sink will never take the item
)

// Inbox stores items on disk that the sink did not take in time. See [inbox.Inbox].
type Inbox interface {
	Put(ctx context.Context, e inbox.Entry) (kept []byte, err error)
	Next(ctx context.Context, after int64, n int) ([]inbox.Entry, error)
	Remove(ctx context.Context, keys ...string) error
	DeadLetter(ctx context.Context, key, reason string) error
	Wake() <-chan struct{}
	Crowded() bool
}

const (
	// maxWait is how long Deliver waits for the sink before it uses the inbox. ZEGO gives up
	// after seconds; the disk takes a few ms.
	maxWait = 300 * time.Millisecond
	// busyWait replaces maxWait while the sink is slow or the relay is busy. It is not
	// measured.
	busyWait = 10 * time.Millisecond
	// diskWait is how long Deliver waits for the disk before it also asks the sink.
	diskWait = 500 * time.Millisecond
	// removeWait bounds the removal of delivered entries. One that stays is delivered again,
	// which has no effect.
	removeWait = 5 * time.Second
	// maxWaiting bounds the callers that wait for a permit rather than use the inbox. A
	// direct delivery costs less, but a burst must be answered in time.
	maxWaiting = 16
	// openDelay is the time between attempts while the circuit breaker is open.
	openDelay = time.Second
	// overdueAfter is the age at which an item is delivered as overdue.
	overdueAfter = time.Minute
)

// maxMemory bounds the items in flight, in bytes. It is room for thousands of usual callbacks
// or some of the largest. A hanging sink holds all of them. The simulation lowers it.
var maxMemory int64 = 16 << 20

// Options configure a [Delivery].
type Options[T any] struct {
	// Name is the name of the sink in logs.
	Name string
	// Sink takes items, and Inbox stores those that wait.
	Sink  Sink[T]
	Inbox Inbox
	// MinInFlight and MaxInFlight bound the limit of concurrent deliveries, which adapts to
	// their latency.
	MinInFlight, MaxInFlight uint
	// MaxFailures is the number of failures in a row that opens the circuit breaker.
	MaxFailures uint
	// Size, if set, returns an item's approximate size in memory, in bytes.
	Size func(T) int
	// Join makes concurrent items of the same key share a delivery.
	Join bool
	// Yield makes the relay leave most of the limit to new items while any arrive.
	Yield bool
	// Log is for operators.
	Log *slog.Logger
	// Observe, if set, is called after each delivery with the sink's outcome, "refused" or
	// "failed". relayed reports whether the item came from the inbox.
	Observe func(outcome string, relayed bool)
	// Contradicted, if set, is called when the inbox already has a different item of the same
	// key, which stays. If it returns an error, the new item is not safe.
	Contradicted func(ctx context.Context, kept, item T) error
}

// Delivery delivers to one sink. [Delivery.Relay] must run in a goroutine of its own.
type Delivery[T any] struct {
	Options[T]
	breaker circuitbreaker.CircuitBreaker[any]
	limiter adaptivelimiter.AdaptiveLimiter[any]
	memory  *semaphore.Weighted // bytes of the items in flight; acquired before a permit
	outage  *outage.Outage

	// slow reports whether the last delivery took longer than maxWait, or failed.
	slow atomic.Bool
	// relaying reports whether the inbox has more than a page to deliver.
	relaying atomic.Bool
	came     atomic.Int64 // Unix nanoseconds of the last item

	mu      sync.Mutex
	joining map[string]*call // calls in flight by key, if Join is set
	calls   sync.WaitGroup

	direct, relayed atomic.Int64  // calls in flight
	ended           chan struct{} // receives after a call has ended

	queued, logged atomic.Int64 // items queued since the last log line, and its Unix nanoseconds
}

// New returns a Delivery.
func New[T any](o Options[T]) *Delivery[T] {
	if o.Observe == nil {
		o.Observe = func(string, bool) {}
	}
	if o.Size == nil {
		o.Size = func(T) int { return 0 }
	}
	return &Delivery[T]{
		Options: o,
		breaker: circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(o.MaxFailures).
			WithSuccessThreshold(1). // one attempt at a time while half-open
			WithDelay(openDelay).WithJitterFactor(.2).Build(),
		limiter: adaptivelimiter.NewBuilder[any]().
			WithLimits(o.MinInFlight, o.MaxInFlight, min(2*o.MinInFlight, o.MaxInFlight)).
			// A shorter window would take an overloaded server's latency for normal.
			WithBaselineWindow(1000).
			// Higher quantiles measure the disk's pauses rather than the load.
			WithRecentQuantile(.5).
			WithLogger(o.Log).Build(),
		memory:  semaphore.NewWeighted(maxMemory),
		outage:  outage.New(o.Log, o.Name, "callbacks are queued on disk"),
		joining: map[string]*call{},
		ended:   make(chan struct{}, 1),
	}
}

// Fault returns why the sink takes nothing at the moment, or nil. It is not nil while the
// circuit breaker is open or half-open.
func (d *Delivery[T]) Fault() error {
	if d.breaker.IsClosed() {
		return d.Sink.Fault()
	}
	if cause := d.outage.Cause(); cause != nil {
		return cause
	}
	return errOpen
}

var errOpen = errors.New("the last deliveries failed")

// Load returns the limit of deliveries in flight and their number.
func (d *Delivery[T]) Load() (limit, inFlight int) { return d.limiter.Limit(), d.limiter.Inflight() }

// Wait waits for the deliveries in flight, which may outlast the answers to their callbacks.
// Do not close the inbox before it returns.
func (d *Delivery[T]) Wait() { d.calls.Wait() }

// Result describes where an item is safe.
type Result struct {
	// Outcome is the sink's outcome. It is empty for an item in the inbox.
	Outcome string
	// Joined reports whether another item of the same key was in flight.
	Joined bool
}

// Deliver returns once the sink or the inbox has taken the item. It returns an error if
// neither takes it before ctx ends.
func (d *Delivery[T]) Deliver(ctx context.Context, item T) (Result, error) {
	now := time.Now()
	d.came.Store(now.UnixNano())
	wait := maxWait
	if d.relaying.Load() || d.slow.Load() {
		wait = busyWait
	}
	until := now.Add(wait)
	c, joined := d.try(ctx, item, until, wait == maxWait)
	if c != nil {
		switch {
		case !c.wait(ctx, until):
			d.slow.Store(true)
		case c.err == nil:
			return Result{Outcome: c.outcome, Joined: joined}, nil
		default:
			c = nil
		}
	}
	return d.queue(ctx, item, c, joined)
}
