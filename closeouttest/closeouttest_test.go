package closeouttest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

func TestRoomCloseVerifiesAndParses(t *testing.T) {
	c := RoomClose(func(c *zego.RoomClose) { c.RoomID, c.Nonce = "live-1", "of-the-test" })
	r := Request(c)
	body := make([]byte, r.ContentLength)
	if _, err := r.Body.Read(body); err != nil || r.Method != http.MethodPost {
		t.Fatal(r.Method, err)
	}
	event, err := zego.Parse(r.Header.Get("Content-Type"), body)
	if err != nil {
		t.Fatal(err)
	}
	if err := Keyring().Verify(event.Head()); err != nil {
		t.Error(err)
	}
	parsed, ok := event.(*zego.RoomClose)
	if !ok || session.Of(parsed) != session.Of(c) || parsed.RoomID != "live-1" || parsed.Nonce != "of-the-test" {
		t.Errorf("parsed %+v, made %+v", event, c)
	}
	if other := RoomClose(); other.RoomSessionID == c.RoomSessionID {
		t.Error("two calls gave one session")
	}
}

// The test's own mocks take precedence over MockStandard.
func TestStandardStepsCanBeMocked(t *testing.T) {
	env := NewEnv(t)
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(activities.Bill{}, activities.GiveUpf("free of charge"))
	if r := env.Run(workflows.RoomClose, Session()); r.State != workflows.StateGivenUp || r.Steps[0].Failure != "free of charge" || r.Steps[1].State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
}

// recorder is a testing.TB for a test that is expected to fail.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = format
	panic(r)
}

// ended runs f, which may call Fatalf.
func (r *recorder) ended(f func()) {
	defer func() {
		if fault := recover(); fault != nil && fault != any(r) {
			panic(fault)
		}
	}()
	f()
}

func TestFailedRunFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	r.ended(func() {
		NewEnv(r).Run(func(workflow.Context, session.Session) (workflows.Result, error) {
			return workflows.Result{}, errors.New("no")
		}, Session())
	})
	if r.failure == "" {
		t.Error("it passed")
	}
}

// changed has a RoomClose with its steps in the other order.
type changed struct{}

func (changed) RoomClose(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	return run.Finish()
}

// renamed has a RoomClose with another name for a step.
type renamed struct{}

func (renamed) RoomClose(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "bill", Quick: true}, activities.Standard.FinalizeBill)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	return run.Finish()
}

func another(context.Context, activities.Task) (string, error) { return "", nil }

func (changed) CloseShow(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "another"}, another)
	return run.Finish()
}

func TestReplayFindsIncompatibleChanges(t *testing.T) {
	recorded := filepath.Join("..", "workflows", "testdata", "roomclose_completed.json")
	retried := filepath.Join("..", "workflows", "testdata", "roomclose_retried.json")
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, []byte(`{"events": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file string
		workflows  []workflows.Workflow
		want       string
	}{
		{"unchanged", recorded, []workflows.Workflow{changed{}.CloseShow, workflows.RoomClose}, ""},
		{"changed", recorded, []workflows.Workflow{changed{}.RoomClose}, "open runs of RoomClose could not continue"},
		{"a quick step renamed", recorded, []workflows.Workflow{renamed{}.RoomClose}, "step billing has another idempotency key"},
		{"a step renamed", retried, []workflows.Workflow{renamed{}.RoomClose}, "the step that runs FinalizeBill has another idempotency key"},
		{"removed", recorded, []workflows.Workflow{changed{}.CloseShow}, `history of Workflow "RoomClose", which is not listed`},
		{"no events", empty, nil, "it has no events"},
		{"no file", "none.json", nil, "read a history"},
		{"no history", "replay.go", nil, "no history"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := replay(tt.file, tt.workflows)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestReplayRequiresAHistoryOfEachWorkflow(t *testing.T) {
	got := unrecorded([]workflows.Workflow{workflows.RoomClose, changed{}.CloseShow}, []string{"RoomClose"})
	if !slices.Equal(got, []string{"CloseShow"}) {
		t.Errorf("%v lack a history", got)
	}
}
