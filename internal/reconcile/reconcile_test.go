package reconcile_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/session"
)

var do *reconcile.Reconciler

// run runs the Workflow with pages that the test makes from the progress.
func run(t *testing.T, from reconcile.Progress, page func(reconcile.Progress) (reconcile.Page, error), adjust, late func(context.Context) (int, error)) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := (&testsuite.WorkflowTestSuite{}).NewTestWorkflowEnvironment()
	env.RegisterActivity(&reconcile.Reconciler{})
	env.OnActivity(do.CheckOverdueSessions, mock.Anything, mock.Anything).Return(func(_ context.Context, p reconcile.Progress) (reconcile.Page, error) { return page(p) })
	env.OnActivity(do.StartAdjustments, mock.Anything).Return(adjust)
	env.OnActivity(do.StartLateRecordings, mock.Anything).Return(late)
	env.ExecuteWorkflow(reconcile.Reconcile, from)
	if !env.IsWorkflowCompleted() {
		t.Fatal("the Workflow doesn't complete")
	}
	return env
}

func starts(n int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return n, nil }
}

func TestRunChecksAllPages(t *testing.T) {
	before := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	n := uint64(0)
	env := run(t, reconcile.Progress{}, func(p reconcile.Progress) (reconcile.Page, error) {
		if p.After.RoomSessionID != n || n > 0 && !p.Before.Equal(before) {
			t.Errorf("page %d after %+v, before %v", n, p.After, p.Before)
		}
		n++
		return reconcile.Page{Before: before, After: ledger.OpenSession{ID: session.ID{AppID: 1, RoomSessionID: n}}, Last: n == 3,
			Apps: map[uint32]reconcile.Counts{1: {Overdue: 200, Asked: 200, Alive: 199, Gone: 1}, 2: {Overdue: 5, Reported: 5}}}, nil
	}, starts(4), starts(2))
	var r reconcile.Result
	if err := env.GetWorkflowResult(&r); err != nil {
		t.Fatal(err)
	}
	want := reconcile.Result{Adjustments: 4, Late: 2, Apps: map[uint32]reconcile.Counts{1: {Overdue: 600, Asked: 600, Alive: 597, Gone: 3}, 2: {Overdue: 15, Reported: 15}}}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("result %+v, want %+v", r, want)
	}
	if d := details(t, env); !strings.Contains(d, "App 1: 600 overdue sessions") || !strings.Contains(d, "15 only reported") || !strings.Contains(d, "Adjustments of bills: 4") || !strings.Contains(d, "late recordings are added: 2") {
		t.Errorf("details:\n%s", d)
	}
}

// details returns the details that the Web UI shows.
func details(t *testing.T, env *testsuite.TestWorkflowEnvironment) string {
	t.Helper()
	value, err := env.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		t.Fatal(err)
	}
	var metadata sdk.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		t.Fatal(err)
	}
	return metadata.GetCurrentDetails()
}

// A run with many sessions continues as a new run before its history is too long. The new run has
// the old one's progress.
func TestLongRunContinuesAsNew(t *testing.T) {
	pages := 0
	env := run(t, reconcile.Progress{}, func(reconcile.Progress) (reconcile.Page, error) {
		pages++
		return reconcile.Page{After: ledger.OpenSession{ID: session.ID{AppID: 1, RoomSessionID: uint64(pages)}}, Failing: map[uint32]int{4: 2},
			Apps: map[uint32]reconcile.Counts{1: {Overdue: 200, Asked: 200, Alive: 200}}}, nil
	}, starts(0), starts(0))
	var next *workflow.ContinueAsNewError
	if err := env.GetWorkflowError(); !errors.As(err, &next) || pages != 200 {
		t.Fatalf("after %d pages: %v", pages, err)
	}
	var p reconcile.Progress
	if err := converter.GetDefaultDataConverter().FromPayloads(next.Input, &p); err != nil {
		t.Fatal(err)
	}
	if p.After.RoomSessionID != 200 || p.Result.Apps[1].Overdue != 40_000 || p.Failing[4] != 2 {
		t.Errorf("the new run has the progress %+v", p)
	}
	env = run(t, p, func(p reconcile.Progress) (reconcile.Page, error) {
		return reconcile.Page{Last: true, Apps: map[uint32]reconcile.Counts{1: {Overdue: 1, Gone: 1, Asked: 1}}}, nil
	}, starts(0), starts(0))
	var r reconcile.Result
	if err := env.GetWorkflowResult(&r); err != nil || r.Apps[1] != (reconcile.Counts{Overdue: 40_001, Asked: 40_001, Alive: 40_000, Gone: 1}) {
		t.Errorf("result %+v, %v", r, err)
	}
}

// An error is reported and delays nothing else.
func TestErrorsFailTheRunAtItsEnd(t *testing.T) {
	broken := func(reconcile.Progress) (reconcile.Page, error) {
		return reconcile.Page{}, temporal.NewNonRetryableApplicationError("the ledger is away", "", nil)
	}
	away := func(reconcile.Progress) (reconcile.Page, error) {
		return reconcile.Page{Last: true, Apps: map[uint32]reconcile.Counts{
			1: {Overdue: 2, Failed: 2, Error: "zego: DescribeUserNum of app 1: code 206: app qps limit"}, 2: {Overdue: 1, Asked: 1, Gone: 1}}}, nil
	}
	fails := func(context.Context) (int, error) {
		return 0, temporal.NewNonRetryableApplicationError("not now", "", nil)
	}
	for name, tt := range map[string]struct {
		page         func(reconcile.Progress) (reconcile.Page, error)
		adjust, late func(context.Context) (int, error)
		want         []string
	}{
		"an app":      {away, starts(3), starts(0), []string{"app 1: 2 sessions: zego: DescribeUserNum of app 1: code 206: app qps limit"}},
		"the ledger":  {broken, starts(3), starts(0), []string{"check overdue sessions: the ledger is away"}},
		"adjustments": {away, fails, starts(0), []string{"app 1: 2 sessions", "adjust bills: not now"}},
		"recordings":  {away, starts(3), fails, []string{"app 1: 2 sessions", "add late recordings: not now"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := run(t, reconcile.Progress{}, tt.page, tt.adjust, tt.late)
			err := env.GetWorkflowError()
			failed := new(temporal.ApplicationError)
			if !errors.As(err, &failed) || failed.Type() != "Incomplete" {
				t.Fatalf("error %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(failed.Message(), want) {
					t.Errorf("message %q lacks %q", failed.Message(), want)
				}
			}
			var r reconcile.Result
			if err := failed.Details(&r); err != nil {
				t.Fatal(err)
			}
			if name == "an app" && (r.Apps[2].Gone != 1 || r.Adjustments != 3) || name == "the ledger" && r.Adjustments != 3 {
				t.Errorf("result %+v", r)
			}
			env.AssertExpectations(t)
		})
	}
}
