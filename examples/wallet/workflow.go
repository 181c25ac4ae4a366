package main

import (
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// wallet names the steps, for Workflows. The worker has the one that runs them.
var wallet *Wallet

// ClosePaidRoom charges the caller and pays the host. If the host isn't paid, be
// it that a person skips it, the caller is refunded. The recordings are archived
// whatever happens to the money.
func ClosePaidRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	charge := workflows.Start(run, workflows.Step{Name: "charge", Summary: "Charge the caller"}, wallet.Charge)
	payout := workflows.Then(charge, workflows.Step{Name: "payout", Summary: "Pay the host"}, wallet.PayOut)

	if charged, err := charge.Wait(); err == nil {
		if _, err := payout.Wait(); err != nil {
			workflows.StartWith(run, workflows.Step{Name: "refund", Summary: "Give the caller the money back"}, wallet.Refund, charged)
		}
	}
	return run.Finish()
}
