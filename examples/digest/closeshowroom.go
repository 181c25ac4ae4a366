package main

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// steps names the steps in Workflows. The worker runs them on the Steps in main.go.
var steps Steps

// CloseShowRoom closes out a room of a show as RoomClose does, and then reports the
// results to the show's digest.
func CloseShowRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	billing := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	happened := []string{describe(billing, "no bill"), describe(recordings, "recordings not archived")}
	workflows.StartWith(run, workflows.Step{Name: "digest", Summary: "Report to the show's digest"}, steps.TellDigest, happened)

	return run.Finish()
}

// describe waits for a step and returns its result in words, or otherwise if there is
// none. A skipped step does not keep the room out of the digest.
func describe[R fmt.Stringer](step *workflows.Future[R], otherwise string) string {
	if result, err := step.Wait(); err == nil {
		return result.String()
	}
	return otherwise
}
