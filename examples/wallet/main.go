// Command wallet closes out paid voice rooms: the caller pays, the host is paid,
// and where the host can't be, the caller gets the money back.
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

// service is all that this program adds to Closeout.
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

// route tells the paid rooms by their names; the others are closed out as ever.
func route(s session.Session) workflows.Workflow {
	if strings.HasPrefix(s.RoomID, "paid-") {
		return ClosePaidRoom
	}
	return nil
}
