package starter_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
)

// A callback with a start that always times out, and a callback that is refused, delay no
// others, in any state of the circuit breaker.
func TestPoisonedCallbackDelaysNoOther(t *testing.T) {
	s, b := &fake{}, newInbox(t)
	s.set(func(_ context.Context, _ int, o client.StartWorkflowOptions) error {
		switch o.ID {
		case id(0):
			return context.DeadlineExceeded
		case id(1):
			return invalid
		}
		return nil
	})
	for n := range uint64(2) {
		body, err := json.Marshal(session.Of(callback(n)))
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, id(n), body)
	}
	r := newReceiver(t, s, b)
	relay(t, r)
	// Alone in the inbox, it fails often enough to open the breaker.
	wait(t, "the sink is considered down", func() bool { return r.Delivery.Fault() != nil })
	for n := range uint64(50) {
		if got, err := r.Receive(t.Context(), callback(n+2)); err != nil || got.Status != webhook.Started && got.Status != webhook.Queued {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	wait(t, "all others are started", func() bool {
		return stats(t, b) == (inbox.Stats{Waiting: 1, DeadLetters: 1, Oldest: stats(t, b).Oldest})
	})
	started := map[string]bool{}
	for _, id := range s.ids() {
		started[id] = true
	}
	if len(started) != 52 {
		t.Errorf("%d sessions were tried, want 52", len(started))
	}
	if e, err := b.Get(t.Context(), id(1)); err != nil || !strings.Contains(e.Reason, "blob size exceeds limit") {
		t.Errorf("%+v, %v", e, err)
	}
}

// A first room_close waits in the inbox, the process restarts while Temporal is away, and
// another room_close of the session contradicts it.
func TestCloseThatContradictsTheInboxIsReported(t *testing.T) {
	b := newInbox(t)
	if got, err := newReceiver(t, &fake{answer: always(unavailable)}, b).Receive(t.Context(), callback(7)); err != nil || got.Status != webhook.Queued {
		t.Fatalf("%+v, %v", got, err)
	}
	var contradicted []session.Session
	var observed []string
	r := receiver(t, starter.Options{
		Temporal: &fake{answer: always(unavailable)}, Observe: func(outcome string) { observed = append(observed, outcome) },
		Contradicted: func(_ context.Context, s session.Session) error { contradicted = append(contradicted, s); return nil },
	}, b)
	other := callback(7)
	other.RoomID = "attic"
	if got, err := r.Receive(t.Context(), other); err != nil || got.Status != webhook.Queued {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(contradicted) != 1 || contradicted[0].RoomID != "attic" || len(observed) != 1 || observed[0] != "contradicted" {
		t.Errorf("contradicted %+v, observed %q", contradicted, observed)
	}
	r = receiver(t, starter.Options{
		Temporal: &fake{answer: always(unavailable)}, Contradicted: func(_ context.Context, s session.Session) error {
			t.Errorf("the same is a contradiction: %+v", s)
			return nil
		},
	}, b)
	if got, err := r.Receive(t.Context(), callback(7)); err != nil || got.Status != webhook.Queued {
		t.Fatalf("%+v, %v", got, err)
	}
}

// traced is a fake Temporal that records the trace of each start.
type traced struct {
	fake
	mu     sync.Mutex
	traces []trace.TraceID
}

func (s *traced) ExecuteWorkflow(ctx context.Context, o client.StartWorkflowOptions, w any, args ...any) (client.WorkflowRun, error) {
	s.mu.Lock()
	s.traces = append(s.traces, trace.SpanContextFromContext(ctx).TraceID())
	s.mu.Unlock()
	return s.fake.ExecuteWorkflow(ctx, o, w, args...)
}

// A run continues the trace of its callback, even if the callback was queued and the process
// restarted.
func TestRunOfAQueuedCallbackContinuesItsTrace(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	b := newInbox(t)
	s := &traced{fake: fake{answer: always(unavailable)}}
	if got, err := receiver(t, starter.Options{Temporal: s}, b).Receive(ctx, callback(1)); err != nil || got.Status != webhook.Queued {
		t.Fatalf("%+v, %v", got, err)
	}
	s.set(always(nil))
	r := receiver(t, starter.Options{Temporal: s}, b)
	relay(t, r)
	wait(t, "it is started", func() bool { return stats(t, b).Waiting == 0 })
	if got, err := r.Receive(t.Context(), callback(2)); err != nil || got.Status != webhook.Started {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(s.traces) != 3 || s.traces[0] != span.TraceID() || s.traces[1] != span.TraceID() || s.traces[2].IsValid() {
		t.Errorf("traces %v", s.traces)
	}
}
