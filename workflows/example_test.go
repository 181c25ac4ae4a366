package workflows_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Support has the steps after a support call.
type Support struct{}

// Transcribe returns a transcript of the call.
func (*Support) Transcribe(_ context.Context, task activities.Task) (string, error) {
	return "transcript of " + task.Session.RoomID, nil
}

// Summarize summarizes a transcript.
func (*Support) Summarize(_ context.Context, _ activities.Task, transcript string) (string, error) {
	return "summary of the " + transcript, nil
}

// Ask sends a survey to the caller.
func (*Support) Ask(context.Context, activities.Task) (string, error) {
	return "", activities.GiveUpf("the caller has left no address")
}

var (
	support *Support
)

// CloseSupportCall closes out a support call. Archiving the recordings runs concurrently
// with the other steps. The summary follows the transcript. The survey is sent an hour
// after the call.
func CloseSupportCall(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	transcript := workflows.Start(run, workflows.Step{Name: "transcript", Timeout: 6 * time.Hour}, support.Transcribe)
	workflows.Then(transcript, workflows.Step{Name: "summary"}, support.Summarize)
	workflows.Start(run, workflows.Step{Name: "survey", NotBefore: closed.RoomCloseTime.Add(time.Hour), Optional: true}, support.Ask)

	return run.Finish()
}

// A Workflow of your own, run as in a test.
func Example() {
	env := closeouttest.NewEnv(&testing.T{}, &Support{}) // in a test, pass its t
	closed := closeouttest.Session()
	for _, step := range env.Run(CloseSupportCall, closed).Steps[1:] {
		fmt.Printf("%s is %s: %s\n", step.Step, step.State, step.Summary)
	}
	fmt.Println(env.Now().Sub(closed.RoomCloseTime).Round(time.Minute))
	// Output:
	// transcript is done: transcript of lobby
	// summary is done: summary of the transcript of lobby
	// survey is given_up: given up: the caller has left no address
	// 1h0m0s
}
