package main

import (
	"testing"

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/zego"
)

// Of a run that the deployed code can't take Temporal says so, where `blocked
// list` and the audit look for it.
func TestAStuckRunIsReported(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	var closed zego.RoomClose
	t.Run("before the change", func(t *testing.T) {
		d.t = t
		closed = d.closeBlocked(d.start(both, "", before{}.CloseShow))
	})
	d.t = t
	d.start(service.Parts{Worker: true}, "", after{}.CloseShow)
	go func() { _ = d.decide(closed) }() // which gets no answer
	query := "TemporalReportedProblems IS NOT NULL AND ExecutionStatus = 'Running' AND WorkflowId = '" + workflowID(closed) + "'"
	wait(t, "it is reported", func() bool { return runs(t, d.temporal, query) == 1 })
}
