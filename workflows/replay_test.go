package workflows_test

import (
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// A new version replays the runs that are open when it is deployed, so every recorded
// history must still replay.
func TestReplayRecordedHistories(t *testing.T) {
	closeouttest.Replay(t, "testdata", workflows.All()...)
}

func TestReplayAdjustmentsAndLateRecordings(t *testing.T) {
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(workflows.AdjustBill(func(session.Session) workflows.Workflow { return workflows.RoomClose }), workflow.RegisterOptions{Name: workflows.AdjustBillName})
	replayer.RegisterWorkflow(workflows.LateRecordings)
	for _, file := range []string{"testdata/adjustbill/adjusted.json", "testdata/laterecordings/added.json"} {
		if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
