package starter_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

func CloseShow(workflow.Context, session.Session) (workflows.Result, error) {
	return workflows.Result{}, nil
}

// routed is a fake Temporal that records the Workflow of each session.
type routed struct {
	fake
	mu    sync.Mutex
	names map[string]string // by Workflow ID
}

func (r *routed) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, w any, _ ...any) (client.WorkflowRun, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[o.ID] = workflows.Name(w.(workflows.Workflow))
	return nil, nil
}

func (r *routed) name(session uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[id(session)]
}

func TestRouteChoosesTheWorkflow(t *testing.T) {
	temporal := &routed{names: map[string]string{}}
	in := receiver(t, starter.Options{Temporal: temporal, Route: func(s session.Session) workflows.Workflow {
		if s.RoomSessionID == 2 {
			return CloseShow
		}
		return workflows.RoomClose
	}}, newInbox(t))
	for session, want := range map[uint64]string{1: "RoomClose", 2: "CloseShow"} {
		if _, err := in.Receive(t.Context(), callback(session)); err != nil {
			t.Fatal(err)
		}
		if got := temporal.name(session); got != want {
			t.Errorf("session %d was started with %q, want %q", session, got, want)
		}
	}
}

// A callback at which Route panics becomes a dead letter, and can be retried when Route is
// fixed. It delays no other.
func TestRoutePanicMakesADeadLetter(t *testing.T) {
	temporal, b := &routed{names: map[string]string{}}, newInbox(t)
	var mended sync.Map
	in := receiver(t, starter.Options{Temporal: temporal, Route: func(s session.Session) workflows.Workflow {
		if _, ok := mended.Load("yes"); !ok && s.RoomSessionID == 1 {
			panic("no show of this room")
		}
		return workflows.RoomClose
	}}, b)
	relay(t, in)
	for session := range uint64(10) {
		receipt, err := in.Receive(t.Context(), callback(session))
		if err != nil || session == 1 && receipt.Status != webhook.Queued {
			t.Fatalf("%+v, error %v", receipt, err)
		}
	}
	wait(t, "it is a dead letter", func() bool { return stats(t, b) == inbox.Stats{DeadLetters: 1} })
	e, err := b.Get(t.Context(), id(1))
	if err != nil || !strings.Contains(e.Reason, "no show of this room") {
		t.Errorf("%+v, error %v", e, err)
	}
	mended.Store("yes", true)
	if err := b.Retry(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is started", func() bool { return temporal.name(1) == "RoomClose" })
}
