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
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Env is the SDK's test environment for one run of a Workflow, with time skipped. The
// steps of [activities.Standard] succeed unless the test mocks them. The clock starts
// at the session's close time. Unlike Temporal, the environment attempts a step at most
// ten times.
type Env struct {
	*testsuite.TestWorkflowEnvironment
	t      testing.TB
	states []workflows.State
}

// maxTaskTime bounds a Workflow Task in tests. On a slow machine the SDK's default of 1 s
// would report a deadlock.
const maxTaskTime = time.Minute

// NewEnv returns an environment with the given Activities, which are pointers to structs as
// in closeout.Service. The Activities run unless the test mocks them. Register a child
// Workflow with RegisterWorkflow.
func NewEnv(t testing.TB, all ...any) *Env {
	t.Helper()
	suite := &testsuite.WorkflowTestSuite{}
	logged := &output{TB: t}
	t.Cleanup(logged.end)
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(logged, nil))))
	e := &Env{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t}
	e.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: maxTaskTime})
	e.SetTestTimeout(maxTaskTime)
	e.RegisterActivity(activities.Standard)
	for _, a := range all {
		e.RegisterActivity(a)
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

// output writes to the test's log until the test ends. A step may still log after that.
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

// MockStandard mocks the standard steps that the test hasn't mocked, so that they succeed.
// Start and Run call it.
func (e *Env) MockStandard() {
	e.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).
		Return(func(_ context.Context, task activities.Task) (activities.Archived, error) {
			return activities.Archived{Manifest: activities.ManifestKey(task.Session)}, nil
		}).Maybe()
	steps := reflect.ValueOf(activities.Standard)
	for i := range steps.NumMethod() {
		step := steps.Method(i)
		succeed := reflect.MakeFunc(step.Type(), func([]reflect.Value) []reflect.Value {
			return []reflect.Value{reflect.Zero(step.Type().Out(0)), reflect.Zero(step.Type().Out(1))}
		})
		whatever := slices.Repeat([]any{mock.Anything}, step.Type().NumIn())
		e.OnActivity(steps.Type().Method(i).Name, whatever...).Return(succeed.Interface()).Maybe()
	}
}

// Start runs the Workflow for the session until it completes or can't continue. Call either
// Start or Run, and only once.
func (e *Env) Start(w workflows.Workflow, s session.Session) {
	e.t.Helper()
	e.MockStandard() // after the test's own mocks, which take precedence

	e.SetStartTime(s.RoomCloseTime)
	options := workflows.StartOptions(s, "closeout")
	e.SetStartWorkflowOptions(options)
	if err := e.SetTypedSearchAttributesOnStart(options.TypedSearchAttributes); err != nil {
		e.t.Fatalf("set search attributes: %v", err)
	}
	e.ExecuteWorkflow(w, s)
}

// Run runs the Workflow to its end and returns its result. It fails the test if the run
// fails or doesn't complete.
func (e *Env) Run(w workflows.Workflow, s session.Session) workflows.Result {
	e.t.Helper()
	e.Start(w, s)
	if !e.IsWorkflowCompleted() {
		e.t.Fatalf("%s has not completed", workflows.Name(w))
	}
	var result workflows.Result
	if err := e.GetWorkflowError(); err != nil {
		e.t.Fatalf("%s didn't complete: %v\nIts last details:\n%s", workflows.Name(w), err, e.Details())
	}
	if err := e.GetWorkflowResult(&result); err != nil {
		e.t.Fatalf("read the result of %s: %v", workflows.Name(w), err)
	}
	return result
}

// RunAdjustment runs an adjustment to its end and returns its result. Numbers start at 1.
// Only the Workflow's steps with [workflows.Step.Adjusts] run. The adjusted bill has no
// figures unless the test mocks Standard.AdjustBill.
func (e *Env) RunAdjustment(w workflows.Workflow, s session.Session, number int) workflows.Result {
	e.t.Helper()
	e.OnActivity(activities.Standard.AdjustBill, mock.Anything, mock.Anything, number).Return(activities.Adjusted{Adjustment: pricing.Adjustment{Number: number}}, nil).Maybe()
	adjust := workflows.AdjustBill(func(session.Session) workflows.Workflow { return w })
	return e.Run(func(ctx workflow.Context, s session.Session) (workflows.Result, error) {
		return adjust(ctx, activities.Adjustment{Session: s, Number: number})
	}, s)
}

// After calls do when the run has reached that age by its clock. Call After before Start or
// Run.
func (e *Env) After(age time.Duration, do func()) { e.RegisterDelayedCallback(do, age) }

// Retry retries a blocked step, as an operator does with [workflows.UpdateRetry].
// Call it from [Env.After]. A rejected Update fails the test.
func (e *Env) Retry(step, reason string) { e.decide(workflows.UpdateRetry, step, reason) }

// Skip skips a blocked step, as an operator does with [workflows.UpdateSkip].
// Call it from [Env.After]. A rejected Update fails the test.
func (e *Env) Skip(step, reason string) { e.decide(workflows.UpdateSkip, step, reason) }

func (e *Env) decide(update, step, reason string) {
	e.UpdateWorkflow(update, "", &decided{e.t, update + " of " + step}, workflows.Decision{Step: step, Reason: reason})
}

// decided reports a decision that was rejected or failed.
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

// States returns the values that [workflows.CloseoutState] has had so far. "" means that it
// was unset.
func (e *Env) States() []workflows.State { return slices.Clone(e.states) }

// Details returns the run's current details in the Web UI, as Markdown.
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
