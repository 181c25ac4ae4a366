package main

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// transcription names the steps, for Workflows. The worker has the one that runs them.
var transcription *Transcription

// awaited is the step that is done when the hook hears of the transcript, and the
// signal by which it is told.
const awaited = "transcript"

// Transcript is what the API says of a recorded session when it is done with it.
// It is kept in the run's history, where the text itself would be too large and
// too private.
type Transcript struct {
	// ID is the API's name for it.
	ID string `json:"id"`
	// Words is how many there are.
	Words int `json:"words"`
	// Failed is why there is none; else empty.
	Failed string `json:"failed,omitempty"`
}

// String says it in a few words, for people.
func (t Transcript) String() string {
	return fmt.Sprintf("%d words, see %s", t.Words, t.ID)
}

// Err says that there is none, by which [workflows.Await] knows that the step isn't
// done. It is given up and not blocked: the API has listened and heard no speech,
// and would hear none if a person asked it again.
func (t Transcript) Err() error {
	if t.Failed == "" {
		return nil
	}
	return activities.GiveUpf("no transcript: %s", t.Failed)
}

// CloseTranscribedRoom makes the bill and archives the recordings as ever. If there
// are any, it orders their transcript and waits for it: that costs nothing, as no
// process has to live for so long.
func CloseTranscribedRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	recordings := workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	if archived, err := recordings.Wait(); err == nil && archived.Files > 0 {
		order := workflows.Then(recordings, workflows.Step{Name: "order", Summary: "Order a transcript"}, transcription.OrderTranscript)
		workflows.Await[Transcript](run, workflows.Step{Name: awaited, Summary: "Wait for the transcript",
			After: []workflows.Dependency{order}, Timeout: 6 * time.Hour})
	}
	return run.Finish()
}
