package workflows_test

import (
	"context"
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// Runs that are under way when a new version is deployed are replayed by it, so
// the workflows have to take every history that they ever made. A file is the
// JSON of a history, as `temporal workflow show --output json` prints it or the
// Web UI downloads it.
func TestReplayRecordedHistories(t *testing.T) {
	replay(t, workflows.RoomClose)
}

// A step that was added, and says so, leaves older runs alone.
func TestReplayWithAddedStep(t *testing.T) {
	replay(t, withAddedStep)
}

func withAddedStep(ctx workflow.Context, s activities.Session) (workflows.Result, error) {
	all := workflows.Begin(ctx, s)
	workflows.Run(all, workflows.Step{Name: "billing"}, steps.FinalizeBill)
	workflows.Run(all, workflows.Step{Name: "recordings"}, steps.ArchiveRecordings)
	workflows.Run(all, workflows.Step{Name: "crm", Added: true}, tellCRM)
	return all.Finish()
}

func tellCRM(context.Context, activities.Task) (string, error) { return "told", nil }

// New runs do have it.
func TestAddedStep(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	env.billingFails(0, nil)
	env.RegisterActivity(tellCRM)
	env.SetStartWorkflowOptions(env.options)
	env.ExecuteWorkflow(withAddedStep, session)
	var result workflows.Result
	if err := env.GetWorkflowResult(&result); err != nil {
		t.Fatal(err)
	}
	if len(result.Steps) != 3 || result.Steps[2].Summary != "told" || result.Steps[2].State != workflows.StateDone {
		t.Errorf("result %+v", result)
	}
}

func replay(t *testing.T, roomClose any) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no recorded histories")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			replayer := worker.NewWorkflowReplayer()
			replayer.RegisterWorkflowWithOptions(roomClose, workflow.RegisterOptions{Name: "RoomClose"})
			if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
				t.Error(err)
			}
		})
	}
}
