package activities

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
)

// The kinds of failure, as the Web UI and the metrics show them.
const (
	typeRetryAfter = "RetryAfter"
	typeBlocked    = "Blocked"
	typeGivenUp    = "GivenUp"
	typeNotQuick   = "NotQuick"
)

// An error that is none of the following is worth another try: Temporal tries
// again with a growing pause, from a second to five minutes, until the step's
// deadline.

// RetryAfterf is the error of a step that is to be tried again, but not before the
// pause is over: a service has said when it has time. If the step's deadline
// comes first, the step waits for a person at once.
func RetryAfterf(pause time.Duration, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewApplicationErrorWithOptions(err.Error(), typeRetryAfter,
		temporal.ApplicationErrorOptions{NextRetryDelay: pause, Cause: errors.Unwrap(err)})
}

// Blockedf is the error of a step that can't succeed however often it is tried,
// until a person has mended something. Temporal doesn't retry it; the workflow
// waits for that person instead.
func Blockedf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewNonRetryableApplicationError(err.Error(), typeBlocked, errors.Unwrap(err))
}

// GiveUpf is the error of a step that can't succeed, and that no person needs to
// be asked about: nobody has left an address to write to. The run goes on
// without it, and says so.
func GiveUpf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return temporal.NewApplicationErrorWithOptions(err.Error(), typeGivenUp, temporal.ApplicationErrorOptions{
		NonRetryable: true, Cause: errors.Unwrap(err),
		// It is expected: Temporal's SDK neither logs nor counts it as a failure.
		Category: temporal.ApplicationErrorCategoryBenign,
	})
}

// ErrNotQuick is returned by a quick step that has more to do than fits into a
// Workflow Task. The Workflow runs the step again, as an Activity. See
// workflows.Step.Quick.
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
