package activities

import (
	"github.com/google/uuid"

	"github.com/closeouthq/closeout/session"
)

// Adjustment says which adjustment of a bill is to be made.
type Adjustment struct {
	// Session is what was billed.
	Session session.Session `json:"session"`
	// Number counts the adjustments of the bill from 1.
	Number int `json:"number"`
}

// ManifestKey is where the archive has a session's first manifest.
func ManifestKey(s session.Session) string { return s.Folder() + "manifest.json" }

// Task is what a step is given.
type Task struct {
	// Session is what there is to close out.
	Session session.Session `json:"session"`
	// IdempotencyKey is the same for every run of this step for this session, and
	// no other has it. Hand it to whatever the step changes.
	IdempotencyKey uuid.UUID `json:"idempotency_key"`
	// Adjustment is the number of the adjustment, from 1, in whose run the step runs; 0 in
	// the run that closes out the session. [Participants] then returns the figures of the
	// adjustment, with what was billed before.
	Adjustment int `json:"adjustment,omitempty"`
	// Reset is the run's ID if it is a reset of another, which may have done the step.
	Reset string `json:"reset,omitempty"`
	// Waited is how long the step has waited; nil unless it said that it has to, by a
	// [Waiting].
	Waited *Waited `json:"waited,omitempty"`
	// Retried is set if a person had the blocked step retried.
	Retried *Retried `json:"retried,omitempty"`
}

// KeyFor returns the key of a part of the step's effects, such as what it changes for one
// user. It is the same for every run of the step for the session.
func (t Task) KeyFor(part string) uuid.UUID {
	return uuid.NewSHA1(t.IdempotencyKey, []byte(part))
}

// Retried is what a person saw and decided who had a blocked step retried.
type Retried struct {
	// Failure is why the step was blocked.
	Failure string `json:"failure"`
	// Reason is the person's.
	Reason string `json:"reason"`
}
