package workflows

import (
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// LateRecordings archives recordings that were reported after the session was archived.
func LateRecordings(ctx workflow.Context, closed session.Session) (Result, error) {
	run := Begin(ctx, closed)

	late := Recordings
	late.Summary, late.Quick = "Archive late recordings", false
	Start(run, late, activities.Standard.AddRecordings)

	return run.Finish()
}

// LateRecordingsID returns the Workflow ID of a session's late recordings,
// "late-recordings-<appid>-<room_session_id>".
func LateRecordingsID(s session.Session) string { return "late-recordings-" + s.String() }

// LateRecordingsOptions returns the options that start [LateRecordings]. A session has
// at most one open run of it. After that run closes, another may follow.
func LateRecordingsOptions(s session.Session, taskQueue string) client.StartWorkflowOptions {
	return againOptions(s, taskQueue, LateRecordingsID(s), "Late recordings")
}
