package workflows_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// CRM has a step to add to RoomClose.
type CRM struct{}

// Notify reports the closed room to the CRM.
func (*CRM) Notify(context.Context, activities.Task) (string, error) { return "told", nil }

var crm *CRM

// The changes of RoomClose in docs/changing-workflows.md. Each is made twice: naively, as
// if there were no open runs, and so that open runs continue as they began.

func withCRMNaively(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Step{Name: "crm"}, crm.Notify)
	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	return run.Finish()
}

func withCRM(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Step{Name: "crm", AddedLater: true}, crm.Notify)
	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	return run.Finish()
}

func withoutRecordingsNaively(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)

	return run.Finish()
}

func withoutRecordings(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	if workflow.GetVersion(ctx, "no recordings", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	}

	return run.Finish()
}

func recordingsFirstNaively(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	workflows.Start(run, workflows.Step{Name: "billing", Quick: true, After: []workflows.Dependency{recordings}}, activities.Standard.FinalizeBill)

	return run.Finish()
}

func recordingsFirst(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	if workflow.GetVersion(ctx, "recordings first", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
		workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	} else {
		recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
		workflows.Start(run, workflows.Step{Name: "billing", Quick: true, After: []workflows.Dependency{recordings}}, activities.Standard.FinalizeBill)
	}

	return run.Finish()
}

// All recorded runs of RoomClose, including a blocked one, can continue after a change, and
// new runs have the change. After a naive change, no recorded run can.
func TestChangeWhileRunsAreUnderWay(t *testing.T) {
	if !strings.Contains(strings.Join(histories(t), " "), "roomclose_blocked.json") {
		t.Fatal("there is no history of a run that is blocked")
	}
	for _, tt := range []struct {
		name             string
		naively, changed workflows.Workflow
		newRuns          string
	}{
		{"a step is added before the others", withCRMNaively, withCRM, "crm done, billing done, recordings given_up"},
		{"a step is removed", withoutRecordingsNaively, withoutRecordings, "billing done"},
		{"a step comes after another", recordingsFirstNaively, recordingsFirst, "recordings given_up, billing skipped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, file := range histories(t) {
				if err := replay(file, tt.naively); err == nil || !strings.Contains(err.Error(), nondeterminism) {
					t.Errorf("%s, changed naively: %v", file, err)
				}
				if err := replay(file, tt.changed); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
			env := closeouttest.NewEnv(t, &CRM{})
			// Steps after this one don't start.
			env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(activities.Archived{}, activities.GiveUpf("nothing was recorded")).Maybe()
			if got := ends(env.Run(tt.changed, closed)); got != tt.newRuns {
				t.Errorf("a new run ended as %s, want %s", got, tt.newRuns)
			}
		})
	}
}

// A replay ignores summaries and timeouts of steps.
func TestChangesThatReplayIgnores(t *testing.T) {
	otherLimits := func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, closed)
		workflows.Start(run, workflows.Step{Name: "billing", Summary: "Bill it", Timeout: time.Hour, AttemptTimeout: time.Second, Quick: true}, activities.Standard.FinalizeBill)
		workflows.Start(run, workflows.Step{Name: "recordings", HeartbeatTimeout: time.Second, Quick: true}, activities.Standard.ArchiveRecordings)
		return run.Finish()
	}
	for _, file := range histories(t) {
		if err := replay(file, otherLimits); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A replay ignores names of steps too. But with another name a step has another idempotency
// key, and would repeat its effect.
func TestReplayIgnoresANewName(t *testing.T) {
	renamed := func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, closed)
		workflows.Start(run, workflows.Step{Name: "bill", Quick: true}, activities.Standard.FinalizeBill)
		workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
		return run.Finish()
	}
	if err := replay("testdata/roomclose_blocked.json", renamed); err != nil {
		t.Errorf("it is seen: %v; say so in docs/changing-workflows.md", err)
	}
	if closed.IdempotencyKey("billing") == closed.IdempotencyKey("bill") {
		t.Error("two steps have one key")
	}
}

// The Go code in the documentation is copied from these tests.
func TestDocumentedChangesAreTested(t *testing.T) {
	lines := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var trimmed []string
		for line := range strings.Lines(string(b)) {
			trimmed = append(trimmed, strings.TrimSpace(line))
		}
		return strings.Join(trimmed, "\n")
	}
	tested := lines("change_test.go") + lines("replay_test.go")
	blocks := strings.Split(lines("../docs/changing-workflows.md"), "\n```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("no code")
	}
	for _, block := range blocks {
		if code, _, _ := strings.Cut(block, "\n```"); !strings.Contains(tested, code) {
			t.Errorf("in no test:\n%s", code)
		}
	}
}

// nondeterminism is Temporal's code for the error of a replay that differs.
const nondeterminism = "[TMPRL1100]"

// histories returns the files of the recorded histories.
func histories(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("histories %q, %v", files, err)
	}
	return files
}

// replay replays a history of RoomClose on a changed Workflow. Unlike [closeouttest.Replay]
// it returns the error.
func replay(file string, changed workflows.Workflow) error {
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(changed, workflow.RegisterOptions{Name: "RoomClose"})
	return replayer.ReplayWorkflowHistoryFromJSONFile(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)), file)
}
