package main

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// These name the steps. It is the worker that runs them, with their settings.
var (
	studio   *Studio
	helpDesk *HelpDesk
)

// CloseLiveShow publishes the recordings of a show as its replay.
func CloseLiveShow(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	replay := workflows.Then(recordings, workflows.Step{Name: "replay", Summary: "Publish the replay"}, studio.PublishReplay)
	// Nobody wants to hear of it on the next day, and no person should have to decide.
	workflows.Then(replay, workflows.Step{Name: "announcement", Summary: "Tell the followers of the replay",
		Timeout: time.Hour, Optional: true}, studio.AnnounceReplay)

	return run.Finish()
}

// surveyAfter is how long after a support call the customer is asked about it.
const surveyAfter = time.Hour

// CloseSupportCall closes the call's ticket, as soon as all that is to be found
// there exists, and asks the customer.
func CloseSupportCall(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	billing := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	workflows.Start(run, workflows.Step{Name: "ticket", Summary: "Close the ticket",
		After: []workflows.Dependency{billing, recordings}}, helpDesk.CloseTicket)
	workflows.Start(run, workflows.Step{Name: "survey", Summary: "Ask the customer",
		NotBefore: closed.RoomCloseTime.Add(surveyAfter), Optional: true}, helpDesk.SendSurvey)

	return run.Finish()
}
