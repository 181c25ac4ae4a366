package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"
)

// Future is the result of a step that may not have ended yet.
type Future[R any] struct {
	run    *Run
	step   *step // nil if the run started before the step was added
	result R
}

// Dependency is a [Future] of any result type.
type Dependency interface{ dependency() *step }

func (f *Future[R]) dependency() *step { return f.step }

// The errors of [Future.Wait] for a step that ended without a result.
var (
	// ErrSkipped means that an operator skipped the step, or that it depended on a step
	// that didn't succeed.
	ErrSkipped = errors.New("step skipped")
	// ErrGivenUp means that the step failed and was optional, or failed with
	// [activities.GiveUpf].
	ErrGivenUp = errors.New("step given up")
	// ErrAddedLater means that the run started before the step was added: see
	// [Step.AddedLater].
	ErrAddedLater = errors.New("step added after the run started")
)

// Wait blocks until the step has ended and returns its result. The error wraps
// [ErrSkipped], [ErrGivenUp] or [ErrAddedLater], or is a cancellation of the run:
// see [temporal.IsCanceledError]. Call it only in the Workflow function itself, not
// in a coroutine.
func (f *Future[R]) Wait() (R, error) {
	var none R
	if f.step == nil {
		return none, ErrAddedLater
	}
	if err := workflow.Await(f.run.ctx, f.step.ended); err != nil {
		return none, err
	}
	switch f.step.state {
	case StateSkipped:
		return none, fmt.Errorf("%s: %w: %s", f.step.Name, ErrSkipped, f.step.reason)
	case StateGivenUp:
		return none, fmt.Errorf("%s: %w: %s", f.step.Name, ErrGivenUp, f.step.failure)
	}
	return f.result, nil
}
