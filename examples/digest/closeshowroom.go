package main

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// do names the steps, for Workflows. The worker has the one that runs them.
var do Steps

// CloseShowRoom closes a room of a show out as any other, and then notifies the
// show's digest what happened.
func CloseShowRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	billing := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	happened := []string{words(billing, "no bill"), words(recordings, "recordings not archived")}
	workflows.StartWith(run, workflows.Step{Name: "digest", Summary: "Tell the show's digest"}, do.TellDigest, happened)

	return run.Finish()
}

// words waits for a step and says what came of it. A step that a person skips
// doesn't keep the room out of the digest.
func words[R fmt.Stringer](step *workflows.Future[R], otherwise string) string {
	if result, err := step.Wait(); err == nil {
		return result.String()
	}
	return otherwise
}
