package closeout_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Wallet has the program's own steps. Its fields are their dependencies.
type Wallet struct{ API activities.Endpoint }

// Charge charges the caller.
func (w *Wallet) Charge(ctx context.Context, task activities.Task) (string, error) {
	err := w.API.Post(ctx, task.IdempotencyKey, map[string]string{"room": task.Session.RoomID}, nil)
	return "charged", err
}

// wallet names the steps in Workflows. The steps run on the value in Service.Activities.
var wallet *Wallet

// CloseShow closes out a paid room.
func CloseShow(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Step{Name: "charge", Summary: "Charge the caller's wallet"}, wallet.Charge)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	return run.Finish()
}

// route returns the Workflow of a paid room, or nil for the default one.
func route(s session.Session) workflows.Workflow {
	if strings.HasPrefix(s.RoomID, "paid-") {
		return CloseShow
	}
	return nil
}

// A program with a Workflow of its own. Its main function calls closeout.Main(service).
func Example() {
	service := closeout.Service{
		Workflows:  []workflows.Workflow{CloseShow},
		Route:      route,
		Activities: []any{&Wallet{API: activities.Endpoint{Name: "the wallet", URL: os.Getenv("WALLET_URL")}}},
	}
	if err := service.Check(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(workflows.Name(service.Route(session.Session{RoomID: "paid-7"})))
	// Output:
	// CloseShow
}
