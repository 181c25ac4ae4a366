// Package actions counts the actions that Temporal Cloud bills.
package actions

import (
	"context"
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

// Of returns a run's actions as Temporal Cloud counts them
// (https://docs.temporal.io/cloud/actions), as far as the history shows them: the start,
// each timer, Activity, Signal, Update, child Workflow and upsert, and one for the local
// Activities of each Workflow Task. Of an Activity's retries the history has only the
// number of the last attempt.
func Of(ctx context.Context, temporal client.Client, id, run string) (n int64, err error) {
	marked := int64(0) // the Workflow Task whose local Activities are counted already
	for events := temporal.GetWorkflowHistory(ctx, id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		if err != nil {
			return 0, fmt.Errorf("history of %s: %w", id, err)
		}
		switch event.GetEventType() {
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, enums.EVENT_TYPE_TIMER_STARTED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
			enums.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES, enums.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
			enums.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED, enums.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED:
			n++
		case enums.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			n += int64(event.GetActivityTaskStartedEventAttributes().GetAttempt())
		case enums.EVENT_TYPE_MARKER_RECORDED:
			if task := event.GetMarkerRecordedEventAttributes().GetWorkflowTaskCompletedEventId(); task != marked {
				marked = task
				n++
			}
		}
	}
	return n, nil
}
