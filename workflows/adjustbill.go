package workflows

import (
	"fmt"
	"strconv"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// AdjustBill makes one adjustment of a session's bill, as callbacks came after it.
func AdjustBill(ctx workflow.Context, a activities.Adjustment) (Result, error) {
	steps := Begin(ctx, a.Session)

	// The number is in the name, as each adjustment has an idempotency key of its own.
	RunWith(steps, Step{Name: "adjustment-" + strconv.Itoa(a.Number), Summary: "Adjust the session's bill"}, do.AdjustBill, a.Number)

	return steps.Finish()
}

// AdjustmentID is the ID of an adjustment's workflow,
// "bill-adjustment-<appid>-<room_session_id>-<number>".
func AdjustmentID(a activities.Adjustment) string {
	return fmt.Sprintf("bill-adjustment-%s-%d", a.Session.Key(), a.Number)
}

// AdjustOptions says how [AdjustBill] is started. At most one run of an adjustment
// is under way; but another may follow, as the first may have found nothing to
// adjust yet. There is one adjustment of a number whatever the number of runs.
func AdjustOptions(a activities.Adjustment, taskQueue string) client.StartWorkflowOptions {
	options := StartOptions(a.Session, taskQueue)
	options.ID = AdjustmentID(a)
	options.WorkflowIDReusePolicy = enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	options.StaticSummary = fmt.Sprintf("Adjustment %d of the bill of room %s", a.Number, code(clip(a.Session.RoomID, 80)))
	options.StaticDetails = "Something came after the bill. " + options.StaticDetails
	return options
}
