package workflows

import (
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// LateRecordings adds to a session's archive what was heard of after that was made.
func LateRecordings(ctx workflow.Context, session activities.Session) (Result, error) {
	steps := Begin(ctx, session)

	late := Recordings
	late.Summary = "Add the recordings that came late to the archive"
	Run(steps, late, do.AddRecordings)

	return steps.Finish()
}

// LateRecordingsID is the ID of the workflow,
// "late-recordings-<appid>-<room_session_id>".
func LateRecordingsID(s activities.Session) string { return "late-recordings-" + s.Key() }

// LateRecordingsOptions says how [LateRecordings] is started. One run of a session
// is under way at a time, and another may follow: recordings may come late more
// than once.
func LateRecordingsOptions(s activities.Session, taskQueue string) client.StartWorkflowOptions {
	options := StartOptions(s, taskQueue)
	options.ID = LateRecordingsID(s)
	options.WorkflowIDReusePolicy = enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	options.StaticSummary = fmt.Sprintf("Late recordings of room %s", code(clip(s.RoomID, 80)))
	options.StaticDetails = "A recording came after the session was archived. " + options.StaticDetails
	return options
}
