// Package delivery takes responsibility for callbacks. It passes each to its sink within
// a fixed time, or else keeps it in the inbox, from which a relay passes it on later.
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

// A Sink is where callbacks go: Temporal or the ledger.
type Sink[T any] interface {
	// Deliver begins to deliver an item and returns without waiting. It calls done once,
	// with the outcome for metrics or an error, however long the sink hangs. The ctx
	// carries the trace of the callback and never ends. If overdue, the item has waited
	// long or can't be kept: the sink does without what is optional.
	Deliver(ctx context.Context, item T, overdue bool, done func(outcome string, err error))
	// Fault returns why the sink takes nothing at the moment, as far as that is known
	// without asking, or nil.
	Fault() error
	// Judge returns what an error of Deliver means.
	Judge(err error) Verdict
	// Key names an item in the inbox, which keeps one of each key.
	Key(item T) string
}

// Verdict is what an error means for the item and its sink.
type Verdict int

// The verdicts.
const (
	Unavailable Verdict = iota // the sink failed; the item is tried again
	Later                      // the sink works, and the item has to wait
	Refused                    // the sink will refuse the item forever
)

// Inbox keeps on disk what the sink doesn't take at once. An [inbox.Inbox] is one.
type Inbox interface {
	Put(ctx context.Context, e inbox.Entry) (kept []byte, err error)
	Next(ctx context.Context, after int64, n int) ([]inbox.Entry, error)
	Remove(ctx context.Context, keys ...string) error
	DeadLetter(ctx context.Context, key, reason string) error
	Wake() <-chan struct{}
	Crowded() bool
}

const (
	// maxWait is how long a sender waits for the sink. ZEGO and the webhook give up after
	// seconds; the disk takes a callback in some ms.
	maxWait = 300 * time.Millisecond
	// busyWait is that time while the sink is slow or has the inbox to empty. No
	// measurement stands behind it yet.
	busyWait = 10 * time.Millisecond
	// diskWait is how long a sender waits for the disk alone. A sync takes some ms.
	diskWait = 500 * time.Millisecond
	// removeWait bounds what only a stop waits for. What stays in the inbox is delivered
	// again, which changes nothing.
	removeWait = 5 * time.Second
	// maxWaiting is how many senders wait for their turn rather than go to the disk. A
	// start costs less than one by way of the inbox, but a burst has to be answered.
	maxWaiting = 16
	// maxMemory bounds the items in flight in bytes: thousands of usual callbacks, and some
	// of the largest. A sink that hangs holds them all.
	maxMemory = 16 << 20
	// openDelay is how far apart the attempts are while the circuit breaker is open.
	openDelay = time.Second
	// overdueAfter is how long an item waits in the inbox for what is optional.
	overdueAfter = time.Minute
)

// Options are what a [Delivery] needs.
type Options[T any] struct {
	// Name of the sink in logs.
	Name string
	// Sink is where items go, and Inbox where they wait.
	Sink  Sink[T]
	Inbox Inbox
	// MinInFlight and MaxInFlight bound the deliveries at once. In between the limit
	// follows from how long deliveries take.
	MinInFlight, MaxInFlight uint
	// MaxFailures is how many failures in a row open the circuit breaker.
	MaxFailures uint
	// Size, if set, returns about how many bytes of memory an item takes.
	Size func(T) int
	// Join has callbacks of the same key share a delivery.
	Join bool
	// Yield has the relay leave most of the sink to senders while there are any.
	Yield bool
	// Log gets what operators need to know.
	Log *slog.Logger
	// Observe, if set, counts each delivery: by the sink's outcome, or "refused" or
	// "failed"; relayed if it came from the inbox.
	Observe func(outcome string, relayed bool)
	// Contradicted, if set, is called with an item that found another of its key in the
	// inbox, which stays there. After an error the item isn't safe.
	Contradicted func(ctx context.Context, kept, item T) error
}

// Delivery delivers to one sink. [Delivery.Relay] has to run beside it.
type Delivery[T any] struct {
	Options[T]
	breaker circuitbreaker.CircuitBreaker[any]
	limiter adaptivelimiter.AdaptiveLimiter[any]
	memory  *semaphore.Weighted // bytes of the items in flight; taken ahead of a permit
	outage  *outage.Outage

	// slow reports that the last delivery outlasted a sender's wait, or failed.
	slow atomic.Bool
	// relaying reports that the relay has more than a page to deliver.
	relaying atomic.Bool
	came     atomic.Int64 // when the last item came, in Unix nanoseconds

	mu      sync.Mutex
	joining map[string]*call // in flight, if they join
	calls   sync.WaitGroup

	direct, relayed atomic.Int64  // in flight
	ended           chan struct{} // receives after one has ended

	queued, logged atomic.Int64 // since it was logged, and when, in Unix nanoseconds
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
			WithSuccessThreshold(1). // and so one attempt at a time, while it is half open
			WithDelay(openDelay).WithJitterFactor(.2).Build(),
		limiter: adaptivelimiter.NewBuilder[any]().
			WithLimits(o.MinInFlight, o.MaxInFlight, min(2*o.MinInFlight, o.MaxInFlight)).
			// A shorter memory would get used to a server that is overloaded.
			WithBaselineWindow(1000).
			// The slowest show the disk's pauses rather than the load.
			WithRecentQuantile(.5).
			WithLogger(o.Log).Build(),
		memory:  semaphore.NewWeighted(maxMemory),
		outage:  outage.New(o.Log, o.Name, "callbacks are queued on disk"),
		joining: map[string]*call{},
		ended:   make(chan struct{}, 1),
	}
}

// Fault returns why the sink takes nothing at the moment, or nil. A trial while the
// circuit breaker is open doesn't change it.
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

// Load returns how many deliveries may be in flight, and how many are.
func (d *Delivery[T]) Load() (limit, inFlight int) { return d.limiter.Limit(), d.limiter.Inflight() }

// Wait waits for deliveries that outlast the answers to their callbacks. The inbox must
// not be closed before.
func (d *Delivery[T]) Wait() { d.calls.Wait() }

// call is a delivery that is in flight, or was.
type call struct {
	done    chan struct{}
	relayed bool
	permit  adaptivelimiter.Permit
	memory  int64  // of the item
	key     string // of a call that can be joined
	began   time.Time
	ended   func() // unless nil, called at the end
	// outcome and err are set when done is closed.
	outcome string
	err     error
	queued  string // key of the item in the inbox, under the lock of the Delivery
}

// wait reports whether the call has ended by then.
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
	case <-c.done: // at the same moment
		return true
	default:
		return false
	}
}

// Result is what became of an item that is safe.
type Result struct {
	// Outcome is the sink's, or empty for an item that is queued.
	Outcome string
	// Joined reports that another item of the same key was in flight.
	Joined bool
}

// Deliver returns once the sink or the inbox has the item. It returns an error if neither
// takes it before ctx ends.
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

// try begins a delivery unless there is enough to do or the sink is away, or joins one.
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
	// In a burst it is best to get everything in: what isn't taken now may be lost.
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

// size returns the memory of an item.
func (d *Delivery[T]) size(item T) int64 { return min(int64(d.Size(item)), maxMemory) }

// acquire waits for the memory of a call and its permit.
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

// drop gives back what a call acquired that doesn't begin.
func (d *Delivery[T]) drop(c *call) {
	c.permit.Drop()
	d.memory.Release(c.memory)
}

// begin delivers with a permit, or joins a delivery of the same key. It returns none if
// the circuit breaker is open, unless forced.
func (d *Delivery[T]) begin(ctx context.Context, item T, c *call, forced, overdue bool) (_ *call, joined bool) {
	d.mu.Lock()
	if other := d.joining[c.key]; other != nil {
		d.mu.Unlock()
		d.drop(c)
		return other, true
	}
	// Last, as what the breaker permits has to be reported to it.
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
		c.permit.Drop() // how long a failure took says nothing of the load
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
	default: // the relay looks anyway
	}
	if c.ended != nil {
		c.ended()
	}
	if queued != "" && err == nil {
		d.calls.Go(func() { d.remove(queued) })
	}
}

// queue keeps an item in the inbox. A disk that fails leaves only the sink, for as long
// as the sender waits; one that hangs may only be slow, and both are asked.
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
	var asked, delivered chan error // of the sink, beside the disk
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
				if asked == nil { // else the goroutine has the call
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
				p := <-puts // Put heeds ctx
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

// insist waits for the call, or for one that it begins, until ctx ends.
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

// keptAs has an item leave the inbox when its call succeeds after all.
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
		d.Log.Warn("delivered callback stays in the inbox, removed later", "key", key, "error", err)
	}
}

// compare reports an item that differs from the one that the inbox has in its place.
func (d *Delivery[T]) compare(ctx context.Context, kept, body []byte, item T) error {
	if len(kept) == 0 || d.Contradicted == nil || string(kept) == string(body) {
		return nil
	}
	var first T
	if json.Unmarshal(kept, &first) != nil {
		return nil // the relay makes it a dead letter
	}
	return d.Contradicted(ctx, first, item)
}

// logQueued logs how many callbacks were queued, once a minute.
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
