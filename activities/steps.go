package activities

import (
	"github.com/google/uuid"

	"github.com/closeouthq/closeout/session"
)

// Adjustment identifies an adjustment of a bill.
type Adjustment struct {
	// Session is the billed session.
	Session session.Session `json:"session"`
	// Number counts the adjustments of the bill from 1.
	Number int `json:"number"`
}

// ManifestKey returns the key of a session's first manifest in the archive.
func ManifestKey(s session.Session) string { return s.Folder() + "manifest.json" }

// Task is the input of a step.
type Task struct {
	// Session is the session to close out.
	Session session.Session `json:"session"`
	// IdempotencyKey is the same whenever this step runs for this session, and differs
	// from the key of every other step and session. Send it with every effect of the step.
	IdempotencyKey uuid.UUID `json:"idempotency_key"`
	// Adjustment is the number of the adjustment, from 1, in an adjustment run, and 0 in
	// the run that closes out the session. In an adjustment run [Participants] returns the
	// adjusted figures, together with those billed before.
	Adjustment int `json:"adjustment,omitempty"`
	// Reset is the ID of this run if it is a reset of another run. The other run may have
	// done the step already.
	Reset string `json:"reset,omitempty"`
	// Waited reports how long the step has waited. It is nil unless the step has returned
	// a [Waiting].
	Waited *Waited `json:"waited,omitempty"`
	// Retried is set if an operator retried the blocked step.
	Retried *Retried `json:"retried,omitempty"`
}

// KeyFor returns the idempotency key of one part of the step, such as its effect for one
// user. It is the same whenever the step runs for the session.
func (t Task) KeyFor(part string) uuid.UUID {
	return uuid.NewSHA1(t.IdempotencyKey, []byte(part))
}

// Retried describes an operator's retry of a blocked step.
type Retried struct {
	// Failure is why the step was blocked.
	Failure string `json:"failure"`
	// Reason is the operator's reason for the retry.
	Reason string `json:"reason"`
}
