package cli

import (
	"strings"
	"testing"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/workflows"
)

// A session is closed out if its run is done and the results of its steps are stored.
func TestSessionStatusSaysWhatIsMissing(t *testing.T) {
	done := func(state workflows.State, steps ...string) *runStatus {
		result := &workflows.Result{State: state}
		for _, step := range steps {
			result.Steps = append(result.Steps, workflows.StepResult{Step: step, State: state})
		}
		return &runStatus{Status: "Completed", State: state, Result: result}
	}
	bill, manifest := &ledger.MadeBill{}, &activities.Archived{}
	for _, tt := range []struct {
		name   string
		status sessionStatus
		lacks  string
	}{
		{"nothing", sessionStatus{Run: done(workflows.StateDone, "billing", "recordings"), Bill: bill, Manifest: manifest}, ""},
		{"nothing of another workflow", sessionStatus{Run: done(workflows.StateDone, "charge")}, ""},
		{"a run", sessionStatus{Inbox: &inboxEntry{}}, "no run"},
		{"a Temporal to ask", sessionStatus{Bill: bill, Unknown: map[string]string{inTemporal: "it is away"}}, "run unknown: it is away"},
		{"an end", sessionStatus{Run: &runStatus{Status: "Running", State: workflows.StateBlocked}}, "its run is Running, blocked; "},
		{"a readable end", sessionStatus{Run: &runStatus{Status: "Completed", State: workflows.StateDone, Fault: "no JSON"}}, "its run is Completed, done; "},
		{"a step", sessionStatus{Run: done(workflows.StateSkipped, "billing"), Bill: bill}, "its run is Completed, skipped; "},
		{"a bill", sessionStatus{Run: done(workflows.StateDone, "billing", "recordings"), Manifest: manifest}, "no bill"},
		{"a manifest", sessionStatus{Run: done(workflows.StateDone, "billing", "recordings"), Bill: bill}, "no manifest"},
		{"a store to ask", sessionStatus{Run: done(workflows.StateDone, "recordings"), Unknown: map[string]string{inArchive: "it is away"}}, "manifest unknown: it is away"},
	} {
		if got := tt.status.lacks(); !strings.HasPrefix(got, tt.lacks) || tt.lacks == "" && got != "" {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.lacks)
		}
	}
}
