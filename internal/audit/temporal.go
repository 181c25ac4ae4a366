package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/workflows"
)

// run is a run of a session.
type run struct {
	id, runID string
	first     string // the run ID of the first of its chain
	workflow  string // its name
	start     time.Time
	flags              // running, with blocked, stuck and unindexed, or how it closed
	problems  []string // why its Workflow Task fails, as Temporal reports it
	stated    details  // zero if unreadable
}

func (a *audit) runOf(info *workflow.WorkflowExecutionInfo) run {
	r := run{
		id:       info.GetExecution().GetWorkflowId(),
		runID:    info.GetExecution().GetRunId(),
		first:    info.GetFirstRunId(),
		workflow: info.GetType().GetName(),
		start:    info.GetStartTime().AsTime(),
		flags:    ofStatus[info.GetStatus()],
	}
	text := func(payload *common.Payload, s *string) bool {
		return payload != nil && a.Data.FromPayload(payload, s) == nil
	}
	var state, closedAt string
	_ = text(info.GetSearchAttributes().GetIndexedFields()[workflows.CloseoutState.GetName()], &state) // may be missing
	if problems := info.GetSearchAttributes().GetIndexedFields()[workflows.ReportedProblems]; problems != nil {
		_ = converter.GetDefaultDataConverter().FromPayload(problems, &r.problems) // ignore other types
	}
	if r.has(running) {
		r.set(blocked, workflows.State(state) == workflows.StateBlocked)
		r.set(stuck, len(r.problems) > 0)
		r.set(unindexed, info.GetSearchAttributes().GetIndexedFields()[workflows.RoomID.GetName()] == nil)
	}

	// The memo is unreadable for a run started by hand, or encrypted with an unknown key.
	memo := info.GetMemo().GetFields()
	stated := details{}
	if text(memo["room_id"], &stated.room) && text(memo["close_reason"], &stated.reason) && text(memo["room_close_time"], &closedAt) {
		if t, err := time.Parse(time.RFC3339Nano, closedAt); err == nil {
			stated.closed = t.UnixMilli()
			r.stated = stated
		}
	}
	return r
}

// list lists the runs that a List Filter matches.
func (a *audit) list(ctx context.Context, query string) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		for page := []byte(nil); ; {
			answer, err := a.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: runsPage, NextPageToken: page})
			if err != nil {
				yield(run{}, err)
				return
			}
			for _, info := range answer.GetExecutions() {
				if !yield(a.runOf(info), nil) {
					return
				}
			}
			if page = answer.GetNextPageToken(); len(page) == 0 {
				return
			}
		}
	}
}

var errNoRun = errors.New("no run")

// describe returns a run, or without a run ID the current one. The error is errNoRun if there is
// none.
func (a *audit) describe(ctx context.Context, id, runID string) (run, error) {
	answer, err := a.Temporal.DescribeWorkflowExecution(ctx, id, runID)
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return run{}, errNoRun
	}
	if err != nil {
		return run{}, fmt.Errorf("ask Temporal for the run %s: %w", id, err)
	}
	return a.runOf(answer.GetWorkflowExecutionInfo()), nil
}

// starts returns the run IDs with which the Workflow ID was started. Resets and runs continued as
// new count with their first run.
func (a *audit) starts(ctx context.Context, id string) ([]string, error) {
	var firsts []string
	for listed, err := range a.list(ctx, fmt.Sprintf("WorkflowId = '%s'", id)) {
		if err != nil {
			return nil, fmt.Errorf("list the runs of %s: %w", id, err)
		}
		r, err := a.describe(ctx, id, listed.runID)
		switch {
		case errors.Is(err, errNoRun):
			continue // deleted meanwhile
		case err != nil:
			return nil, err
		case r.first == "":
			r.first = r.runID
		}
		if !slices.Contains(firsts, r.first) {
			firsts = append(firsts, r.first)
		}
	}
	return firsts, nil
}

// result returns the result of a completed run. unreadable is set if it cannot be decoded.
func (a *audit) result(ctx context.Context, r run) (result workflows.Result, unreadable, err error) {
	err = a.Temporal.GetWorkflow(ctx, r.id, r.runID).Get(ctx, &result)
	if err == nil {
		return result, nil, nil
	}
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return result, nil, errNoRun
	}
	// Other Workflows may have other results, or encrypted ones.
	for _, other := range []error{converter.ErrUnableToDecode, converter.ErrUnableToSetValue,
		converter.ErrEncodingIsNotSupported, converter.ErrEncodingIsNotSet, converter.ErrMetadataIsNotSet, converter.ErrTypeIsNotByteSlice} {
		if errors.Is(err, other) {
			return result, err, nil
		}
	}
	return result, nil, fmt.Errorf("read the result of %s: %w", r.id, err)
}
