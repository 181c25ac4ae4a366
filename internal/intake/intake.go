// Package intake takes responsibility for verified callbacks: it starts a
// workflow for each session, once, or keeps the callback on the disk until
// Temporal takes it.
package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/internal/recent"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

const (
	// A sender waits for Temporal for that long, and up to half of it for its turn;
	// what takes longer goes into the inbox, while the start goes on.
	patience = 300 * time.Millisecond
	// While Temporal is busy with the relay or in trouble, starts take longer, and a
	// sender shouldn't see it: it waits for so many times as long as a start takes at
	// its best.
	patienceFactorBusy, leastPatienceBusy = 3, 8 * time.Millisecond
	// Temporal is in trouble when so many senders in a row have waited in vain, and
	// after a failure until so many starts in a row were quick, at most for so long:
	// what comes back is slow at first, and has much to do.
	inVain, calm, recovery = 2, 10, 30 * time.Second
	// mostWaiting is how many senders wait for their turn. A start takes less of the
	// disk than one by way of the inbox, and Temporal may share the disk; but in a
	// burst all but a few shall be answered at once.
	mostWaiting = 16
	// removeWithin bounds what nobody waits for but a stop, so that a disk that hangs
	// keeps no process. What stays in the inbox is found to be a duplicate later.
	removeWithin = 5 * time.Second
	// putWithin is how long a sender waits for the disk before Temporal is tried beside
	// it, if it wasn't: a sync takes some ms, and the webhook answers after 1.5 s.
	putWithin = 500 * time.Millisecond
	// startTimeout bounds a start. Nobody waits for it but the inbox.
	startTimeout = 5 * time.Second
	// remember is how many sessions that were acknowledged, at least, are known
	// without asking Temporal, which has a third of a start's work with a repeated
	// one: some 5 MB, and at 200 callbacks a second the eight minutes after each.
	remember = 100_000

	// After so many failures in a row Temporal is left alone, for so long between
	// two attempts.
	failures, rest = 5, time.Second

	// How many starts may be in flight; where between is found out all the time,
	// from how much longer they take than they did in the last so many windows of a
	// second or more. The server that was measured took about as many a second with
	// four as with 16, and not more with 64. A shorter memory would get used to a
	// server that is overloaded, and overload it more.
	leastInFlight, firstInFlight, mostInFlight = 4, 8, 200
	baselineWindows                            = 1000
)

// Starter starts workflows. A Temporal client is one.
type Starter interface {
	ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
}

// Inbox keeps on the disk what Temporal doesn't take at once. An [inbox.Inbox]
// is one.
type Inbox interface {
	Put(ctx context.Context, key string, body []byte) error
	Next(ctx context.Context, after int64, n int) ([]inbox.Entry, error)
	Remove(ctx context.Context, keys ...string) error
	Shelve(ctx context.Context, key, reason string) error
	Wake() <-chan struct{}
	Crowded() bool
}

// Options are what an [Intake] needs.
type Options struct {
	// Temporal starts the workflows.
	Temporal Starter
	// Describe is asked about the run of a session that was started before; unless it
	// is nil.
	Describe Describer
	// Data reads the memos of runs. Default: the SDK's.
	Data converter.DataConverter
	// Inbox takes what Temporal doesn't.
	Inbox Inbox
	// TaskQueue is where workers look for the workflows.
	TaskQueue string
	// Route returns the Workflow of a session. Default: [workflows.RoomClose].
	Route func(activities.Session) workflows.Workflow
	// Immediate, if set, reports whether a Workflow starts as soon as its room closes.
	// Others start after Settling.
	Immediate func(workflows.Workflow) bool
	// Settling is how long after a room_close ZEGO may still retry callbacks of the
	// session.
	Settling time.Duration
	// Weights are the apps' shares of the workers; 1 for those that it lacks.
	Weights map[uint32]float32
	// Eager lets a worker of the same client begin a run without a round trip.
	Eager bool
	// Log gets what operators should know.
	Log *slog.Logger
	// Contradicted, if set, is told of a room_close that contradicts the first of its
	// session.
	Contradicted func(activities.Session)
	// Observe, if set, is told the outcome of each start: "started", "duplicate",
	// "refused" or "failed"; and whether it came from the inbox. A duplicate whose run
	// has ended without closing out its session is also "ended".
	Observe func(outcome string, relayed bool)
}

// Intake hands callbacks to Temporal, and to the inbox
// where Temporal can't take them at once. Run what is in the inbox with
// [Intake.Relay].
type Intake struct {
	Options
	recent  *recent.Map[session, closing]
	breaker circuitbreaker.CircuitBreaker[any]
	outage  *outage.Outage // of Temporal, from when the breaker opens until it closes
	unset   *outage.Outage // of the namespace's search attributes
	limiter adaptivelimiter.AdaptiveLimiter[any]

	fastest  fastest
	came     atomic.Int64 // when the last new callback did, in Unix nanoseconds
	relaying atomic.Bool  // Temporal is busy with the relay
	trouble  trouble

	mu       sync.Mutex
	inFlight map[string]*attempt
	settling sync.WaitGroup
	// How many of those in flight came from a sender and how many from the relay,
	// and a sign when one of them ended.
	direct, relayed atomic.Int64
	ended           chan struct{}

	queued, told atomic.Int64 // since it was told, and when that was, in Unix nanoseconds

	looks chan struct{} // at the runs of duplicates
}

// session names a session without a pointer.
type session struct {
	app uint32
	id  uint64
}

// closing is what a room_close told, without a pointer.
type closing struct {
	room uint64 // a hash of its name
	time int64  // in Unix milliseconds
}

func closingOf(s activities.Session) closing {
	told := s.RoomCloseTime
	if !s.CloseTimeTold.IsZero() {
		told = s.CloseTimeTold
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.RoomID))
	return closing{h.Sum64(), told.UnixMilli()}
}

// remember keeps that a session was acknowledged, and compares what another callback
// of it told meanwhile.
func (i *Intake) remember(known session, s activities.Session) {
	if first, found := i.recent.Add(known, closingOf(s)); found {
		i.compare(first, s, false)
	}
}

// compare warns of a session that is closed twice, in another room or at another
// time: one of the two is another session, such as one whose number was rounded on
// its way, and has no run.
func (i *Intake) compare(first closing, s activities.Session, relayed bool) {
	second := closingOf(s)
	if first == second {
		return
	}
	i.Observe("contradicted", relayed)
	i.Log.Warn("room_close contradicts the first of its session", "workflow_id", workflows.WorkflowID(s), "room_id", s.RoomID, "room_close_time", s.RoomCloseTime,
		"other_room", first.room != second.room, "first_room_close_time", time.UnixMilli(first.time).UTC(), "action", "see that nothing rounds room_session_id")
	if i.Contradicted != nil {
		i.Contradicted(s)
	}
}

// New makes an intake.
func New(o Options) *Intake {
	if o.Observe == nil {
		o.Observe = func(string, bool) {}
	}
	if o.Route == nil {
		o.Route = func(activities.Session) workflows.Workflow { return workflows.RoomClose }
	}
	if o.Data == nil {
		o.Data = converter.GetDefaultDataConverter()
	}
	i := &Intake{Options: o, recent: recent.New[session, closing](remember), inFlight: map[string]*attempt{}, ended: make(chan struct{}, 1),
		looks: make(chan struct{}, maxLooks)}
	i.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(failures).
		WithSuccessThreshold(1). // and so one attempt at a time, while it is open
		WithDelay(rest).WithJitterFactor(.2).
		Build()
	i.outage = outage.New(o.Log, "Temporal", "callbacks are queued on disk")
	i.unset = outage.New(o.Log, "search attributes", "callbacks wait in the inbox for a minute, then runs start without them")
	i.limiter = adaptivelimiter.NewBuilder[any]().
		WithLimits(leastInFlight, mostInFlight, firstInFlight).
		WithBaselineWindow(baselineWindows).
		// The slowest tell of the disk's pauses rather than of how much there is to do.
		WithRecentQuantile(.5).
		WithLogger(o.Log).Build()
	return i
}

// RoomClose returns a receipt for a room_close. A callback counts as taken when Temporal
// has a workflow for the session, running or closed, or when the inbox has it on
// the disk.
func (i *Intake) RoomClose(ctx context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
	s := activities.SessionOf(c)
	id := workflows.WorkflowID(s)
	known := session{s.AppID, s.RoomSessionID}
	if first, found := i.recent.Get(known); found {
		i.compare(first, s, false)
		return webhook.Receipt{Status: webhook.Duplicate, WorkflowID: id}, nil
	}

	now := time.Now()
	i.came.Store(now.UnixNano())
	until := now.Add(i.patience())
	a, joined := i.attempt(ctx, id, s, until)
	if a != nil && !a.wait(ctx, time.Until(until)) {
		i.trouble.unanswered.Add(1)
	} else if a != nil && a.err == nil {
		i.remember(known, s)
		if joined {
			return webhook.Receipt{Status: webhook.Duplicate, WorkflowID: id}, nil
		}
		return webhook.Receipt{Status: a.status, WorkflowID: id}, nil
	}

	body, err := json.Marshal(s)
	if err != nil {
		return webhook.Receipt{}, fmt.Errorf("encode session: %w", err)
	}
	queued := func() (webhook.Receipt, error) {
		i.remember(known, s)
		i.tell()
		if a != nil {
			i.settling.Go(func() { i.settle(a, id) })
		}
		return webhook.Receipt{Status: webhook.Queued, WorkflowID: id}, nil
	}
	putting, cancel := context.WithTimeout(ctx, putWithin)
	diskErr := i.Inbox.Put(putting, id, body)
	cancel()
	if diskErr == nil {
		return queued()
	}
	// Where the disk fails there is only Temporal, for as long as the sender waits. A
	// disk that doesn't answer may only be slow, and is asked beside it.
	var disk, started chan error
	if ctx.Err() == nil && errors.Is(diskErr, context.DeadlineExceeded) {
		disk = make(chan error, 1)
		go func(done chan<- error) { done <- i.Inbox.Put(ctx, id, body) }(disk)
	}
	var late *attempt
	var startErr error
	started = make(chan error, 1)
	go func(done chan<- error) {
		var err error
		late, err = i.await(ctx, a, id, s)
		done <- err
	}(started)
	for disk != nil || started != nil {
		select {
		case err := <-disk:
			if diskErr = err; err == nil {
				return queued()
			}
			disk = nil
		case startErr = <-started:
			if startErr == nil {
				i.remember(known, s)
				return webhook.Receipt{Status: late.status, WorkflowID: id}, nil
			}
			started = nil
		}
	}
	return webhook.Receipt{}, errors.Join(diskErr, fmt.Errorf("start workflow %s: %w", id, startErr))
}

// await waits for the start a, or for one that it begins, until ctx ends.
func (i *Intake) await(ctx context.Context, a *attempt, id string, s activities.Session) (_ *attempt, err error) {
	if a == nil {
		if a, err = i.attemptWithin(ctx, id, s); err != nil {
			return nil, err
		}
	}
	if !a.wait(ctx, startTimeout) {
		return nil, context.DeadlineExceeded
	}
	return a, a.err
}

// patience is how long a sender waits for a start.
func (i *Intake) patience() time.Duration {
	if i.busy() {
		return i.patienceBusy()
	}
	return patience
}

func (i *Intake) patienceBusy() time.Duration {
	best := i.fastest.get()
	if best == 0 {
		return patience // nobody knows how long it takes
	}
	return min(max(patienceFactorBusy*best, leastPatienceBusy), patience)
}

// busy says whether Temporal is likely to be slower than it can be.
func (i *Intake) busy() bool { return i.relaying.Load() || i.trouble.is() }

// trouble knows whether Temporal is away, or was a moment ago.
type trouble struct {
	unanswered atomic.Int32 // senders in a row that waited in vain
	failed     atomic.Int64 // when a start failed last, in Unix nanoseconds
	quick      atomic.Int32 // starts in a row since then that were quick
}

func (t *trouble) is() bool {
	return t.unanswered.Load() >= inVain || t.quick.Load() < calm && time.Since(time.Unix(0, t.failed.Load())) < recovery
}

func (t *trouble) fail() {
	t.failed.Store(time.Now().UnixNano())
	t.quick.Store(0)
}

func (t *trouble) succeed(quick bool) {
	t.unanswered.Store(0)
	if quick {
		t.quick.Add(1)
	} else {
		t.quick.Store(0)
	}
}

// tell logs how many callbacks were queued, once a minute: one by one they are
// logged when Temporal takes them.
func (i *Intake) tell() {
	if i.outage.Queue() {
		return
	}
	i.queued.Add(1)
	now := time.Now().UnixNano()
	last := i.told.Load()
	if now-last > int64(time.Minute) && i.told.CompareAndSwap(last, now) {
		i.Log.Info("callbacks queued on disk", "count", i.queued.Swap(0))
	}
}

// settle takes a callback out of the inbox once the start that took too long has
// succeeded after all. If it hasn't, the relay finds the callback there.
func (i *Intake) settle(a *attempt, id string) {
	<-a.done
	if a.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	if err := i.Inbox.Remove(ctx, id); err != nil {
		i.Log.Warn("a callback stays in the inbox though Temporal has it; it is removed later", "workflow_id", id, "error", err)
	}
}

// Wait waits for the starts that outlast the answer to their callback: at most a
// few seconds. The inbox is not to be closed before.
func (i *Intake) Wait() { i.settling.Wait() }

// State reports whether Temporal takes callbacks, as far as is known, and how many
// starts may be in flight and are. A start that finds out whether Temporal is back
// doesn't make it so.
func (i *Intake) State() (takes bool, limit, inFlight int) {
	return i.breaker.IsClosed(), i.limiter.Limit(), i.limiter.Inflight()
}

// Fault returns why Temporal doesn't take callbacks, or nil while it does.
func (i *Intake) Fault() error { return i.outage.Cause() }
