// Command wallet closes out paid voice rooms. Callers pay for their time in the room, and
// hosts are paid for their time at the microphone. If a host cannot be paid, callers are
// refunded.
package main

import (
	"context"
	"io"
	"strings"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service()) }

// service returns what this program adds to Closeout.
func service() closeout.Service {
	steps := new(Wallet)
	return closeout.Service{
		Name:       "wallet",
		Workflows:  []workflows.Workflow{ClosePaidRoom},
		Route:      route,
		Activities: []any{steps},
		Init:       func(context.Context) (io.Closer, error) { return nil, steps.load() },
	}
}

// route returns the Workflow of paid rooms; the default closes out all others.
func route(s session.Session) workflows.Workflow {
	if strings.HasPrefix(s.RoomID, "paid-") {
		return ClosePaidRoom
	}
	return nil
}
