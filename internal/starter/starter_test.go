package starter_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

var quiet = slog.New(slog.DiscardHandler)

// fake is a fake Temporal that answers with a function.
type fake struct {
	describer interface {
		DescribeWorkflowExecution(ctx context.Context, id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	}
	mu     sync.Mutex
	asked  []client.StartWorkflowOptions
	inputs []session.Session
	answer func(ctx context.Context, n int, o client.StartWorkflowOptions) error
}

func (s *fake) ExecuteWorkflow(ctx context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	s.mu.Lock()
	s.asked = append(s.asked, o)
	s.inputs = append(s.inputs, args[0].(session.Session))
	n, answer := len(s.asked), s.answer
	s.mu.Unlock()
	return nil, answer(ctx, n, o)
}

func (s *fake) DescribeWorkflowExecution(ctx context.Context, id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if s.describer == nil {
		return nil, serviceerror.NewNotFound("deleted a moment ago")
	}
	return s.describer.DescribeWorkflowExecution(ctx, id, run)
}

// set changes the answer.
func (s *fake) set(answer func(ctx context.Context, n int, o client.StartWorkflowOptions) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// ids returns the Workflow IDs of all start requests.
func (s *fake) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, o := range s.asked {
		ids = append(ids, o.ID)
	}
	return ids
}

func always(err error) func(context.Context, int, client.StartWorkflowOptions) error {
	return func(context.Context, int, client.StartWorkflowOptions) error { return err }
}

func sequence(errs ...error) func(context.Context, int, client.StartWorkflowOptions) error {
	return func(_ context.Context, n int, _ client.StartWorkflowOptions) error { return errs[n-1] }
}

// hang doesn't answer before ctx ends.
func hang(ctx context.Context, _ int, _ client.StartWorkflowOptions) error {
	<-ctx.Done()
	return ctx.Err()
}

func newInbox(t *testing.T) *inbox.Inbox {
	t.Helper()
	b, err := inbox.Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func receiver(t *testing.T, o starter.Options, b delivery.Inbox) *starter.Receiver {
	t.Helper()
	o.TaskQueue, o.Log = "q", cmp.Or(o.Log, quiet)
	r := starter.NewReceiver(starter.New(o), b, nil)
	t.Cleanup(r.Wait)
	return r
}

func newReceiver(t *testing.T, s *fake, b delivery.Inbox) *starter.Receiver {
	t.Helper()
	return receiver(t, starter.Options{Temporal: s, Eager: true}, b)
}

// relay runs the relay until the test ends.
func relay(t *testing.T, i *starter.Receiver) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); i.Delivery.Relay(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func callback(session uint64) *zego.RoomClose {
	return &zego.RoomClose{
		Common: zego.Common{AppID: 1, Signature: "proof"}, RoomID: "lobby", RoomSessionID: session, RoomCloseTime: time.UnixMilli(1).UTC(),
	}
}

func id(session uint64) string { return fmt.Sprintf("room-close-1-%d", session) }

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func put(t *testing.T, b *inbox.Inbox, key string, body []byte) {
	t.Helper()
	if _, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: body}); err != nil {
		t.Fatal(err)
	}
}

func stats(t *testing.T, b *inbox.Inbox) inbox.Stats {
	t.Helper()
	s, err := b.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	unavailable = serviceerror.NewUnavailable("away")
	exists      = serviceerror.NewWorkflowExecutionAlreadyStarted("exists", "", "run")
	missing     = serviceerror.NewInvalidArgument("Namespace default has no mapping defined for search attribute RoomId")
	invalid     = serviceerror.NewInvalidArgument("blob size exceeds limit")
)

func TestRoomClose(t *testing.T) {
	const session = 858012925204410417
	tests := []struct {
		name    string
		answers []error
		want    webhook.Status
		waiting int64
	}{
		{"started", []error{nil}, webhook.Started, 0},
		{"duplicate", []error{exists}, webhook.Duplicate, 0},
		{"away", []error{unavailable}, webhook.Queued, 1},
		{"deadline", []error{context.DeadlineExceeded}, webhook.Queued, 1},
		{"no namespace yet", []error{serviceerror.NewNamespaceNotFound("default")}, webhook.Queued, 1},
		{"over the limit", []error{serviceerror.NewResourceExhausted(enums.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "slow down")}, webhook.Queued, 1},
		{"no search attributes yet", []error{missing}, webhook.Queued, 1},
		{"invalid, and so again without search attributes", []error{invalid, nil}, webhook.Started, 0},
		{"and it is a duplicate", []error{invalid, exists}, webhook.Duplicate, 0},
		{"invalid all the same", []error{invalid, invalid}, webhook.Queued, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, b := &fake{answer: sequence(tt.answers...)}, newInbox(t)
			in := newReceiver(t, s, b)
			got, err := in.Receive(t.Context(), callback(session))
			if want := (webhook.Receipt{Status: tt.want, WorkflowID: id(session)}); got != want || err != nil {
				t.Fatalf("got %+v, %v, want %+v", got, err, want)
			}
			if len(s.asked) != len(tt.answers) {
				t.Fatalf("asked %d times", len(s.asked))
			}
			first := s.asked[0]
			if first.ID != id(session) || first.TaskQueue != "q" || first.WorkflowIDReusePolicy != enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE ||
				!first.WorkflowExecutionErrorWhenAlreadyStarted || !first.EnableEagerStart || first.TypedSearchAttributes.Size() == 0 {
				t.Errorf("started with %+v", first)
			}
			if len(s.asked) == 2 && (s.asked[1].ID != id(session) || s.asked[1].TypedSearchAttributes.Size() != 0) {
				t.Errorf("tried again with %+v", s.asked[1])
			}
			if input := s.inputs[0]; input.RoomSessionID != session || input.RoomID != "lobby" {
				t.Errorf("input %+v", input)
			}
			if n := stats(t, b).Waiting; n != tt.waiting {
				t.Errorf("%d wait, want %d", n, tt.waiting)
			}
			// A repetition reaches neither Temporal nor the disk.
			again, err := in.Receive(t.Context(), callback(session))
			if again.Status != webhook.Duplicate || err != nil || len(s.asked) != len(tt.answers) {
				t.Errorf("the second time got %+v, %v, and Temporal was asked %d times", again, err, len(s.asked))
			}
		})
	}
}

func TestNoSecretIsQueued(t *testing.T) {
	b := newInbox(t)
	in := newReceiver(t, &fake{answer: always(unavailable)}, b)
	if _, err := in.Receive(t.Context(), callback(1)); err != nil {
		t.Fatal(err)
	}
	e, err := b.Get(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(e.Body), "proof") {
		t.Errorf("the signature is on the disk: %s", e.Body)
	}
	var s session.Session
	if err := json.Unmarshal(e.Body, &s); err != nil || s != session.Of(callback(1)) {
		t.Errorf("%+v, %v", s, err)
	}
}

// While Temporal is fast enough, callers above the limit of starts in flight wait for a
// slot, and their callbacks aren't queued.
func TestCallersWaitForAFreeSlot(t *testing.T) {
	const inFlight, waiting = 8, 16
	release := make(chan struct{})
	s, b := &fake{answer: func(context.Context, int, client.StartWorkflowOptions) error { <-release; return nil }}, newInbox(t)
	in := newReceiver(t, s, b)
	var all sync.WaitGroup
	for n := range uint64(inFlight + waiting) {
		all.Go(func() {
			if got, err := in.Receive(t.Context(), callback(n)); got.Status != webhook.Started || err != nil {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	wait(t, "all places are taken", func() bool { return len(s.ids()) == inFlight })
	close(release)
	all.Wait()
}

// The relay leaves one slot for new callbacks, however full the inbox is.
func TestRelayLeavesASlotFree(t *testing.T) {
	release := make(chan struct{})
	s, b := &fake{answer: func(context.Context, int, client.StartWorkflowOptions) error { <-release; return nil }}, newInbox(t)
	in := newReceiver(t, s, b)
	for n := range uint64(30) {
		body, err := json.Marshal(session.Of(callback(n)))
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, id(n), body)
	}
	relay(t, in)
	wait(t, "the relay has all places but one", func() bool { return len(s.ids()) == 7 })
	if _, err := in.Receive(t.Context(), callback(99)); err != nil {
		t.Fatal(err)
	}
	if ids := s.ids(); len(ids) != 8 || ids[7] != id(99) {
		t.Errorf("asked for %v, want the new one as the 8th", ids)
	}
	close(release)
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
}

func TestSlowTemporalDelaysNoAnswer(t *testing.T) {
	release := make(chan struct{})
	s, b := &fake{answer: func(context.Context, int, client.StartWorkflowOptions) error { <-release; return nil }}, newInbox(t)
	in := newReceiver(t, s, b)
	// Send more callbacks than may be in flight. All are answered, although no start is.
	for n := range uint64(41) {
		if got, err := in.Receive(t.Context(), callback(n)); got.Status != webhook.Queued || err != nil {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if n := len(s.ids()); n > 8 {
		t.Errorf("%d starts are in flight", n)
	}
	close(release)
	in.Wait()
	inFlight := int64(len(s.ids()))
	if n := stats(t, b).Waiting; n != 41-inFlight {
		t.Errorf("%d wait, want those that were not in flight, %d", n, 41-inFlight)
	}
	relay(t, in)
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
	ids := s.ids()
	slices.Sort(ids)
	if len(ids) != 41 || len(slices.Compact(ids)) != 41 {
		t.Errorf("%d starts, want one a session: 41", len(s.ids()))
	}
}

func TestTemporalOutageLosesNothing(t *testing.T) {
	s, b := &fake{answer: always(unavailable)}, newInbox(t)
	in := newReceiver(t, s, b)
	relay(t, in)
	const sessions = 500
	for n := range uint64(sessions) {
		if got, err := in.Receive(t.Context(), callback(n)); got.Status != webhook.Queued || err != nil {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if n := len(s.ids()); n >= sessions/2 {
		t.Errorf("Temporal was asked %d times", n)
	}
	if in.Delivery.Fault() == nil {
		t.Error("no fault during the outage")
	}

	failed := len(s.ids())
	s.set(always(nil))
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
	if err := in.Delivery.Fault(); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	started := map[string]bool{}
	for _, id := range s.ids()[failed:] {
		started[id] = true
	}
	if len(started) != sessions {
		t.Errorf("%d sessions were started, want %d", len(started), sessions)
	}
}

func TestOldestCallbackStartsFirst(t *testing.T) {
	s, b := &fake{answer: always(unavailable)}, newInbox(t)
	in := newReceiver(t, s, b)
	const sessions = 450 // more than the relay reads at once
	for n := range uint64(sessions) {
		if _, err := in.Receive(t.Context(), callback(n)); err != nil {
			t.Fatal(err)
		}
	}
	asked := len(s.ids())
	s.set(func(context.Context, int, client.StartWorkflowOptions) error {
		time.Sleep(time.Millisecond)
		return nil
	}) // each start takes some time
	relay(t, in)
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
	for place, got := range s.ids()[asked:] {
		id, err := session.ParseWorkflowID(got)
		n := id.RoomSessionID
		// Starts that failed are retried a little later, and a few others overtake them.
		if err != nil || int(n) < place-100 || int(n) > place+100 {
			t.Errorf("%s is the %d. start", got, place)
		}
	}
}

func TestCallbackRefusedByTemporalIsADeadLetter(t *testing.T) {
	poison := func(_ context.Context, _ int, o client.StartWorkflowOptions) error {
		switch o.ID {
		case id(3):
			return invalid
		case id(4):
			return serviceerror.NewResourceExhausted(enums.RESOURCE_EXHAUSTED_CAUSE_UNSPECIFIED, "grpc: received message larger than max (5 vs. 4)")
		case id(5):
			return errors.New("unable to encode argument")
		}
		return nil
	}
	s, b := &fake{answer: always(unavailable)}, newInbox(t)
	in := newReceiver(t, s, b)
	for n := range uint64(50) {
		if _, err := in.Receive(t.Context(), callback(n)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, "room-close-1-x", []byte("no session"))
	s.set(poison)
	relay(t, in)
	wait(t, "the others are started", func() bool { return stats(t, b).Waiting == 0 })
	var dead []string
	for e, err := range b.DeadLetters(t.Context()) {
		if err != nil || e.Reason == "" {
			t.Fatalf("%+v, %v", e, err)
		}
		dead = append(dead, e.Key)
	}
	slices.Sort(dead)
	if want := []string{id(3), id(4), id(5), "room-close-1-x"}; !slices.Equal(dead, want) {
		t.Errorf("%v are dead letters, want %v", dead, want)
	}

	s.set(always(nil))
	if err := b.Retry(t.Context(), id(3)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the retried one is started", func() bool { return stats(t, b) == inbox.Stats{DeadLetters: 3} })
}

func TestCallbackThatFailsAloneDelaysNoOther(t *testing.T) {
	s, b := &fake{answer: always(unavailable)}, newInbox(t)
	in := newReceiver(t, s, b)
	for n := range uint64(100) {
		if _, err := in.Receive(t.Context(), callback(n)); err != nil {
			t.Fatal(err)
		}
	}
	s.set(func(_ context.Context, _ int, o client.StartWorkflowOptions) error {
		if o.ID == id(0) {
			return serviceerror.NewInternal("always")
		}
		return nil
	})
	relay(t, in)
	wait(t, "the others are started", func() bool { return stats(t, b).Waiting == 1 })
	if e, err := b.Get(t.Context(), id(0)); err != nil || !e.DeadAt.IsZero() {
		t.Errorf("%+v, %v, want it to wait", e, err)
	}
	s.set(always(nil))
	wait(t, "it is started too", func() bool { return stats(t, b).Waiting == 0 })
}

func TestDuplicateInTheInboxIsRemoved(t *testing.T) {
	s, b := &fake{answer: always(unavailable)}, newInbox(t)
	in := newReceiver(t, s, b)
	if _, err := in.Receive(t.Context(), callback(1)); err != nil {
		t.Fatal(err)
	}
	s.set(always(exists))
	relay(t, in)
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
}

// aged is an inbox of entries that are an hour older.
type aged struct{ *inbox.Inbox }

func (a aged) Next(ctx context.Context, after int64, n int) ([]inbox.Entry, error) {
	entries, err := a.Inbox.Next(ctx, after, n)
	for i := range entries {
		entries[i].QueuedAt = entries[i].QueuedAt.Add(-time.Hour)
	}
	return entries, err
}

func TestOldCallbackStartsWithoutSearchAttributes(t *testing.T) {
	s, b := &fake{answer: func(_ context.Context, _ int, o client.StartWorkflowOptions) error {
		if o.TypedSearchAttributes.Size() > 0 {
			return missing
		}
		return nil
	}}, aged{newInbox(t)}
	in := newReceiver(t, s, b)
	if got, err := in.Receive(t.Context(), callback(1)); got.Status != webhook.Queued || err != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	relay(t, in)
	wait(t, "it is started without", func() bool { return stats(t, b.Inbox).Waiting == 0 })
}

// fullDisk is an inbox that stores nothing.
type fullDisk struct{ *inbox.Inbox }

var errFull = errors.New("disk is full")

func (fullDisk) Put(context.Context, inbox.Entry) ([]byte, error) { return nil, errFull }

func TestFullDisk(t *testing.T) {
	t.Run("with Temporal down", func(t *testing.T) {
		in := newReceiver(t, &fake{answer: always(unavailable)}, fullDisk{newInbox(t)})
		for n := range uint64(20) { // until the breaker is open
			if got, err := in.Receive(t.Context(), callback(n)); !errors.Is(err, errFull) {
				t.Fatalf("got %+v, %v", got, err)
			}
		}
	})
	t.Run("with Temporal slow", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		in := newReceiver(t, &fake{answer: func(context.Context, int, client.StartWorkflowOptions) error {
			arrived <- struct{}{}
			<-release
			return nil
		}}, fullDisk{newInbox(t)})
		answers := make(chan error)
		go func() {
			_, err := in.Receive(t.Context(), callback(1))
			answers <- err
		}()
		<-arrived
		select {
		case err := <-answers:
			t.Errorf("answered %v before Temporal had it", err)
		case <-time.After(500 * time.Millisecond): // longer than Receive waits if the disk works
		}
		close(release)
		if err := <-answers; err != nil {
			t.Error(err)
		}
	})
	t.Run("with Temporal hanging", func(t *testing.T) {
		in := newReceiver(t, &fake{answer: hang}, fullDisk{newInbox(t)})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if got, err := in.Receive(ctx, callback(1)); !errors.Is(err, errFull) {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// hangingDisk is an inbox on a disk that hangs until up is closed. It is crowded, so that
// callbacks go to it before a start is tried.
type hangingDisk struct {
	*inbox.Inbox
	up <-chan struct{}
}

func (hangingDisk) Crowded() bool { return true }

func (d hangingDisk) Put(ctx context.Context, e inbox.Entry) ([]byte, error) {
	select {
	case <-d.up:
		return d.Inbox.Put(ctx, e)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A hanging disk keeps no callback from Temporal. A slow disk stores the callbacks that
// Temporal doesn't accept.
func TestHangingDisk(t *testing.T) {
	never := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("with Temporal there", func(t *testing.T) {
		in := newReceiver(t, &fake{answer: always(nil)}, hangingDisk{newInbox(t), never})
		if got, err := in.Receive(ctx, callback(1)); err != nil || got.Status != webhook.Started {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	for name, answer := range map[string]func(context.Context, int, client.StartWorkflowOptions) error{"away": always(unavailable), "hanging": hang} {
		t.Run("slow, with Temporal "+name, func(t *testing.T) {
			up := make(chan struct{})
			in := newReceiver(t, &fake{answer: func(ctx context.Context, n int, o client.StartWorkflowOptions) error {
				close(up) // the disk was tried before, without success
				return answer(ctx, n, o)
			}}, hangingDisk{newInbox(t), up})
			if got, err := in.Receive(ctx, callback(1)); err != nil || got.Status != webhook.Queued {
				t.Errorf("got %+v, %v", got, err)
			}
		})
		t.Run("for good, with Temporal "+name, func(t *testing.T) {
			in := newReceiver(t, &fake{answer: answer}, hangingDisk{newInbox(t), never})
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			if got, err := in.Receive(ctx, callback(1)); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Fault and the log report one outage from its beginning to its end, however many starts
// fail in between.
func TestOutageIsLoggedOnce(t *testing.T) {
	var lines lockedBuffer
	b := newInbox(t)
	s := &fake{}
	probing := make(chan error, 1) // Fault while the breaker is half-open
	var in *starter.Receiver
	s.set(func(context.Context, int, client.StartWorkflowOptions) error {
		if len(s.ids()) > 6 {
			select {
			case probing <- in.Delivery.Fault():
			default:
			}
		}
		return unavailable
	})
	in = receiver(t, starter.Options{Temporal: s, Log: slog.New(slog.NewTextHandler(&lines, nil))}, b)
	for n := range uint64(10) {
		if _, err := in.Receive(t.Context(), callback(n)); err != nil {
			t.Fatal(err)
		}
	}
	if in.Delivery.Fault() == nil {
		t.Error("no fault after ten failures")
	}
	relay(t, in)
	if <-probing == nil {
		t.Error("no fault while a start probes Temporal")
	}
	s.set(always(nil))
	wait(t, "all are started", func() bool { return stats(t, b).Waiting == 0 })
	if err := in.Delivery.Fault(); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	log := lines.String()
	for text, want := range map[string]int{`msg="outage begins" component=Temporal error=`: 1, `msg="outage ends" component=Temporal`: 1, "callbacks queued on disk": 1, "level=WARN": 0} {
		if n := strings.Count(log, text); n != want {
			t.Errorf("%d times %q, want %d, in:\n%s", n, text, want, log)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.String()
}

func TestManyCallbacksOfOneSessionStartOnce(t *testing.T) {
	release := make(chan struct{})
	s, b := &fake{answer: func(context.Context, int, client.StartWorkflowOptions) error { <-release; return nil }}, newInbox(t)
	in := newReceiver(t, s, b)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := in.Receive(t.Context(), callback(1)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := stats(t, b).Waiting; n != 1 {
		t.Errorf("%d wait, want 1", n)
	}
	close(release)
	in.Wait()
	if n := stats(t, b).Waiting; n != 0 || len(s.ids()) != 1 {
		t.Errorf("%d wait after %d starts, want none after one", n, len(s.ids()))
	}
}
