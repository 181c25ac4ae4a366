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

// Wallet has steps of our own. Its fields are what they need.
type Wallet struct{ API activities.Endpoint }

// Charge charges the caller.
func (w *Wallet) Charge(ctx context.Context, task activities.Task) (string, error) {
	err := w.API.Post(ctx, task.IdempotencyKey, map[string]string{"room": task.Session.RoomID}, nil)
	return "charged", err
}

// wallet names the steps, for Workflows. The worker has the one that runs them.
var wallet *Wallet

// CloseShow closes a paid room out.
func CloseShow(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Step{Name: "charge", Summary: "Charge the caller's wallet"}, wallet.Charge)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)

	return run.Finish()
}

// route gives paid rooms their workflow, and all others the default one.
func route(s session.Session) workflows.Workflow {
	if strings.HasPrefix(s.RoomID, "paid-") {
		return CloseShow
	}
	return nil
}

// A program of one's own. In its main stands: closeout.Main(service).
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
