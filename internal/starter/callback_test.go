package starter_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// agents is a fake Temporal that starts each Workflow ID once and counts each Signal request
// once.
type agents struct {
	mu      sync.Mutex
	fault   error
	starts  []string // Workflow IDs
	options map[string]client.StartWorkflowOptions
	input   any
	sent    map[string]*workflowservice.SignalWorkflowExecutionRequest // by request ID
	missing bool
}

func (a *agents) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault != nil {
		return nil, a.fault
	}
	if a.options == nil {
		a.options = map[string]client.StartWorkflowOptions{}
	}
	if _, there := a.options[o.ID]; there {
		return nil, exists
	}
	a.starts, a.options[o.ID], a.input = append(a.starts, o.ID), o, args[0]
	return nil, nil
}

func (a *agents) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, serviceerror.NewNotFound("not asked about")
}

func (a *agents) SignalWorkflowExecution(_ context.Context, r *workflowservice.SignalWorkflowExecutionRequest, _ ...grpc.CallOption) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fault != nil:
		return nil, a.fault
	case a.missing:
		return nil, serviceerror.NewNotFound("no such run")
	case a.sent == nil:
		a.sent = map[string]*workflowservice.SignalWorkflowExecutionRequest{}
	}
	a.sent[r.RequestId] = r
	return &workflowservice.SignalWorkflowExecutionResponse{}, nil
}

func (a *agents) set(fault error, missing bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault, a.missing = fault, missing
}

func (a *agents) count() (starts, signals int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.starts), len(a.sent)
}

// other returns a callback of an AI agent.
func other(t *testing.T, event, agent, nonce string) *zego.Other {
	t.Helper()
	parsed, err := zego.Parse("", []byte(`{"Event":"`+event+`","AppId":7,"Timestamp":1745502313000,"Nonce":"`+nonce+`","Signature":"s","AgentInstanceId":"`+agent+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(*zego.Other)
}

// startAgent starts a Workflow with the ID agent-<AgentInstanceId of the body>.
func startAgent(_ context.Context, c workflows.Callback) (workflows.Action, error) {
	_, agent, _ := strings.Cut(string(c.JSON), `"AgentInstanceId":"`)
	return workflows.Action{WorkflowID: "agent-" + strings.TrimRight(agent, `"}`), Workflow: "BillAgent", Input: c.AppID}, nil
}

func signalAgent(_ context.Context, c workflows.Callback) (workflows.Action, error) {
	return workflows.Action{WorkflowID: "agent-1", Signal: c.Event, Input: "x", Key: "k"}, nil
}

func ignore(context.Context, workflows.Callback) (workflows.Action, error) {
	return workflows.Action{}, nil
}

func verdict(s *starter.Starter, err error) string {
	return map[delivery.Verdict]string{delivery.Later: "later", delivery.Refused: "refused", delivery.Unavailable: "unavailable"}[s.Judge(err)]
}

func newAgents(t *testing.T, a *agents, b *inbox.Inbox, log *slog.Logger, events map[string]workflows.CallbackFunc) *starter.Receiver {
	t.Helper()
	return receiver(t, starter.Options{Temporal: a, Signaler: a, Namespace: "n", Events: events, Log: log}, b)
}

func receive(t *testing.T, r *starter.Receiver, c *zego.Other) webhook.Status {
	t.Helper()
	receipt, err := r.ReceiveOther(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Status
}

func TestCallbackFuncStartsOrSignals(t *testing.T) {
	a := &agents{}
	r := newAgents(t, a, newInbox(t), nil, map[string]workflows.CallbackFunc{
		"AgentInstanceDeleted": startAgent, "Interrupted": signalAgent, "ASRResult": ignore,
	})
	for _, step := range []struct {
		event, agent, nonce string
		want                webhook.Status
		starts, signals     int
	}{
		{"AgentInstanceDeleted", "1", "a", webhook.Started, 1, 0},
		{"AgentInstanceDeleted", "1", "b", webhook.Duplicate, 1, 0}, // repeated with a new signature
		{"AgentInstanceDeleted", "2", "c", webhook.Started, 2, 0},
		{"Interrupted", "1", "d", webhook.Signaled, 2, 1},
		{"Interrupted", "2", "e", webhook.Duplicate, 2, 1}, // another digest with the same key
		{"ASRResult", "1", "f", webhook.Ignored, 2, 1},
		{"LLMResult", "1", "g", webhook.Ignored, 2, 1}, // has no function
	} {
		got := receive(t, r, other(t, step.event, step.agent, step.nonce))
		if starts, signals := a.count(); got != step.want || starts != step.starts || signals != step.signals {
			t.Errorf("%s %s: %s, %d starts, %d signals, want %+v", step.event, step.nonce, got, starts, signals, step)
		}
	}
	if o := a.options["agent-1"]; o.TaskQueue != "q" || o.Priority.FairnessKey != "7" || a.input != uint32(7) {
		t.Errorf("started with %+v, input %v", o, a.input)
	}
	for _, s := range a.sent {
		if s.Namespace != "n" || s.WorkflowExecution.WorkflowId != "agent-1" || s.SignalName != "Interrupted" || string(s.Input.Payloads[0].Data) != `"x"` {
			t.Errorf("signal %v", s)
		}
	}
}

// Another process, or this one after a restart, relies on Temporal to find duplicates.
func TestCallbackCountsOnceAcrossProcesses(t *testing.T) {
	a := &agents{}
	events := map[string]workflows.CallbackFunc{"AgentInstanceDeleted": startAgent, workflows.OtherEvents: signalAgent}
	for range 3 {
		r := newAgents(t, a, newInbox(t), nil, events)
		receive(t, r, other(t, "AgentInstanceDeleted", "1", "a"))
		receive(t, r, other(t, "LLMResult", "1", "a"))
	}
	if starts, signals := a.count(); starts != 1 || signals != 1 {
		t.Errorf("%d starts and %d signals, want 1 and 1", starts, signals)
	}
}

func TestCallbackIsQueuedWhileTemporalIsDown(t *testing.T) {
	a, b := &agents{fault: unavailable}, newInbox(t)
	events := map[string]workflows.CallbackFunc{"AgentInstanceDeleted": startAgent, "LLMResult": ignore, workflows.OtherEvents: signalAgent}
	r := newAgents(t, a, b, nil, events)
	for range 2 {
		if got := receive(t, r, other(t, "AgentInstanceDeleted", "1", "a")); got != webhook.Queued && got != webhook.Duplicate {
			t.Errorf("answered %s", got)
		}
	}
	receive(t, r, other(t, "Interrupted", "1", "a"))
	if got := receive(t, r, other(t, "LLMResult", "1", "a")); got != webhook.Ignored || stats(t, b).Waiting != 2 {
		t.Errorf("%s, %d wait", got, stats(t, b).Waiting)
	}
	// The process restarts.
	a.set(nil, false)
	relay(t, newAgents(t, a, b, nil, events))
	wait(t, "the inbox is empty", func() bool { return stats(t, b).Waiting == 0 })
	if starts, signals := a.count(); starts != 1 || signals != 1 || a.input != uint32(7) {
		t.Errorf("%d starts and %d signals, want 1 and 1; input %v", starts, signals, a.input)
	}
}

// A callback whose function fails is queued and acted on later. Temporal isn't considered
// down for it.
func TestFailingCallbackFuncLosesNoCallback(t *testing.T) {
	for name, fail := range map[string]workflows.CallbackFunc{
		"panics": func(context.Context, workflows.Callback) (workflows.Action, error) { panic("out of order") },
		"errs": func(context.Context, workflows.Callback) (workflows.Action, error) {
			return workflows.Action{}, errors.New("out of order")
		},
		"names no run": func(context.Context, workflows.Callback) (workflows.Action, error) {
			return workflows.Action{Workflow: "x"}, nil
		},
		"takes a session": func(context.Context, workflows.Callback) (workflows.Action, error) {
			return workflows.Action{Workflow: "x", WorkflowID: "room-close-7-1"}, nil
		},
		"wants both": func(context.Context, workflows.Callback) (workflows.Action, error) {
			return workflows.Action{Workflow: "x", WorkflowID: "y", Signal: "z"}, nil
		},
		"doesn't return": func(ctx context.Context, _ workflows.Callback) (workflows.Action, error) { select {} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := &agents{}, newInbox(t)
			var broken atomic.Bool
			broken.Store(true)
			var log bytes.Buffer
			r := newAgents(t, a, b, slog.New(slog.NewTextHandler(&log, nil)), map[string]workflows.CallbackFunc{workflows.OtherEvents: func(ctx context.Context, c workflows.Callback) (workflows.Action, error) {
				if broken.Load() {
					return fail(ctx, c)
				}
				return startAgent(ctx, c)
			}})
			if got := receive(t, r, other(t, "AgentInstanceDeleted", "1", "a")); got != webhook.Queued {
				t.Errorf("answered %s", got)
			}
			if logged := log.String(); !strings.Contains(logged, "function for callback failed") || !strings.Contains(logged, "event=AgentInstanceDeleted") {
				t.Errorf("log: %s", logged)
			}
			if err := r.Delivery.Fault(); err != nil || stats(t, b).Waiting != 1 {
				t.Errorf("Temporal is considered down: %v; %d wait", err, stats(t, b).Waiting)
			}
			broken.Store(false)
			relay(t, r)
			wait(t, "the callback is acted on", func() bool { starts, _ := a.count(); return starts == 1 && stats(t, b).Waiting == 0 })
		})
	}
}

// A callback that keeps failing becomes a dead letter, which an operator can retry.
func TestCallbackThatKeepsFailingIsADeadLetter(t *testing.T) {
	s := starter.New(starter.Options{Temporal: &agents{}, Signaler: &agents{missing: true}, TaskQueue: "q", Log: quiet, Events: map[string]workflows.CallbackFunc{
		"panics": func(context.Context, workflows.Callback) (workflows.Action, error) { panic("no") }, "signals": signalAgent}})
	for _, event := range []string{"panics", "signals", "removed"} {
		for _, overdue := range []bool{false, true} {
			done := make(chan error, 1)
			s.Deliver(t.Context(), starter.Item{Callback: &workflows.Callback{AppID: 7, Event: event, Digest: "d"}}, overdue, func(_ string, err error) { done <- err })
			select {
			case err := <-done:
				if want := map[bool]string{false: "later", true: "refused"}[overdue]; err == nil || verdict(s, err) != want {
					t.Errorf("%s, overdue %v: %v is %s, want %s", event, overdue, err, verdict(s, err), want)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("not done")
			}
		}
	}
}

// Processes don't share memory. The request ID makes a repeated Signal count once.
func TestKeyIsSignaledOnceByAllProcesses(t *testing.T) {
	a := &agents{}
	for _, nonce := range []string{"a", "b"} { // two digests
		r := newAgents(t, a, newInbox(t), nil, map[string]workflows.CallbackFunc{"Interrupted": signalAgent})
		if got := receive(t, r, other(t, "Interrupted", nonce, nonce)); got != webhook.Signaled {
			t.Errorf("answered %s", got)
		}
	}
	if _, signals := a.count(); signals != 1 {
		t.Errorf("%d request IDs, want 1", signals)
	}
}
