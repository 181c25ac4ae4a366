package closeouttest

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// Standard names the standard steps, to mock them: env.OnActivity(Standard.FinalizeBill, ...).
var Standard activities.Steps

// Env is the SDK's environment for a workflow, with skipped time, made for a run
// that Closeout starts. The standard steps succeed, unless the test mocks them
// itself. The environment's clock begins at the time at which the session was
// closed. Unlike Temporal, it tries a step ten times at most.
type Env struct {
	*testsuite.TestWorkflowEnvironment
	t      testing.TB
	states []workflows.State
}

// NewEnv makes an environment in which the steps, pointers to structs as in
// closeout.Service, are known. They are run for real where the test doesn't mock
// them.
func NewEnv(t testing.TB, steps ...any) *Env {
	t.Helper()
	suite := &testsuite.WorkflowTestSuite{}
	logged := &output{TB: t}
	t.Cleanup(logged.end)
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(logged, nil))))
	e := &Env{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t}
	e.RegisterActivity(&activities.Steps{})
	for _, s := range steps {
		e.RegisterActivity(s)
	}
	e.OnUpsertTypedSearchAttributes(mock.Anything).Run(func(args mock.Arguments) {
		attributes, _ := args.Get(0).(temporal.SearchAttributes)
		state, set := attributes.GetKeyword(workflows.CloseoutState)
		if set || reflect.DeepEqual(attributes, temporal.NewSearchAttributes(workflows.CloseoutState.ValueUnset())) {
			e.states = append(e.states, workflows.State(state))
		}
	}).Return(nil).Maybe()
	return e
}

// output writes to the log of a test, which is seen where the test fails, until
// the test ends: a step may outlast it.
type output struct {
	testing.TB
	mu    sync.Mutex
	ended bool
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		o.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// MockStandard lets the standard steps succeed that the test hasn't mocked. Start
// and Run do it.
func (e *Env) MockStandard() {
	e.OnActivity(Standard.ArchiveRecordings, mock.Anything, mock.Anything).
		Return(func(_ context.Context, task activities.Task) (activities.Archived, error) {
			return activities.Archived{Manifest: activities.ManifestKey(task.Session)}, nil
		}).Maybe()
	steps := reflect.ValueOf(Standard)
	for i := range steps.NumMethod() {
		step := steps.Method(i)
		succeed := reflect.MakeFunc(step.Type(), func([]reflect.Value) []reflect.Value {
			return []reflect.Value{reflect.Zero(step.Type().Out(0)), reflect.Zero(step.Type().Out(1))}
		})
		whatever := slices.Repeat([]any{mock.Anything}, step.Type().NumIn())
		e.OnActivity(steps.Type().Method(i).Name, whatever...).Return(succeed.Interface()).Maybe()
	}
}

// Start runs the workflow for the session, as far as it goes. It may be called
// once.
func (e *Env) Start(w workflows.Workflow, s activities.Session) {
	e.t.Helper()
	e.MockStandard() // after what the test has mocked, which comes first

	e.SetStartTime(s.RoomCloseTime)
	options := workflows.StartOptions(s, "closeout")
	e.SetStartWorkflowOptions(options)
	if err := e.SetTypedSearchAttributesOnStart(options.TypedSearchAttributes); err != nil {
		e.t.Fatalf("set search attributes: %v", err)
	}
	e.ExecuteWorkflow(w, s)
}

// Run runs the workflow to its end and gives its result. A run that fails or
// doesn't end fails the test.
func (e *Env) Run(w workflows.Workflow, s activities.Session) workflows.Result {
	e.t.Helper()
	e.Start(w, s)
	if !e.IsWorkflowCompleted() {
		e.t.Fatalf("%s has not completed", workflows.Name(w))
	}
	var result workflows.Result
	if err := e.GetWorkflowError(); err != nil {
		e.t.Fatalf("%s didn't complete: %v\nIt came this far:\n%s", workflows.Name(w), err, e.Details())
	}
	if err := e.GetWorkflowResult(&result); err != nil {
		e.t.Fatalf("read the result of %s: %v", workflows.Name(w), err)
	}
	return result
}

// After does something when the run is that old, by its clock. Call it before
// the run.
func (e *Env) After(age time.Duration, do func()) { e.RegisterDelayedCallback(do, age) }

// Retry has a blocked step retried, as a person would by [workflows.UpdateRetry].
// Call it from [Env.After]. A refusal fails the test.
func (e *Env) Retry(step, reason string) { e.decide(workflows.UpdateRetry, step, reason) }

// Skip has a blocked step skipped, as a person would by [workflows.UpdateSkip].
// Call it from [Env.After]. A refusal fails the test.
func (e *Env) Skip(step, reason string) { e.decide(workflows.UpdateSkip, step, reason) }

func (e *Env) decide(update, step, reason string) {
	e.UpdateWorkflow(update, "", &decided{e.t, update + " of " + step}, workflows.Decision{Step: step, Reason: reason})
}

// decided hears what came of a decision.
type decided struct {
	t    testing.TB
	what string
}

func (d *decided) Accept()          {}
func (d *decided) Reject(err error) { d.t.Errorf("%s: %v", d.what, err) }
func (d *decided) Complete(_ any, err error) {
	if err != nil {
		d.t.Errorf("%s: %v", d.what, err)
	}
}

// States returns the values that [workflows.CloseoutState] has had so far; "" where it
// was unset.
func (e *Env) States() []workflows.State { return slices.Clone(e.states) }

// Details is what the Web UI shows of the run now, in Markdown.
func (e *Env) Details() string {
	e.t.Helper()
	value, err := e.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		e.t.Fatalf("query the details: %v", err)
	}
	var metadata sdk.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		e.t.Fatalf("read the details: %v", err)
	}
	return metadata.GetCurrentDetails()
}
