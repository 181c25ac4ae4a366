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

// Replay replays every recorded history in the folder, the files "*.json", on the
// workflows as they are now. It fails for a history that its workflow doesn't
// take any more: runs that are under way would be stuck after the next
// deployment. It fails as well for a step that has another idempotency key than
// it had, for a workflow without a history, and for a history without its
// workflow.
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

// replay replays a history on the one of the workflows that it is of, and gives
// its name.
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
	of := slices.IndexFunc(all, func(w workflows.Workflow) bool { return workflows.Name(w) == name })
	if of < 0 {
		return name, fmt.Errorf("it is of Workflow %q, which is not listed; if no run of it is open, remove the file", name)
	}
	asked := &keys{of: map[uuid.UUID]bool{}, sessions: map[session.ID]bool{}, signals: map[string]bool{}}
	// Without a key, the error about an encrypted payload says that it is encrypted.
	data, failures := codec.Keys(nil).ForWorker()
	replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
		DataConverter: data, FailureConverter: failures, Interceptors: []interceptor.WorkerInterceptor{asked}})
	if err != nil {
		return name, fmt.Errorf("make a replayer: %w", err)
	}
	replayer.RegisterWorkflowWithOptions(all[of], workflow.RegisterOptions{Name: name})
	if err := replayer.ReplayWorkflowHistory(nil, history); err != nil {
		return name, fmt.Errorf("open runs of %s could not continue; put the change behind Step.AddedLater or workflow.GetVersion: %w", name, err)
	}
	renamed := func(what string) error {
		return fmt.Errorf("%s has another idempotency key than in open runs: was the step renamed? It would repeat what it has done", what)
	}
	for _, event := range history.GetEvents() {
		step := event.GetActivityTaskScheduledEventAttributes()
		var task activities.Task
		if converter.GetDefaultDataConverter().FromPayloads(step.GetInput(), &task) == nil && task.IdempotencyKey != uuid.Nil && !asked.of[task.IdempotencyKey] {
			return name, renamed("the step that runs " + step.GetActivityType().GetName())
		}
		// The input of a quick step is in no event, but its name is in the result.
		var result workflows.Result
		if converter.GetDefaultDataConverter().FromPayloads(event.GetWorkflowExecutionCompletedEventAttributes().GetResult(), &result) != nil {
			continue
		}
		for _, s := range result.Steps {
			if s.Output != nil && !asked.step(s.Step) && !asked.signals[s.Step] {
				return name, renamed("step " + s.Step)
			}
		}
	}
	return name, nil
}

// keys are the idempotency keys of the steps that a replayed workflow asks for. A
// replay doesn't compare what steps are given. The interceptors find them out.
type keys struct {
	interceptor.WorkerInterceptorBase
	of       map[uuid.UUID]bool
	sessions map[session.ID]bool // of those keys
	signals  map[string]bool     // those that the steps listen to
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
			k.of[task.IdempotencyKey], k.sessions[task.Session.ID] = true, true
		}
	}
}

// step reports whether a key is that of the step.
func (k *keys) step(name string) bool {
	for id := range k.sessions {
		if k.of[id.IdempotencyKey(name)] {
			return true
		}
	}
	return false
}

// unrecorded names the workflows that no history is of.
func unrecorded(all []workflows.Workflow, recorded []string) (names []string) {
	for _, w := range all {
		if name := workflows.Name(w); !slices.Contains(recorded, name) {
			names = append(names, name)
		}
	}
	return names
}
