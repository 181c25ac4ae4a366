// Package delivery passes each callback to its sink within a fixed time, or stores it in the
// inbox. A relay delivers the inbox to the sink later.
package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// maxMemory bounds the items in flight, in bytes. It is room for thousands of usual
	// callbacks or some of the largest. A hanging sink holds all of them.
	maxMemory = 16 << 20
	// openDelay is the time between attempts while the circuit breaker is open.
	openDelay = time.Second
	// overdueAfter is the age at which an item is delivered as overdue.
	overdueAfter = time.Minute
)

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

// call is a delivery in flight, or an ended one.
type call struct {
	done    chan struct{}
	relayed bool
	permit  adaptivelimiter.Permit
	memory  int64  // of the item
	key     string // set if the call can be joined
	began   time.Time
	ended   func() // if not nil, called at the end
	// outcome and err are set when done is closed.
	outcome string
	err     error
	queued  string // key of the item if it is in the inbox; guarded by Delivery.mu
}

// wait waits until the given time and reports whether the call has ended.
func (c *call) wait(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-c.done: // at the same time
		return true
	default:
		return false
	}
}

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
	return d.queue(ctx, item, c)
}

// try begins or joins a delivery. It returns nil if the sink is unavailable or a limit is
// reached.
func (d *Delivery[T]) try(ctx context.Context, item T, until time.Time, mayWait bool) (c *call, joined bool) {
	key := ""
	if d.Join {
		key = d.Sink.Key(item)
		d.mu.Lock()
		c = d.joining[key]
		d.mu.Unlock()
		if c != nil {
			return c, true
		}
	}
	// In a burst, answer as many callbacks as possible first: ZEGO drops the others.
	if d.Inbox.Crowded() && d.Yield || d.Sink.Fault() != nil {
		return nil, false
	}
	memory := d.size(item)
	if !d.memory.TryAcquire(memory) {
		return nil, false
	}
	permit, ok := d.limiter.TryAcquirePermit()
	if !ok && mayWait && d.limiter.Queued() < maxWaiting {
		var err error
		permit, err = d.limiter.AcquirePermitWithMaxWait(ctx, time.Until(until)/2)
		ok = err == nil
	}
	if !ok {
		d.memory.Release(memory)
		return nil, false
	}
	return d.begin(ctx, item, &call{key: key, permit: permit, memory: memory}, false, false)
}

// size returns the bytes of an item that count towards maxMemory.
func (d *Delivery[T]) size(item T) int64 { return min(int64(d.Size(item)), maxMemory) }

// acquire waits for the memory and the permit of a call.
func (d *Delivery[T]) acquire(ctx context.Context, item T, c *call) (err error) {
	c.memory = d.size(item)
	if err := d.memory.Acquire(ctx, c.memory); err != nil {
		return err
	}
	if c.permit, err = d.limiter.AcquirePermit(ctx); err != nil {
		d.memory.Release(c.memory)
	}
	return err
}

// drop releases the memory and the permit of a call that does not begin.
func (d *Delivery[T]) drop(c *call) {
	c.permit.Drop()
	d.memory.Release(c.memory)
}

// begin starts a delivery, or joins one of the same key. It returns nil if the circuit
// breaker is open and forced is not set.
func (d *Delivery[T]) begin(ctx context.Context, item T, c *call, forced, overdue bool) (_ *call, joined bool) {
	d.mu.Lock()
	if other := d.joining[c.key]; other != nil {
		d.mu.Unlock()
		d.drop(c)
		return other, true
	}
	// Ask the breaker last, because it expects the result of each permit.
	if !d.breaker.TryAcquirePermit() && !forced {
		d.mu.Unlock()
		d.drop(c)
		return nil, false
	}
	c.done, c.began = make(chan struct{}), time.Now()
	if c.key != "" {
		d.joining[c.key] = c
	}
	d.mu.Unlock()
	d.calls.Add(1)
	d.inFlight(c).Add(1)
	d.Sink.Deliver(context.WithoutCancel(ctx), item, overdue, func(outcome string, err error) { d.finish(c, outcome, err) })
	return c, false
}

func (d *Delivery[T]) inFlight(c *call) *atomic.Int64 {
	if c.relayed {
		return &d.relayed
	}
	return &d.direct
}

func (d *Delivery[T]) finish(c *call, outcome string, err error) {
	defer d.calls.Done()
	defer d.memory.Release(c.memory)
	switch {
	case err == nil || d.Sink.Judge(err) != Unavailable:
		c.permit.Record()
		if d.breaker.IsClosed() {
			d.breaker.RecordSuccess()
		} else {
			d.breaker.Close()
		}
		d.slow.Store(time.Since(c.began) > maxWait)
		d.outage.End()
		if err != nil {
			outcome = "refused"
		}
	default:
		c.permit.Drop() // the latency of a failure says nothing about the load
		d.breaker.RecordFailure()
		if !d.breaker.IsClosed() {
			d.outage.Fail(err)
		}
		d.slow.Store(true)
		outcome = "failed"
	}
	d.Observe(outcome, c.relayed)
	d.mu.Lock()
	delete(d.joining, c.key)
	c.outcome, c.err = outcome, err
	queued := c.queued
	close(c.done)
	d.mu.Unlock()
	d.inFlight(c).Add(-1)
	select {
	case d.ended <- struct{}{}:
	default: // the relay checks anyway
	}
	if c.ended != nil {
		c.ended()
	}
	if queued != "" && err == nil {
		d.calls.Go(func() { d.remove(queued) })
	}
}

// queue stores an item in the inbox. If the disk fails, it waits for the sink until ctx ends.
// If the disk hangs, it waits for whichever of the two takes the item first.
func (d *Delivery[T]) queue(ctx context.Context, item T, c *call) (Result, error) {
	body, err := json.Marshal(item)
	if err != nil {
		return Result{}, fmt.Errorf("encode callback: %w", err)
	}
	entry := inbox.Entry{Key: d.Sink.Key(item), Body: body, Trace: traceOf(ctx)}
	type put struct {
		kept []byte
		err  error
	}
	puts := make(chan put, 1)
	stored := func(kept []byte) (Result, error) {
		d.logQueued()
		return Result{}, d.compare(ctx, kept, body, item)
	}
	go func() {
		kept, err := d.Inbox.Put(ctx, entry)
		puts <- put{kept, err}
	}()
	hangs := time.NewTimer(diskWait)
	defer hangs.Stop()
	var diskErr, sinkErr error
	var asked, delivered chan error // the sink's result
	ask := func() {
		if asked != nil {
			return
		}
		asked = make(chan error, 1)
		delivered = asked
		go func() {
			var err error
			c, err = d.insist(ctx, item, c)
			asked <- err
		}()
	}
	for puts != nil || delivered != nil {
		select {
		case p := <-puts:
			if p.err == nil {
				if asked == nil { // otherwise the goroutine owns c
					d.keptAs(entry.Key, c)
				}
				return stored(p.kept)
			}
			puts, diskErr = nil, p.err
			ask()
		case <-hangs.C:
			ask()
		case err := <-delivered:
			if err == nil {
				return Result{Outcome: c.outcome}, nil
			}
			delivered, sinkErr = nil, err
		case <-ctx.Done():
			if puts != nil {
				p := <-puts // Put returns when ctx ends
				if p.err == nil {
					return stored(p.kept)
				}
				diskErr = p.err
			}
			if sinkErr == nil {
				sinkErr = fmt.Errorf("%s: %w", d.Name, context.Cause(ctx))
			}
			return Result{}, errors.Join(diskErr, sinkErr)
		}
	}
	return Result{}, errors.Join(diskErr, sinkErr)
}

// insist waits for c, or for a new call if c is nil, until ctx ends.
func (d *Delivery[T]) insist(ctx context.Context, item T, c *call) (*call, error) {
	if c == nil {
		c = &call{}
		if err := d.acquire(ctx, item, c); err != nil {
			return nil, fmt.Errorf("%s: limit of deliveries reached: %w", d.Name, err)
		}
		if d.Join {
			c.key = d.Sink.Key(item)
		}
		c, _ = d.begin(ctx, item, c, true, true)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return c, fmt.Errorf("%s: %w", d.Name, context.Cause(ctx))
	}
	if c.err != nil {
		return c, fmt.Errorf("%s: %w", d.Name, c.err)
	}
	return c, nil
}

// keptAs removes an item from the inbox if its call succeeds after all.
func (d *Delivery[T]) keptAs(key string, c *call) {
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-c.done:
		if c.err == nil {
			d.calls.Go(func() { d.remove(key) })
		}
	default:
		c.queued = key
	}
}

func (d *Delivery[T]) remove(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), removeWait)
	defer cancel()
	if err := d.Inbox.Remove(ctx, key); err != nil {
		d.Log.Warn("delivered callback not removed from inbox, tried again later", "key", key, "error", err)
	}
}

// compare calls Contradicted if the inbox has a different item of the same key.
func (d *Delivery[T]) compare(ctx context.Context, kept, body []byte, item T) error {
	if len(kept) == 0 || d.Contradicted == nil || string(kept) == string(body) {
		return nil
	}
	var first T
	if json.Unmarshal(kept, &first) != nil {
		return nil // the relay turns it into a dead letter
	}
	return d.Contradicted(ctx, first, item)
}

// logQueued logs the number of queued callbacks, once a minute.
func (d *Delivery[T]) logQueued() {
	if d.outage.Queue() {
		return
	}
	d.queued.Add(1)
	now, last := time.Now().UnixNano(), d.logged.Load()
	if now-last > int64(time.Minute) && d.logged.CompareAndSwap(last, now) {
		d.Log.Info("callbacks queued on disk", "to", d.Name, "count", d.queued.Swap(0))
	}
}
