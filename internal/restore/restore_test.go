package restore_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/restore"
)

// temporalOf is a Temporal with histories, by run ID, and the last reconciliations.
type temporalOf struct {
	histories map[string][]*history.HistoryEvent
	runs      []func(result any) error
	fail      error
}

func (f *temporalOf) ListWorkflow(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	for i := range f.runs {
		answer.Executions = append(answer.Executions, &workflow.WorkflowExecutionInfo{
			Execution: &common.WorkflowExecution{RunId: string(rune('a' + i))}, CloseTime: timestamppb.New(time.UnixMilli(1e12).Add(-time.Duration(i) * time.Minute))})
	}
	return answer, f.fail
}

func (f *temporalOf) GetWorkflow(_ context.Context, _, runID string) client.WorkflowRun {
	return outcome{get: f.runs[runID[0]-'a']}
}

type outcome struct {
	client.WorkflowRun
	get func(any) error
}

func (o outcome) GetWithOptions(_ context.Context, result any, _ client.WorkflowRunGetOptions) error {
	return o.get(result)
}

func (f *temporalOf) GetWorkflowHistory(_ context.Context, _, runID string, _ bool, _ enums.HistoryEventFilterType) client.HistoryEventIterator {
	events, kept := f.histories[runID]
	return &iterator{events, !kept}
}

type iterator struct {
	left    []*history.HistoryEvent
	missing bool
}

func (i *iterator) HasNext() bool { return i.missing || len(i.left) > 0 }

func (i *iterator) Next() (*history.HistoryEvent, error) {
	if i.missing {
		return nil, serviceerror.NewNotFound("not kept")
	}
	next := i.left[0]
	i.left = i.left[1:]
	return next, nil
}

func payloads(t *testing.T, v any) *common.Payloads {
	t.Helper()
	p, err := converter.GetDefaultDataConverter().ToPayloads(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A bill is in the history of the run that made it, be it an Activity's result or a
// local Activity's, and of a run that was reset in that of the run before.
func TestABillIsFoundInTheHistoryOfItsRun(t *testing.T) {
	want := activities.Bill{Bill: ledger.Bill{ID: uuid.New(), AppID: 1, RoomSessionID: 1<<64 - 1, RoomCloseTime: time.UnixMilli(1e12).UTC()}}
	at := time.UnixMilli(1e12 + 5)
	scheduled := func(id int64, name string) *history.HistoryEvent {
		return &history.HistoryEvent{EventId: id, Attributes: &history.HistoryEvent_ActivityTaskScheduledEventAttributes{
			ActivityTaskScheduledEventAttributes: &history.ActivityTaskScheduledEventAttributes{ActivityType: &common.ActivityType{Name: name}}}}
	}
	completed := func(id int64, result any) *history.HistoryEvent {
		return &history.HistoryEvent{EventTime: timestamppb.New(at), Attributes: &history.HistoryEvent_ActivityTaskCompletedEventAttributes{
			ActivityTaskCompletedEventAttributes: &history.ActivityTaskCompletedEventAttributes{ScheduledEventId: id, Result: payloads(t, result)}}}
	}
	local := func(name string, result any) *history.HistoryEvent {
		m := &history.MarkerRecordedEventAttributes{MarkerName: "LocalActivity", Details: map[string]*common.Payloads{
			"data": payloads(t, map[string]any{"ActivityID": "1", "ActivityType": name}), "result": payloads(t, result)}}
		return &history.HistoryEvent{EventTime: timestamppb.New(at), Attributes: &history.HistoryEvent_MarkerRecordedEventAttributes{MarkerRecordedEventAttributes: m}}
	}
	reset := func(base string) *history.HistoryEvent {
		return &history.HistoryEvent{Attributes: &history.HistoryEvent_WorkflowTaskFailedEventAttributes{WorkflowTaskFailedEventAttributes: &history.WorkflowTaskFailedEventAttributes{
			Cause: enums.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW, BaseRunId: base}}}
	}
	f := &temporalOf{histories: map[string][]*history.HistoryEvent{
		"activity": {scheduled(5, "ArchiveRecordings"), scheduled(6, "FinalizeBill"), completed(5, "x"), completed(6, want)},
		"local":    {local("ArchiveRecordings", "x"), local("FinalizeBill", want)},
		"reset":    {reset("local")},
		"twice":    {reset("reset")},
		"none":     {scheduled(6, "FinalizeBill")},
		"orphan":   {reset("not kept")},
		"itself":   {reset("itself")},
	}}
	for run, found := range map[string]bool{"activity": true, "local": true, "reset": true, "twice": true, "none": false, "orphan": false, "itself": false, "not kept": false} {
		b, err := restore.Bill(t.Context(), f, converter.GetDefaultDataConverter(), "room-close-1-2", run)
		if err != nil || (b != nil) != found || found && (b.Bill != want.Bill || !b.MadeAt.Equal(at)) {
			t.Errorf("%s: found %+v, %v", run, b, err)
		}
	}
}

// A ledger is restored under a worker that goes on, or while none runs: in both cases
// the loss is noted in it before a bill is made.
func TestALossIsNotedAheadOfABill(t *testing.T) {
	notes := func(number int64) func(any) error {
		return func(result any) error { result.(*reconcile.Result).Mark.Number = number; return nil }
	}
	failed := func(number int64) func(any) error {
		return func(any) error {
			r := reconcile.Result{}
			r.Mark.Number = number
			return temporal.NewApplicationErrorWithOptions("incomplete", "Incomplete", temporal.ApplicationErrorOptions{Details: []any{r}})
		}
	}
	for name, tt := range map[string]struct {
		runs []func(any) error
		own  int // marks that the ledger has
		lost bool
	}{
		"no reconciliation yet":               {nil, 0, false},
		"the ledger is as far":                {[]func(any) error{notes(2)}, 2, false},
		"the ledger is further":               {[]func(any) error{notes(1)}, 3, false},
		"the ledger is older":                 {[]func(any) error{notes(7)}, 2, true},
		"the ledger is empty":                 {[]func(any) error{notes(1)}, 0, true},
		"the last one noted nothing":          {[]func(any) error{notes(0), notes(7)}, 2, true},
		"the last one failed, and noted it":   {[]func(any) error{failed(7)}, 2, true},
		"the last one isn't kept any more":    {[]func(any) error{func(any) error { return serviceerror.NewNotFound("") }, notes(7)}, 2, true},
		"the last one failed without details": {[]func(any) error{func(any) error { return temporal.NewApplicationError("x", "y") }, notes(7)}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			books, err := ledger.Open("sqlite:" + filepath.Join(t.TempDir(), "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer books.Close()
			for range tt.own {
				if _, _, err := books.SetMark(t.Context(), ledger.Mark{}); err != nil {
					t.Fatal(err)
				}
			}
			w := &restore.Witness{Temporal: &temporalOf{runs: tt.runs}, TaskQueue: "q", Ledger: books, Log: slog.New(slog.DiscardHandler)}
			if lost, err := w.Lost(t.Context()); err != nil || (lost != nil) != tt.lost {
				t.Errorf("lost %v, %v", lost, err)
			}
			for range 2 { // noted once
				if err := w.Confirm(t.Context()); err != nil {
					t.Fatal(err)
				}
				if all, err := books.Losses(t.Context()); err != nil || (len(all) == 1) != tt.lost || len(all) > 1 {
					t.Errorf("losses %v, %v", all, err)
				}
			}
		})
	}
	books, err := ledger.Open("sqlite:" + filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	away := errors.New("away")
	w := &restore.Witness{Temporal: &temporalOf{fail: away}, TaskQueue: "q", Ledger: books, Log: slog.New(slog.DiscardHandler)}
	if err := w.Confirm(t.Context()); !errors.Is(err, away) {
		t.Errorf("nobody knows, and a bill is made: %v", err)
	}
}
