package closeouttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Replay replays the recorded histories in the folder, its files "*.json", on the given
// Workflows. It fails the test for
//
//   - a history that its Workflow can't replay: open runs would be stuck after the next
//     deployment;
//   - a step with another idempotency key than in the history;
//   - a Workflow without a history, and a history without its Workflow.
//
// `closeout history save <room_session_id>` records a history.
func Replay(t *testing.T, folder string, all ...workflows.Workflow) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var recorded []string
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			name, err := replay(file, all)
			if err != nil {
				t.Error(err)
			}
			recorded = append(recorded, name)
		})
	}
	for _, name := range unrecorded(all, recorded) {
		t.Errorf("there is no history of %s in %s: run it and record one with `closeout history save <room_session_id>`", name, folder)
	}
}

// replay replays a history on its Workflow and returns the Workflow's name.
func replay(file string, all []workflows.Workflow) (name string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read a history: %w", err)
	}
	defer f.Close()
	history, err := client.HistoryFromJSON(f, client.HistoryJSONOptions{})
	if err != nil {
		return "", fmt.Errorf("no history: %w", err)
	}
	if len(history.GetEvents()) == 0 {
		return "", errors.New("no history: it has no events")
	}
	name = history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()
	i := slices.IndexFunc(all, func(w workflows.Workflow) bool { return workflows.Name(w) == name })
	if i < 0 {
		return name, fmt.Errorf("history of Workflow %q, which is not listed; if no run of it is open, remove the file", name)
	}
	used := &keys{known: map[uuid.UUID]bool{}, sessions: map[session.ID]bool{}, signals: map[string]bool{}}
	// With this converter, the error about a payload says that it is encrypted.
	data, failures := codec.Keys(nil).ForWorker()
	replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
		DataConverter: data, FailureConverter: failures, Interceptors: []interceptor.WorkerInterceptor{used}})
	if err != nil {
		return name, fmt.Errorf("make a replayer: %w", err)
	}
	replayer.RegisterWorkflowWithOptions(all[i], workflow.RegisterOptions{Name: name})
	if err := replayer.ReplayWorkflowHistory(nil, history); err != nil {
		return name, fmt.Errorf("open runs of %s could not continue; put the change behind Step.AddedLater or workflow.GetVersion: %w", name, err)
	}
	renamed := func(what string) error {
		return fmt.Errorf("%s has another idempotency key than in open runs: was the step renamed? It would repeat what it has done", what)
	}
	for _, event := range history.GetEvents() {
		step := event.GetActivityTaskScheduledEventAttributes()
		var task activities.Task
		if converter.GetDefaultDataConverter().FromPayloads(step.GetInput(), &task) == nil && task.IdempotencyKey != uuid.Nil && !used.known[task.IdempotencyKey] {
			return name, renamed("the step that runs " + step.GetActivityType().GetName())
		}
		// No event has the input of a quick step, but the result has its name.
		var result workflows.Result
		if converter.GetDefaultDataConverter().FromPayloads(event.GetWorkflowExecutionCompletedEventAttributes().GetResult(), &result) != nil {
			continue
		}
		for _, s := range result.Steps {
			if s.Output != nil && !used.step(s.Step) && !used.signals[s.Step] {
				return name, renamed("step " + s.Step)
			}
		}
	}
	return name, nil
}

// keys collects the idempotency keys of the steps that a replayed Workflow starts, by
// interceptors. A replay itself doesn't compare the inputs of steps.
type keys struct {
	interceptor.WorkerInterceptorBase
	known    map[uuid.UUID]bool
	sessions map[session.ID]bool // the sessions of the keys
	signals  map[string]bool     // the names of Signals that the Workflow receives
}

// InterceptWorkflow implements [interceptor.WorkerInterceptor].
func (k *keys) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &inbound{interceptor.WorkflowInboundInterceptorBase{Next: next}, k}
}

type inbound struct {
	interceptor.WorkflowInboundInterceptorBase
	*keys
}

// Init implements [interceptor.WorkflowInboundInterceptor].
func (i *inbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&outbound{interceptor.WorkflowOutboundInterceptorBase{Next: next}, i.keys})
}

type outbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	*keys
}

// ExecuteActivity implements [interceptor.WorkflowOutboundInterceptor].
func (o *outbound) ExecuteActivity(ctx workflow.Context, activityType string, args ...any) workflow.Future {
	o.add(args)
	return o.Next.ExecuteActivity(ctx, activityType, args...)
}

// ExecuteLocalActivity implements [interceptor.WorkflowOutboundInterceptor].
func (o *outbound) ExecuteLocalActivity(ctx workflow.Context, activityType string, args ...any) workflow.Future {
	o.add(args)
	return o.Next.ExecuteLocalActivity(ctx, activityType, args...)
}

// GetSignalChannel implements [interceptor.WorkflowOutboundInterceptor].
func (o *outbound) GetSignalChannel(ctx workflow.Context, name string) workflow.ReceiveChannel {
	o.signals[name] = true
	return o.Next.GetSignalChannel(ctx, name)
}

func (k *keys) add(args []any) {
	for _, arg := range args {
		if task, ok := arg.(activities.Task); ok {
			k.known[task.IdempotencyKey], k.sessions[task.Session.ID] = true, true
		}
	}
}

// step reports whether the Workflow started the named step.
func (k *keys) step(name string) bool {
	for id := range k.sessions {
		if k.known[id.IdempotencyKey(name)] {
			return true
		}
	}
	return false
}

// unrecorded returns the names of the Workflows without a history.
func unrecorded(all []workflows.Workflow, recorded []string) (names []string) {
	for _, w := range all {
		if name := workflows.Name(w); !slices.Contains(recorded, name) {
			names = append(names, name)
		}
	}
	return names
}
