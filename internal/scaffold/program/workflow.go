package main

import (
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// notifier names the step in Workflows. The worker runs it on the Notifier in main.go.
var notifier *Notifier

// CloseRoom closes out one room session. Its steps run concurrently.
func CloseRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	workflows.Start(run, workflows.Step{Name: "notify", Summary: "Notify that the room has closed"}, notifier.Notify)

	return run.Finish()
}
