package repair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/ledger"
)

// maxResets bounds the resets of a run that are followed back.
const maxResets = 50

// Bill returns the bill made by a run or by the run that it resets, or nil. MadeAt is when the
// Activity completed.
func Bill(ctx context.Context, t client.Client, data converter.DataConverter, workflowID, runID string) (*ledger.MadeBill, error) {
	var made *ledger.MadeBill
	err := results(ctx, t, data, workflowID, runID, "FinalizeBill", func(result *common.Payloads, at time.Time) error {
		var b ledger.Bill
		if err := data.FromPayloads(result, &b); err != nil {
			return err
		}
		made = &ledger.MadeBill{Bill: b, MadeAt: at.Truncate(time.Millisecond).UTC()}
		return nil
	})
	return made, err
}

// Adjustment returns the adjustment made by a run, or nil.
func Adjustment(ctx context.Context, t client.Client, data converter.DataConverter, workflowID, runID string) (*ledger.Adjustment, error) {
	var made *ledger.Adjustment
	err := results(ctx, t, data, workflowID, runID, "AdjustBill", func(result *common.Payloads, _ time.Time) error {
		var a struct {
			ledger.Adjustment
			Nothing bool `json:"nothing"`
		}
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

// localActivity is the name of the markers of local Activities, which run quick steps.
const localActivity = "LocalActivity"

// results reads the results of an Activity from the history of a run, or else of the run that it
// resets. A deleted run has none.
func results(ctx context.Context, t client.Client, data converter.DataConverter, workflowID, runID, activity string, read func(*common.Payloads, time.Time) error) error {
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
			var result *common.Payloads
			if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == activity {
				scheduled[e.GetEventId()] = true
			}
			if a := e.GetActivityTaskCompletedEventAttributes(); a != nil && scheduled[a.GetScheduledEventId()] {
				result = a.GetResult()
			}
			if a := e.GetMarkerRecordedEventAttributes(); a.GetMarkerName() == localActivity && a.GetFailure() == nil {
				var local struct{ ActivityType string }
				if data.FromPayloads(a.GetDetails()["data"], &local) == nil && local.ActivityType == activity {
					result = a.GetDetails()["result"]
				}
			}
			if result != nil {
				if err := read(result, e.GetEventTime().AsTime()); err != nil {
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
