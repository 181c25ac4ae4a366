package activities

import (
	"context"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/session"
)

// Participants returns who was in the room of the task's session, for a step that runs:
//
//	people, err := activities.Participants(ctx, task)
//	if err != nil {
//		return "", err
//	}
//	for p, err := range people.All {
//		if err != nil {
//			return "", err
//		}
//		...
//	}
//
// All reads the ledger page by page while the step runs, so that nothing of it goes through
// the Workflow's history. Once the session is billed, the figures are those of the bill,
// and add up to them. Let a step that needs them start after the bill, by [workflows.Then]
// or [workflows.Step.After]; before, Settled is false.
//
// In an adjustment run, which a step sees with [workflows.Step.Adjusts], the figures are those
// of the adjustment, and each participant's Before has what was billed until then:
//
//	due := fee(p.Billed()) - fee(p.Before)
//
// ctx is the step's. In tests of steps it comes from package closeouttest.
//
// [workflows.Then]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Then
// [workflows.Step.After]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Step
func Participants(ctx context.Context, task Task) (*session.Participants, error) {
	read := attendance.From(ctx)
	if read == nil {
		return nil, Blockedf("read the participants of session %s: found a context without a ledger, want that of a step, which a worker of package closeout runs", task.Session)
	}
	return read(ctx, task.Session, task.Adjustment)
}
