package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// The audit finds no fault in sessions that were closed out, one of them again after a
// reset. Then it finds what is removed or damaged.
func TestAuditOnARealTemporal(t *testing.T) {
	c := settings(t, nil)
	// The default Namespace has the runs of other tests.
	c.Temporal.Namespace = "audited"
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)
	var sessions []zego.RoomClose
	journal := filepath.Join(t.TempDir(), "journal.jsonl")
	var list strings.Builder
	for range 3 {
		closed := newClose()
		if a := post(t, address, closed); a.code != 200 {
			t.Fatalf("answer %+v", a)
		}
		result(t, temporalClient, closed)
		sessions = append(sessions, closed)
		list.WriteString(`{"appid":1,"room_session_id":"` + session.Of(&closed).String()[2:] + `","acknowledged":true}` + "\n")
	}
	if err := os.WriteFile(journal, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	id := func(n int) string { return session.Of(&sessions[n]).WorkflowID() }

	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	t.Setenv("TEMPORAL_NAMESPACE", "audited")
	audit := func() (code int, text string) {
		t.Helper()
		var out lines
		code = run(t.Context(), []string{"dev", "audit", "--data", c.Data, "--journal", journal, "--complete", "--grace", "0s", "--wait", "1m"}, &out, &out)
		return code, out.String()
	}
	if code, text := audit(); code != 0 || !strings.Contains(text, "No faults.") {
		t.Errorf("of all closed out: %d\n%s", code, text)
	}

	before := result(t, temporalClient, sessions[0])
	if _, err := temporalClient.WorkflowService().ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: "audited", WorkflowExecution: &common.WorkflowExecution{WorkflowId: id(0)}, Reason: "test", RequestId: "1",
		WorkflowTaskFinishEventId: 4,
	}); err != nil {
		t.Fatal(err)
	}
	if after := result(t, temporalClient, sessions[0]); len(after.Steps) != len(before.Steps) || after.State != before.State {
		t.Errorf("after the reset %+v, before it %+v", after, before)
	}
	if code, text := audit(); code != 0 {
		t.Errorf("after a reset: %d\n%s", code, text)
	}

	if err := os.Remove(archived(c, sessions[1], "manifest.json")); err != nil {
		t.Fatal(err)
	}
	if code, text := audit(); code != 1 || !strings.Contains(text, id(1)) || strings.Contains(text, id(2)) {
		t.Errorf("without a manifest: %d\n%s", code, text)
	}
}
