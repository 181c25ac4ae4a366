package main

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// transcription names the steps in Workflows. The worker runs them on the Transcription in
// main.go.
var transcription *Transcription

// awaited is the step that waits for the transcript, and the name of its Signal.
const awaited = "transcript"

// Transcript is the API's report about a session. The run's history stores it, so it does
// not contain the text, which would be too large and too private.
type Transcript struct {
	// ID is the API's ID of the transcript.
	ID string `json:"id"`
	// Words is the number of words.
	Words int `json:"words"`
	// Failed is why there is no transcript; otherwise empty.
	Failed string `json:"failed,omitempty"`
}

// String describes the transcript in the Web UI.
func (t Transcript) String() string {
	return fmt.Sprintf("%d words, see %s", t.Words, t.ID)
}

// Err makes [workflows.Await] give the step up if there is no transcript. It does not
// block the step, because another attempt would find no speech either.
func (t Transcript) Err() error {
	if t.Failed == "" {
		return nil
	}
	return activities.GiveUpf("no transcript: %s", t.Failed)
}

// CloseTranscribedRoom makes the bill and archives the recordings. If there are
// recordings, it orders a transcript and waits for it. No process has to run meanwhile.
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
