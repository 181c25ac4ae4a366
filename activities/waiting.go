package activities

import "time"

// Waiting is what a step returns, in its result, that has nothing to do yet: what it
// is about isn't there. The workflow runs it again after a pause, or as soon as a
// signal comes that is named as the step. See [Waiter].
type Waiting struct {
	// For is what it waits for, in words for people.
	For string `json:"for"`
	// Pause is when the step is to be run again, at the latest.
	Pause time.Duration `json:"pause"`
	// Note is handed to the step when it is run again, in [Waited].
	Note string `json:"note,omitempty"`
}

// Waiter is a result that may say that the step isn't done, but has to wait. It is
// nil if it is done.
type Waiter interface{ Waits() *Waiting }

// Waited is how long a step has waited.
type Waited struct {
	// Since is when it was run first, and Now when it was run this time, both by the
	// workflow's clock. It starts anew when a person has the step retried.
	Since time.Time `json:"since"`
	Now   time.Time `json:"now"`
	// Times is how often it was run before.
	Times int `json:"times"`
	// Note is that of the last [Waiting].
	Note string `json:"note,omitempty"`
}
