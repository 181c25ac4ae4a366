package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// RoomClose closes out one room session. Steps run concurrently and fail
// independently. The run completes when every step is done or skipped.
func RoomClose(ctx workflow.Context, closed session.Session) (Result, error) {
	run := Begin(ctx, closed)

	Start(run, Billing, activities.Standard.FinalizeBill)
	Start(run, Recordings, activities.Standard.ArchiveRecordings)

	return run.Finish()
}

// The standard steps, for other Workflows too.
var (
	// Billing is the step of [activities.Steps.FinalizeBill].
	Billing = Step{Name: "billing", Summary: "Finalize the bill", Quick: true, AfterSettling: true}
	// Recordings is the step of [activities.Steps.ArchiveRecordings]. One attempt may copy
	// the recordings of a whole day.
	Recordings = Step{Name: "recordings", Summary: "Archive the recordings", Quick: true,
		Timeout: 72 * time.Hour, AttemptTimeout: 12 * time.Hour, HeartbeatTimeout: 30 * time.Second}
)

// All returns the Workflows that every worker runs.
func All() []Workflow { return []Workflow{RoomClose} }
