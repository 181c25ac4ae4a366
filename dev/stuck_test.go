package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// If the deployed code can't replay a run, `blocked list` and the audit report the run,
// as Temporal does.
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
	go func() { _ = d.decide(closed) }() // never answered
	query := "TemporalReportedProblems IS NOT NULL AND ExecutionStatus = 'Running' AND WorkflowId = '" + workflowID(closed) + "'"
	wait(t, "it is reported", func() bool { return runs(t, d.temporal, query) == 1 })
}

// A worker of another program on the same Task Queue can't run the Workflow, and the
// doctor says why.
func TestMissingWorkflowTypeIsReported(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	c := settings(t, map[string]string{"task-queue": fmt.Sprintf("%s-%d", t.Name(), rand.Uint64())})
	t.Setenv("TEMPORAL_NAMESPACE", c.Temporal.Namespace)
	setUp(t, c)
	s := session.Session{ID: session.ID{AppID: 1, RoomSessionID: rand.Uint64()}, RoomID: "lobby", RoomCloseTime: time.Now()}
	if _, err := dial(t, c).ExecuteWorkflow(t.Context(), workflows.StartOptions(s, c.TaskQueue), "CloseShow", s); err != nil {
		t.Fatal(err)
	}
	start(t, c, service.Parts{Worker: true})
	wait(t, "the doctor reports it", func() bool {
		var out lines
		code := run(t.Context(), []string{"dev", "doctor", "--data", c.Data, "--admin-listen", c.AdminListen, "--task-queue", c.TaskQueue, "--for", "worker"}, &out, &out)
		return code == 1 && strings.Contains(out.String(), "FAIL  stuck runs         1 in task queue "+c.TaskQueue+", the first is "+s.WorkflowID()+": unable to find workflow type: CloseShow.")
	})
}
