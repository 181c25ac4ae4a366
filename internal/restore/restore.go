// Package restore finds in Temporal what a ledger has lost: a run's history has the
// bill that it made, and the reconciliation's results say how far the ledger was.
package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
)

// Temporal is what is asked. A [client.Client] is one.
type Temporal interface {
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	GetWorkflow(ctx context.Context, workflowID, runID string) client.WorkflowRun
	Histories
}

// Histories has the histories of runs.
type Histories interface {
	GetWorkflowHistory(ctx context.Context, workflowID, runID string, isLongPoll bool, filter enums.HistoryEventFilterType) client.HistoryEventIterator
}

// maxResets is how many resets of a run are followed back.
const maxResets = 50

// Bill returns the bill that a run has made, or a run that it is a reset of; nil if
// none did. The bill was made when the activity reported it.
func Bill(ctx context.Context, t Histories, data converter.DataConverter, workflowID, runID string) (*ledger.MadeBill, error) {
	var made *ledger.MadeBill
	err := results(ctx, t, data, workflowID, runID, "FinalizeBill", func(result *common.Payloads, at time.Time) error {
		var b activities.Bill
		if err := data.FromPayloads(result, &b); err != nil {
			return err
		}
		made = &ledger.MadeBill{Bill: b.Bill, MadeAt: at.Truncate(time.Millisecond).UTC()}
		return nil
	})
	return made, err
}

// Adjustment returns the adjustment that a run has made; nil if it made none.
func Adjustment(ctx context.Context, t Histories, data converter.DataConverter, workflowID, runID string) (*ledger.Adjustment, error) {
	var made *ledger.Adjustment
	err := results(ctx, t, data, workflowID, runID, "AdjustBill", func(result *common.Payloads, _ time.Time) error {
		var a activities.Adjusted
		if err := data.FromPayloads(result, &a); err != nil {
			return err
		}
		if !a.Nothing {
			made = &a.Adjustment
		}
		return nil
	})
	return made, err
}

// localActivity is the name of the markers by which the SDK keeps what local Activities
// returned, as quick steps are.
const localActivity = "LocalActivity"

// results reads what an activity of a run returned, or else of the run that it is a
// reset of. A run that isn't kept any more has returned nothing.
func results(ctx context.Context, t Histories, data converter.DataConverter, workflowID, runID, activity string, read func(*common.Payloads, time.Time) error) error {
	for range maxResets {
		scheduled, base, found := map[int64]bool{}, "", false
		for events := t.GetWorkflowHistory(ctx, workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
			e, err := events.Next()
			if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the history of %s: %w", workflowID, err)
			}
			if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == activity {
				scheduled[e.GetEventId()] = true
			}
			if a := e.GetMarkerRecordedEventAttributes(); a.GetMarkerName() == localActivity && a.GetFailure() == nil {
				var local struct{ ActivityType string }
				if data.FromPayloads(a.GetDetails()["data"], &local) != nil || local.ActivityType != activity {
					continue
				}
				if err := read(a.GetDetails()["result"], e.GetEventTime().AsTime()); err != nil {
					return fmt.Errorf("read what %s of %s returned: %w", activity, workflowID, err)
				}
				found = true
			}
			if a := e.GetActivityTaskCompletedEventAttributes(); a != nil && scheduled[a.GetScheduledEventId()] {
				if err := read(a.GetResult(), e.GetEventTime().AsTime()); err != nil {
					return fmt.Errorf("read what %s of %s returned: %w", activity, workflowID, err)
				}
				found = true
			}
			if a := e.GetWorkflowTaskFailedEventAttributes(); a.GetCause() == enums.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW {
				base = a.GetBaseRunId()
			}
		}
		if found || base == "" || base == runID {
			return nil
		}
		runID = base
	}
	return nil
}

// Witness compares a ledger with what was noted of it in Temporal.
type Witness struct {
	// Temporal has the reconciliations of the task queue.
	Temporal  Temporal
	TaskQueue string
	// Ledger is the one that workers write to.
	Ledger *ledger.Ledger
	// Log gets what operators should know.
	Log *slog.Logger

	mu    sync.Mutex
	seen  ledger.Mark // the newest
	asked time.Time   // when Temporal was
}

// confirmFor is for how long Temporal isn't asked again ahead of a bill: this process
// knows itself what it has seen of the ledger since.
const confirmFor = 30 * time.Second

// recentRuns is how many reconciliations are asked for the last mark. One that failed
// ahead of its first page has none.
const recentRuns = 20

// Noted returns the newest mark of the ledger that a reconciliation has noted.
func (w *Witness) Noted(ctx context.Context) (noted ledger.Mark, err error) {
	answer, err := w.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: recentRuns,
		Query: fmt.Sprintf("WorkflowType = '%s' AND TaskQueue = '%s' AND ExecutionStatus IN ('Completed', 'Failed')", reconcile.Name, strings.ReplaceAll(w.TaskQueue, "'", "''"))})
	if err != nil {
		return noted, fmt.Errorf("list the last reconciliations: %w", err)
	}
	runs := answer.GetExecutions()
	slices.SortFunc(runs, func(a, b *workflow.WorkflowExecutionInfo) int {
		return b.GetCloseTime().AsTime().Compare(a.GetCloseTime().AsTime())
	})
	for _, run := range runs {
		var result reconcile.Result
		err := w.Temporal.GetWorkflow(ctx, run.GetExecution().GetWorkflowId(), run.GetExecution().GetRunId()).
			GetWithOptions(ctx, &result, client.WorkflowRunGetOptions{DisableFollowingRuns: true})
		failed, missing := new(temporal.ApplicationError), new(serviceerror.NotFound)
		switch {
		case errors.As(err, &failed):
			if !failed.HasDetails() || failed.Details(&result) != nil {
				continue
			}
		case errors.As(err, &missing):
			continue
		case err != nil:
			return noted, fmt.Errorf("read what a reconciliation noted: %w", err)
		}
		if result.Mark.Number > 0 {
			return result.Mark, nil
		}
	}
	return noted, nil
}

// Lost returns what the ledger has lost since the last mark that was noted; nil if it
// has lost nothing. It changes nothing.
func (w *Witness) Lost(ctx context.Context) (*ledger.Loss, error) {
	noted, err := w.Noted(ctx)
	if err != nil {
		return nil, err
	}
	own, err := w.Ledger.Mark(ctx)
	if err != nil || own.Number >= noted.Number {
		return nil, err
	}
	return &ledger.Loss{From: own.At, To: time.Now().UTC()}, nil
}

// Confirm makes sure that what the ledger has lost is noted in it, ahead of a bill.
func (w *Witness) Confirm(ctx context.Context) error {
	own, err := w.Ledger.Mark(ctx)
	if err != nil {
		return err
	}
	if err := w.see(ctx, own, confirmFor); err != nil {
		return err
	}
	if w.newest().Number <= own.Number {
		return nil
	}
	_, err = w.set(ctx)
	return err
}

// Mark makes the ledger's next mark, for a reconciliation to note.
func (w *Witness) Mark(ctx context.Context) (ledger.Mark, error) {
	if err := w.see(ctx, ledger.Mark{}, 0); err != nil {
		return ledger.Mark{}, err
	}
	return w.set(ctx)
}

// see takes note of a mark, and of what Temporal has noted unless it was asked within
// that time.
func (w *Witness) see(ctx context.Context, own ledger.Mark, within time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.asked) >= within {
		noted, err := w.Noted(ctx)
		if err != nil {
			return err
		}
		w.asked = time.Now()
		w.seen = later(w.seen, noted)
	}
	w.seen = later(w.seen, own)
	return nil
}

func (w *Witness) newest() ledger.Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func (w *Witness) set(ctx context.Context) (ledger.Mark, error) {
	mark, loss, err := w.Ledger.SetMark(ctx, w.newest())
	if loss != nil {
		w.Log.Error("the ledger was restored from a copy and has lost what it was told; see docs/operations.md, and run closeout repair", "from", loss.From, "to", loss.To)
	}
	return mark, err
}

func later(a, b ledger.Mark) ledger.Mark {
	if b.Number > a.Number {
		return b
	}
	return a
}
