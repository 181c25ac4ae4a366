package workflows

import (
	"fmt"
	"strconv"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// AdjustBillName is the Workflow type of [AdjustBill].
const AdjustBillName = "AdjustBill"

// AdjustBill returns the Workflow that adjusts a session's bill for callbacks that arrived
// after billing. If there is something to adjust, it then runs the steps with
// [Step.Adjusts] of the session's own Workflow, which workflowFor returns.
func AdjustBill(workflowFor func(session.Session) Workflow) func(workflow.Context, activities.Adjustment) (Result, error) {
	return func(ctx workflow.Context, a activities.Adjustment) (Result, error) {
		run := Begin(ctx, a.Session)

		// The number gives each adjustment an idempotency key of its own.
		adjusted, err := StartWith(run, Step{Name: "adjustment-" + strconv.Itoa(a.Number), Summary: "Adjust the bill", Quick: true},
			activities.Standard.AdjustBill, a.Number).Wait()
		if err != nil || adjusted.Nothing {
			return run.Finish()
		}
		run.adjusted = &adjusted
		return workflowFor(a.Session)(workflow.WithValue(ctx, runKey{}, run), a.Session)
	}
}

// runKey is the key of the [Run] that [Begin] continues.
type runKey struct{}

const adjustmentIDPrefix = "bill-adjustment-"

// AdjustmentID returns the Workflow ID of an adjustment,
// "bill-adjustment-<appid>-<room_session_id>-<number>".
func AdjustmentID(a activities.Adjustment) string {
	return fmt.Sprintf("%s%s-%d", adjustmentIDPrefix, a.Session.String(), a.Number)
}

// AdjustOptions returns the options that start [AdjustBill]. An adjustment has at most
// one open run. If that run found nothing to adjust, another run may follow. The ledger
// keeps one adjustment of each number.
func AdjustOptions(a activities.Adjustment, taskQueue string) client.StartWorkflowOptions {
	return againOptions(a.Session, taskQueue, AdjustmentID(a), fmt.Sprintf("Adjustment %d of the bill", a.Number))
}

// againOptions returns the options that start a run for a session after its own run. At most
// one with the ID is open, and another may follow.
func againOptions(s session.Session, taskQueue, id, what string) client.StartWorkflowOptions {
	options := StartOptions(s, taskQueue)
	options.ID, options.StartDelay = id, 0
	options.WorkflowIDReusePolicy = enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	options.StaticSummary = summary("%s of room %s", what, code(clip(s.RoomID, 80)))
	return options
}
