// Package restore finds in Temporal what a ledger has lost: a run's history has the
// bill that it made.
package restore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/workflows"
)

// Temporal is what is asked. A [client.Client] is one.
type Temporal interface {
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
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

// Witness finds out whether a ledger was restored from a copy: by the looks that this
// process has seen, and by bills that runs have made and the ledger doesn't have.
type Witness struct {
	// Temporal has the runs of the task queue.
	Temporal  Temporal
	TaskQueue string
	// Data reads what Activities returned.
	Data converter.DataConverter
	// Ledger is the one that workers write to.
	Ledger *ledger.Ledger
	// Log gets what operators should know.
	Log *slog.Logger

	mu    sync.Mutex
	seen  int64     // the newest look
	asked time.Time // when Temporal was asked
}

const (
	// confirmFor is for how long Temporal isn't asked again ahead of a bill.
	confirmFor = 30 * time.Second
	// recentRuns is how many runs are compared with the ledger.
	recentRuns = 20
)

// Lost returns what the ledger has lost and doesn't know of; nil if it has lost
// nothing. It changes nothing.
func (w *Witness) Lost(ctx context.Context) (*ledger.Loss, error) {
	_, loss, err := w.lost(ctx, 0)
	return loss, err
}

// Confirm makes sure that what the ledger has lost is stored in it, ahead of a bill.
func (w *Witness) Confirm(ctx context.Context) error { return w.confirm(ctx, confirmFor) }

// ConfirmLook is [Witness.Confirm] ahead of a look. It asks Temporal only once, as the
// process starts: an idle worker asks it nothing.
func (w *Witness) ConfirmLook(ctx context.Context) error { return w.confirm(ctx, math.MaxInt64) }

func (w *Witness) confirm(ctx context.Context, within time.Duration) error {
	last, loss, err := w.lost(ctx, within)
	if err != nil || loss == nil {
		return err
	}
	w.mu.Lock()
	seen := w.seen
	w.mu.Unlock()
	if loss, err = w.Ledger.NoteLoss(ctx, last, loss.From, seen); err != nil || loss == nil {
		return err
	}
	w.Log.Error("ledger was restored from a copy and has lost callbacks; see docs/operations.md, and run closeout repair", "from", loss.From, "to", loss.To)
	return nil
}

// lost compares the ledger with what this process has seen, and with Temporal unless it
// was asked within that time.
func (w *Witness) lost(ctx context.Context, within time.Duration) (last ledger.Look, loss *ledger.Loss, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, err = w.Ledger.LastLook(ctx); err != nil {
		return last, nil, err
	}
	if last.Number < w.seen {
		return last, &ledger.Loss{From: last.At, To: time.Now().UTC()}, nil
	}
	w.seen = last.Number
	if !w.asked.IsZero() && time.Since(w.asked) < within {
		return last, nil, nil
	}
	missing, err := w.missing(ctx)
	if err != nil {
		return last, nil, err
	}
	w.asked = time.Now()
	if missing == nil {
		return last, nil, nil
	}
	loss = &ledger.Loss{From: last.At, To: time.Now().UTC()}
	if missing.MadeAt.Before(loss.From) { // somebody has looked since it was restored
		loss.From = missing.MadeAt
	}
	return last, loss, nil
}

// missing returns a bill that one of the last runs has made and the ledger doesn't
// have, unless it is known to be lost.
func (w *Witness) missing(ctx context.Context) (first *ledger.MadeBill, err error) {
	answer, err := w.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: recentRuns,
		Query: fmt.Sprintf("TaskQueue = '%s' AND ExecutionStatus = 'Completed' AND WorkflowId STARTS_WITH '%s'",
			strings.ReplaceAll(w.TaskQueue, "'", "''"), strings.TrimSuffix(workflows.WorkflowID(activities.Session{}), "0-0"))})
	if err != nil {
		return nil, fmt.Errorf("list the last runs: %w", err)
	}
	losses, err := w.Ledger.Losses(ctx)
	if err != nil {
		return nil, err
	}
	for _, run := range answer.GetExecutions() {
		id := run.GetExecution().GetWorkflowId()
		app, session, err := workflows.ParseWorkflowID(id)
		if err != nil {
			continue // somebody else's
		}
		if _, err := w.Ledger.Bill(ctx, app, session); !errors.Is(err, sql.ErrNoRows) {
			if err != nil {
				return nil, err
			}
			continue
		}
		made, err := Bill(ctx, w.Temporal, w.Data, id, run.GetExecution().GetRunId())
		if err != nil {
			return nil, err
		}
		known := func(l ledger.Loss) bool { return made.MadeAt.Before(l.To) }
		if made != nil && !slices.ContainsFunc(losses, known) && (first == nil || made.MadeAt.Before(first.MadeAt)) {
			first = made
		}
	}
	return first, nil
}
