package workflows_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// recordings mocks the step recordings with look, and counts its runs.
func (e env) recordings(look func(n int, w *activities.Waited) (activities.Archived, error)) *int {
	n := new(int)
	e.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(func(_ context.Context, task activities.Task) (activities.Archived, error) {
		*n++
		return look(*n, task.Waited)
	})
	return n
}

func waiting(pause time.Duration, note string) activities.Archived {
	return activities.Archived{Waiting: &activities.Waiting{For: "recording task `T`", Pause: pause, Note: note}}
}

func TestStepWaitsForItsPause(t *testing.T) {
	env := newEnv(t)
	env.billingFails(0, nil)
	var got []activities.Waited
	n := env.recordings(func(n int, w *activities.Waited) (activities.Archived, error) {
		if w != nil {
			got = append(got, *w)
		}
		if n < 4 {
			return waiting(time.Duration(n)*time.Hour, strings.Repeat("n", n)), nil
		}
		return archived, nil
	})
	env.After(30*time.Minute, func() {
		if details := env.Details(); !strings.Contains(details, "**recordings** is waiting for `recording task 'T'`: Archive the recordings") {
			t.Errorf("the Web UI shows %s", details)
		}
		if states := env.states(); states != "" {
			t.Errorf("CloseoutState became %s", states)
		}
	})
	if r := env.Run(workflows.RoomClose, closed); r.State != workflows.StateDone || r.Steps[1].Summary != archived.String() {
		t.Errorf("result %+v", r)
	}
	if *n != 4 || len(got) != 3 {
		t.Fatalf("it ran %d times, and got %+v", *n, got)
	}
	for i, w := range got {
		if after := []time.Duration{1, 3, 6}[i] * time.Hour; w.Times != i+1 || w.Note != strings.Repeat("n", i+1) || w.Now.Sub(w.Since) != after {
			t.Errorf("run %d got %+v, want one after %v", i+2, w, after)
		}
	}
}

func TestSignalWakesAWaitingStep(t *testing.T) {
	env := newEnv(t)
	env.billingFails(0, nil)
	there := false
	n := env.recordings(func(_ int, w *activities.Waited) (activities.Archived, error) {
		if there {
			if waited := w.Now.Sub(w.Since); waited != time.Hour {
				t.Errorf("it went on after %v", waited)
			}
			return archived, nil
		}
		return waiting(100*time.Hour, ""), nil
	})
	env.After(time.Hour, func() {
		there = true
		for range 3 { // several Signals at once cause one run of the step
			env.SignalWorkflow("recordings", nil)
		}
	})
	if r := env.Run(workflows.RoomClose, closed); r.State != workflows.StateDone || *n != 2 {
		t.Errorf("result %+v, run %d times", r, *n)
	}
}

// A Signal resumes a blocked step. The step keeps the time that it has waited.
func TestSignalWakesABlockedStep(t *testing.T) {
	env := newEnv(t)
	env.billingFails(0, nil)
	env.recordings(func(n int, w *activities.Waited) (activities.Archived, error) {
		switch {
		case n == 1:
			return waiting(time.Hour, "kept"), nil
		case n < 4 && (w == nil || w.Now.Sub(w.Since) < time.Hour || w.Note != "kept"):
			t.Errorf("run %d got %+v", n, w)
		case n == 4: // an operator retried it
			if w != nil {
				t.Errorf("after a retry it got %+v", w)
			}
			return archived, nil
		}
		return activities.Archived{}, activities.Blockedf("not all of the recordings are there")
	})
	env.After(2*time.Hour, func() {
		if got := env.states(); got != "blocked" {
			t.Errorf("CloseoutState became %s", got)
		}
		env.SignalWorkflow("recordings", "whatever")
	})
	env.After(3*time.Hour, func() { env.Retry("recordings", "found it") })
	if r := env.Run(workflows.RoomClose, closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	if got := env.states(); got != "blocked unset blocked unset" {
		t.Errorf("CloseoutState became %s", got)
	}
}

func TestWaitingStepIsCancelledWithItsRun(t *testing.T) {
	env := newEnv(t)
	env.billingFails(0, nil)
	env.recordings(func(int, *activities.Waited) (activities.Archived, error) { return waiting(time.Hour, ""), nil })
	env.After(90*time.Minute, env.CancelWorkflow)
	env.Start(workflows.RoomClose, closed)
	if !env.IsWorkflowCompleted() || env.GetWorkflowError() == nil {
		t.Error("the run continues")
	}
}
