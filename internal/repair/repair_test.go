package repair_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
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
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/session"
)

// temporalOf is a Temporal client with histories, by run ID, and the last completed runs.
type temporalOf struct {
	client.Client
	histories map[string][]*history.HistoryEvent
	runs      []run
	fail      error
	asked     int
}

type run struct{ workflowID, runID string }

func (f *temporalOf) ListWorkflow(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.asked++
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	for _, r := range f.runs {
		answer.Executions = append(answer.Executions, &workflow.WorkflowExecutionInfo{Execution: &common.WorkflowExecution{WorkflowId: r.workflowID, RunId: r.runID}})
	}
	return answer, f.fail
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

// A bill is found in the history of the run that made it, whether an Activity or a local Activity
// returned it. After a reset, it is found in the history of the run before.
func TestABillIsFoundInTheHistoryOfItsRun(t *testing.T) {
	want := ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, RoomCloseTime: time.UnixMilli(1e12).UTC()}}
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
		b, err := repair.Bill(t.Context(), f, converter.GetDefaultDataConverter(), "room-close-1-2", run)
		if err != nil || (b != nil) != found || found && (b.Bill != want || !b.MadeAt.Equal(at)) {
			t.Errorf("%s: found %+v, %v", run, b, err)
		}
	}
}

// The loss is stored before a bill is made, whether the ledger is restored under a running worker
// or while none runs.
func TestLossIsStoredBeforeABill(t *testing.T) {
	made := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	of := func(number uint64) ledger.Bill {
		return ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", RoomCloseTime: made}}
	}
	billed := func(number uint64) []*history.HistoryEvent {
		return []*history.HistoryEvent{{EventTime: timestamppb.New(made), Attributes: &history.HistoryEvent_MarkerRecordedEventAttributes{
			MarkerRecordedEventAttributes: &history.MarkerRecordedEventAttributes{MarkerName: "LocalActivity", Details: map[string]*common.Payloads{
				"data": payloads(t, map[string]any{"ActivityType": "FinalizeBill"}), "result": payloads(t, of(number))}}}}}
	}
	histories := map[string][]*history.HistoryEvent{"one": billed(1), "two": billed(2), "skipped": {}}
	for name, tt := range map[string]struct {
		runs  []run
		bills []uint64 // in the ledger
		lost  bool
	}{
		"no run yet":                           {},
		"the ledger has the bill":              {[]run{{"room-close-1-1", "one"}}, []uint64{1}, false},
		"the ledger has more":                  {[]run{{"room-close-1-1", "one"}}, []uint64{1, 2}, false},
		"the ledger lacks a bill":              {[]run{{"room-close-1-2", "two"}, {"room-close-1-1", "one"}}, []uint64{1}, true},
		"the ledger is empty":                  {[]run{{"room-close-1-1", "one"}}, nil, true},
		"the last run made none":               {[]run{{"room-close-1-3", "skipped"}}, nil, false},
		"the last run made none, one did":      {[]run{{"room-close-1-3", "skipped"}, {"room-close-1-1", "one"}}, nil, true},
		"the last run isn't kept any more":     {[]run{{"room-close-1-3", "gone"}, {"room-close-1-1", "one"}}, nil, true},
		"the last run is of another program's": {[]run{{"room-close-x", "one"}}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			books := open(t)
			for _, number := range tt.bills {
				if _, _, err := books.Finalize(t.Context(), of(number)); err != nil {
					t.Fatal(err)
				}
			}
			w := witness(books, &temporalOf{runs: tt.runs, histories: histories})
			if lost, err := w.Lost(t.Context()); err != nil || (lost != nil) != tt.lost {
				t.Errorf("lost %v, %v", lost, err)
			}
			for range 2 { // the loss is stored once, also if another worker starts later
				w = witness(books, &temporalOf{runs: tt.runs, histories: histories})
				if err := w.Confirm(t.Context()); err != nil {
					t.Fatal(err)
				}
				if all, err := books.Losses(t.Context()); err != nil || (len(all) == 1) != tt.lost || len(all) > 1 || tt.lost && all[0].From.After(made) {
					t.Errorf("losses %v, %v", all, err)
				}
			}
		})
	}
	t.Run("under a worker that goes on", func(t *testing.T) {
		before, after := open(t), open(t) // the copy is one look behind
		temporal := &temporalOf{}
		w := witness(before, temporal)
		for n, books := range []*ledger.Ledger{before, before, after} {
			if mine, err := books.TakeLook(t.Context(), time.Now().Add(time.Duration(n)*time.Hour), time.Minute); err != nil || !mine {
				t.Fatal(mine, err)
			}
		}
		if err := w.ConfirmLook(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Ledger = after
		for range 2 {
			if err := w.ConfirmLook(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := after.Losses(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("losses %v, %v", all, err)
		}
		if temporal.asked != 1 {
			t.Errorf("an idle worker asks Temporal %d times", temporal.asked)
		}
	})
	away := errors.New("away")
	if err := witness(open(t), &temporalOf{fail: away}).Confirm(t.Context()); !errors.Is(err, away) {
		t.Errorf("without Temporal's answer: %v", err)
	}
}

func open(t *testing.T) *ledger.Ledger {
	t.Helper()
	books, err := ledger.Open("sqlite:" + filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() })
	return books
}

func witness(books *ledger.Ledger, temporal client.Client) *repair.Witness {
	return &repair.Witness{Temporal: temporal, TaskQueue: "q", Data: converter.GetDefaultDataConverter(), Ledger: books, Log: slog.New(slog.DiscardHandler)}
}

// A restored copy is noticed because it lacks a look that the file has. That works across restarts,
// and if a worker without the file looks first.
func TestRestoredLedgerIsNoticedByAnEarlierLook(t *testing.T) {
	for name, first := range map[string]string{"the one that remembers looks first": "", "a worker without a memory looks first": "worker"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			database, copied := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "copy.db")
			file := filepath.Join(dir, "data", "look.json")
			use := func(do func(*ledger.Ledger)) {
				t.Helper()
				books, err := ledger.Open("sqlite:" + database)
				if err != nil {
					t.Fatal(err)
				}
				do(books)
				if err := books.Close(); err != nil {
					t.Fatal(err)
				}
			}
			remembering := func(books *ledger.Ledger) *repair.Witness {
				return &repair.Witness{Ledger: books, File: file, Log: slog.New(slog.DiscardHandler)}
			}
			watch := func(books *ledger.Ledger, until func() bool) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var watching sync.WaitGroup
				watching.Go(func() { remembering(books).Watch(ctx, time.Millisecond) })
				for !until() && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				if ctx.Err() != nil {
					t.Error("timed out")
				}
				cancel()
				watching.Wait()
			}
			number := func(books *ledger.Ledger) int64 {
				look, err := books.LastLook(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return look.Number
			}
			losses := func(books *ledger.Ledger) []ledger.Loss {
				all, err := books.Losses(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return all
			}
			use(func(books *ledger.Ledger) {
				if err := books.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
				watch(books, func() bool { return number(books) > 2 })
			})
			content, err := os.ReadFile(database)
			if err == nil {
				err = os.WriteFile(copied, content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			made := time.Now()
			use(func(books *ledger.Ledger) {
				before := number(books)
				watch(books, func() bool { return number(books) > before }) // one look is enough
				if n := len(losses(books)); n > 0 {
					t.Errorf("%d losses without a copy", n)
				}
			})
			if err := os.Rename(copied, database); err != nil {
				t.Fatal(err)
			}
			use(func(books *ledger.Ledger) {
				if first == "worker" {
					if mine, err := books.TakeLook(t.Context(), time.Now().Add(time.Second), time.Minute); err != nil || !mine {
						t.Fatal(mine, err)
					}
				}
				watch(books, func() bool { return len(losses(books)) > 0 })
				before := number(books)
				watch(books, func() bool { return number(books) > before+3 })
				if all := losses(books); len(all) != 1 || all[0].From.After(made) || all[0].To.Before(made) {
					t.Errorf("lost %v, the copy was made at %v", all, made)
				}
			})
		})
	}
}
