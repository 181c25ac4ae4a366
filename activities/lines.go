package activities

import (
	"context"
	"iter"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/pricing"
)

// Lines returns the lines of the session's bill. In an adjustment run it returns the lines
// of the adjustment, which add to the earlier ones. It reads the ledger page by page, and
// ends after the first error. It returns an error if the session is not billed yet, so
// start the step after the bill, with [workflows.Then] or [workflows.Step.After].
//
// ctx must be the step's context. In a test of a step, make it with
// closeouttest.WithLines.
//
// [workflows.Then]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Then
// [workflows.Step.After]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Step
func Lines(ctx context.Context, task Task) iter.Seq2[pricing.Line, error] {
	if read := attendance.LinesFrom(ctx); read != nil {
		return read(ctx, task.Session, task.Adjustment)
	}
	return func(yield func(pricing.Line, error) bool) {
		yield(pricing.Line{}, Blockedf("read the lines of session %s: found a context without a ledger, want the context of a step that a worker of package closeout runs", task.Session))
	}
}
