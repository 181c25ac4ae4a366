// Command transcription orders a transcript of the recordings of a voice room from an API
// that takes hours, and waits for its report.
package main

import (
	"context"
	"io"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service()) }

// service returns what this program adds to Closeout.
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
