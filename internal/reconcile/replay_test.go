package reconcile_test

import (
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/internal/reconcile"
)

// A run that is under way when a new version is deployed is replayed by it.
func TestReplayRecordedRuns(t *testing.T) {
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(reconcile.Reconcile, workflow.RegisterOptions{Name: reconcile.Name})
	for _, file := range []string{"testdata/late_recordings.json"} {
		if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
