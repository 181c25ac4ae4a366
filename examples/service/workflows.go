package main

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// studio and helpDesk name the steps in Workflows. The worker runs them on the structs
// with the settings.
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
	// An announcement is useless on the next day, so the step ends after an hour without
	// asking an operator.
	workflows.Then(replay, workflows.Step{Name: "announcement", Summary: "Announce the replay",
		Timeout: time.Hour, Optional: true}, studio.AnnounceReplay)

	return run.Finish()
}

// surveyAfter is the time from the end of a support call to the survey.
const surveyAfter = time.Hour

// CloseSupportCall closes the call's ticket once there are a bill and an archive, and asks
// the customer an hour after the call.
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
