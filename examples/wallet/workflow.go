package main

import (
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// wallet names the steps in Workflows. The worker runs them on the Wallet in main.go.
var wallet *Wallet

// ClosePaidRoom charges the callers and pays the hosts, by the figures of the bill. If the
// hosts are not paid, even because an operator skips the payout, the callers are refunded.
// The recordings are archived in any case.
func ClosePaidRoom(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)

	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	bill := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	charge := workflows.Then(bill, workflows.Step{Name: "charge", Summary: "Charge the callers", Adjusts: true}, wallet.Charge)
	payout := workflows.Then(charge, workflows.Step{Name: "payout", Summary: "Pay the hosts", Adjusts: true}, wallet.PayOut)

	if charged, err := charge.Wait(); err == nil {
		if _, err := payout.Wait(); err != nil {
			workflows.StartWith(run, workflows.Step{Name: "refund", Summary: "Refund the callers", Adjusts: true}, wallet.Refund, charged)
		}
	}
	return run.Finish()
}
