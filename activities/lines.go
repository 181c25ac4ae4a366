package activities

import (
	"context"
	"iter"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/pricing"
)

// Lines returns the lines of the session's bill, for a step that runs; in the run of an
// adjustment, those of the adjustment, which add to the ones before. It reads the ledger
// page by page. An error ends it; there is one if the session is not billed yet, so let
// the step start after the bill, by [workflows.Then] or [workflows.Step.After].
//
// ctx is the step's. In tests of steps it comes from closeouttest.WithLines.
//
// [workflows.Then]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Then
// [workflows.Step.After]: https://pkg.go.dev/github.com/closeouthq/closeout/workflows#Step
func Lines(ctx context.Context, task Task) iter.Seq2[pricing.Line, error] {
	if read := attendance.LinesFrom(ctx); read != nil {
		return read(ctx, task.Session, task.Adjustment)
	}
	return func(yield func(pricing.Line, error) bool) {
		yield(pricing.Line{}, Blockedf("read the lines of session %s: found a context without a ledger, want that of a step, which a worker of package closeout runs", task.Session))
	}
}
