package starter_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
)

// describer reports the same status for every run.
type describer enums.WorkflowExecutionStatus

func (d describer) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if d == 0 {
		return nil, serviceerror.NewNotFound("deleted a moment ago")
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{Status: enums.WorkflowExecutionStatus(d)}}, nil
}

// Only a running or completed run closes out its session. After any other end, the session
// would stay open, because Temporal refuses a second run.
func TestFailedRunIsNoDuplicate(t *testing.T) {
	for status, want := range map[enums.WorkflowExecutionStatus]string{
		enums.WORKFLOW_EXECUTION_STATUS_RUNNING: "", enums.WORKFLOW_EXECUTION_STATUS_COMPLETED: "", enums.WORKFLOW_EXECUTION_STATUS_PAUSED: "",
		enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: "",
		enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:       "Terminated", enums.WORKFLOW_EXECUTION_STATUS_CANCELED: "Canceled",
		enums.WORKFLOW_EXECUTION_STATUS_FAILED: "Failed", enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: "TimedOut",
	} {
		s := &fake{describer: describer(status), answer: always(exists)}
		var mu sync.Mutex
		var observed []string
		o := starter.Options{Temporal: s, TaskQueue: "q", Log: quiet,
			Observe: func(outcome string) { mu.Lock(); defer mu.Unlock(); observed = append(observed, outcome) }}

		err := starter.New(o).Close(t.Context(), session.Of(callback(7)))
		ended := new(starter.EndedError)
		if errors.As(err, &ended) != (want != "") || want != "" && (ended.Status != want || ended.WorkflowID != id(7)) {
			t.Errorf("%v: found %v, want %q", status, err, want)
		}

		// A callback is answered as usual, because ZEGO can't help.
		i := receiver(t, o, newInbox(t))
		if r, err := i.Receive(t.Context(), callback(7)); err != nil || r.Status != webhook.Duplicate {
			t.Errorf("%v: answered %+v, %v", status, r, err)
		}
		i.Wait()
		if slices.Contains(observed, "ended") != (want != "") {
			t.Errorf("%v: observed %q", status, observed)
		}
	}
	s := &fake{describer: describer(0), answer: always(exists)}
	if err := starter.New(starter.Options{Temporal: s, Log: quiet}).Close(t.Context(), session.Of(callback(7))); err == nil {
		t.Error("a run that can't be described counts as a success")
	}
}
