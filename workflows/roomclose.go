package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// do names the steps. None of their fields is set here, as it is the worker that
// runs them.
var do activities.Steps

// RoomClose closes one session of a room out. Its steps run side by side, and
// each for itself: one that is in trouble doesn't hold up the others, and the
// run completes when the last is done or skipped.
func RoomClose(ctx workflow.Context, session activities.Session) (Result, error) {
	steps := Begin(ctx, session)

	Run(steps, Billing, do.FinalizeBill)
	Run(steps, Recordings, do.ArchiveRecordings)

	return steps.Finish()
}

// The standard steps, for use in other workflows as well.
var (
	// Billing is [activities.Billing.FinalizeBill]. The last logouts may come after
	// the room has closed.
	Billing = Step{Name: "billing", Summary: "Make the session's bill", Settled: true}
	// Recordings is [activities.Recordings.ArchiveRecordings]. A recording may be of
	// a day, and is uploaded after the room has closed.
	Recordings = Step{Name: "recordings", Summary: "Move the recordings to the archive",
		Deadline: 72 * time.Hour, Attempt: 12 * time.Hour, Heartbeat: 30 * time.Second}
)
