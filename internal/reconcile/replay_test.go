package reconcile_test

import (
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/internal/reconcile"
)

// A new version must be able to replay runs that an older one started.
func TestReplayRecordedRuns(t *testing.T) {
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(reconcile.Reconcile, workflow.RegisterOptions{Name: reconcile.Name})
	for _, file := range []string{"testdata/late_recordings.json"} {
		if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
