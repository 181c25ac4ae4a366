package main

import (
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// These name the steps. Those that a worker runs have their fields set.
var (
	wallet   *Wallet
	standard activities.Steps
)

// ClosePaidRoom charges the caller and pays the host. If the host isn't paid, be
// it that a person skips it, the caller is refunded. The recordings are archived
// whatever happens to the money.
func ClosePaidRoom(ctx workflow.Context, session activities.Session) (workflows.Result, error) {
	steps := workflows.Begin(ctx, session)

	workflows.Run(steps, workflows.Recordings, standard.ArchiveRecordings)
	charge := workflows.Run(steps, workflows.Step{Name: "charge", Summary: "Charge the caller"}, wallet.Charge)
	payout := workflows.Then(charge, workflows.Step{Name: "payout", Summary: "Pay the host"}, wallet.PayOut)

	if charged, ok := charge.Wait(); ok {
		if _, paid := payout.Wait(); !paid {
			workflows.RunWith(steps, workflows.Step{Name: "refund", Summary: "Give the caller the money back"}, wallet.Refund, charged)
		}
	}
	return steps.Finish()
}
