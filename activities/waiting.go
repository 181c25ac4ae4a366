package activities

import "time"

// Waiting reports that a step cannot make progress yet. The Workflow runs the step again
// after Pause, or when a Signal named after the step arrives. A step returns it in its
// result: see [Waiter].
type Waiting struct {
	// For names what the step waits for. The Web UI shows it.
	For string `json:"for"`
	// Pause is the longest time until the step runs again.
	Pause time.Duration `json:"pause"`
	// Note is passed to the next run of the step, in [Waited].
	Note string `json:"note,omitempty"`
}

// Waiter is a result of a step that may have to wait. Waits returns nil if the step is
// done.
type Waiter interface{ Waits() *Waiting }

// Waited reports how long a step has waited.
type Waited struct {
	// Since is when the step ran first, and Now when this run of it began, both by the
	// Workflow's clock. Since starts anew when an operator retries the step.
	Since time.Time `json:"since"`
	Now   time.Time `json:"now"`
	// Times counts the earlier runs of the step.
	Times int `json:"times"`
	// Note is the Note of the last [Waiting].
	Note string `json:"note,omitempty"`
}
