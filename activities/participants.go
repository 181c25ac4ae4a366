package activities

import (
	"context"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/session"
)

// Participants returns the participants of the task's session. Call it from a step:
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
// All reads the ledger page by page while the step runs, so the Workflow's history doesn't
// grow. Once the session is billed, the figures are final and add up to the bill; before
// that, Settled is false. Start a step that needs final figures after the bill, with
// [workflows.Then] or [workflows.Step.After].
//
// In an adjustment run, where only steps with [workflows.Step.Adjusts] run, the figures
// include the adjustment. Each participant's Before has the figures billed until then:
//
//	due := fee(p.Billed()) - fee(p.Before)
//
// ctx must be the step's context. In a test of a step, make it with package closeouttest.
//
// [workflows.Then]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Then
// [workflows.Step.After]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Step
func Participants(ctx context.Context, task Task) (*session.Participants, error) {
	read := attendance.From(ctx)
	if read == nil {
		return nil, Blockedf("read the participants of session %s: found a context without a ledger, want the context of a step that a worker of package closeout runs", task.Session)
	}
	return read(ctx, task.Session, task.Adjustment)
}
