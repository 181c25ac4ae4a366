// Command transcription has the recordings of a voice room transcribed by an API
// that takes its time, and reports back when it is done.
package main

import (
	"context"
	"io"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service()) }

// service is all that this program adds to Closeout.
func service() closeout.Service {
	steps := new(Transcription)
	return closeout.Service{
		Name:       "transcription",
		Workflows:  []workflows.Workflow{CloseTranscribedRoom},
		Route:      func(session.Session) workflows.Workflow { return CloseTranscribedRoom },
		Activities: []any{steps},
		Init:       func(context.Context) (io.Closer, error) { return nil, steps.load() },
		Hooks:      steps.hooks,
	}
}
