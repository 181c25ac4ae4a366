package activities

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
)

// The kinds of failure, as the Web UI and metrics show them.
const (
	typeRetryAfter = "RetryAfter"
	typeBlocked    = "Blocked"
	typeGivenUp    = "GivenUp"
	typeNotQuick   = "NotQuick"
)

// Temporal retries all other errors, with pauses that grow from a second to five minutes,
// until the step's Timeout.

// RetryAfterf returns an error after which Temporal retries the step, but not before the
// pause is over. Use it if a service says when to come back. If the pause outlasts the
// step's Timeout, the step is blocked at once.
func RetryAfterf(pause time.Duration, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewApplicationErrorWithOptions(err.Error(), typeRetryAfter,
		temporal.ApplicationErrorOptions{NextRetryDelay: pause, Cause: errors.Unwrap(err)})
}

// Blockedf returns an error for a step that can't succeed until an operator fixes the
// cause. Temporal doesn't retry the step. It is blocked until the operator decides.
func Blockedf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewNonRetryableApplicationError(err.Error(), typeBlocked, errors.Unwrap(err))
}

// GiveUpf returns an error for a step that can't succeed and needs no operator, such as a
// mail to a user without an address. The run goes on without the step, and its result
// says that the step was given up.
func GiveUpf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewApplicationErrorWithOptions(err.Error(), typeGivenUp, temporal.ApplicationErrorOptions{
		NonRetryable: true, Cause: errors.Unwrap(err),
		// The failure is expected: Temporal's SDK neither logs nor counts it.
		Category: temporal.ApplicationErrorCategoryBenign,
	})
}

// ErrNotQuick reports that a quick step has more to do than fits into a Workflow Task. The
// Workflow runs the step again as an Activity. See workflows.Step.Quick.
var ErrNotQuick = temporal.NewApplicationErrorWithOptions("more to do than fits into a Workflow Task", typeNotQuick,
	temporal.ApplicationErrorOptions{NonRetryable: true, Category: temporal.ApplicationErrorCategoryBenign})

// IsBlocked reports whether a step failed with [Blockedf].
func IsBlocked(err error) bool { return is(err, typeBlocked) }

// IsGivenUp reports whether a step failed with [GiveUpf].
func IsGivenUp(err error) bool { return is(err, typeGivenUp) }

func is(err error, kind string) bool {
	app := new(temporal.ApplicationError)
	return errors.As(err, &app) && app.Type() == kind
}
