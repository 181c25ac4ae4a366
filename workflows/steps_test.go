package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// shop has the steps of these tests, and records their calls.
type shop struct {
	failure map[string]error // by step
	mu      sync.Mutex
	events  []string
}

func (s *shop) did(what string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failure[what]
	if err != nil {
		what += " failed"
	}
	s.events = append(s.events, what)
	return what, err
}

func (s *shop) Charge(context.Context, activities.Task) (Charge, error) {
	_, err := s.did("charge")
	return Charge{Amount: 7}, err
}

func (s *shop) PayOut(_ context.Context, _ activities.Task, c Charge) (string, error) {
	return s.did(fmt.Sprintf("pay out %d", c.Amount))
}

func (s *shop) Refund(_ context.Context, _ activities.Task, c Charge) (string, error) {
	return s.did(fmt.Sprintf("refund %d", c.Amount))
}

func (s *shop) Survey(context.Context, activities.Task) (string, error) { return s.did("survey") }

func (s *shop) Archive(context.Context, activities.Task) (string, error) { return s.did("archive") }

// Charge is the result of a step and the input of others.
type Charge struct {
	Amount int `json:"amount"`
}

func (c Charge) String() string { return fmt.Sprintf("charged %d", c.Amount) }

// run runs the Workflow in an environment with the steps of the shop.
func (s *shop) run(t *testing.T, w workflows.Workflow, prepare func(env)) workflows.Result {
	t.Helper()
	e := newEnv(t, s)
	if prepare != nil {
		prepare(e)
	}
	return e.Run(w, closed)
}

// ends returns the steps and their final states.
func ends(r workflows.Result) string {
	var all []string
	for _, s := range r.Steps {
		all = append(all, s.Step+" "+string(s.State))
	}
	return strings.Join(all, ", ")
}

func (s *shop) happened(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.events, want) {
		t.Errorf("happened %q, want %q", s.events, want)
	}
}

var refused = activities.Blockedf("the bank refused")

func TestThenPassesTheResultOn(t *testing.T) {
	s := &shop{}
	r := s.run(t, func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, closed)
		charge := workflows.Start(run, workflows.Step{Name: "charge"}, s.Charge)
		workflows.Then(charge, workflows.Step{Name: "payout"}, s.PayOut)
		return run.Finish()
	}, nil)
	s.happened(t, "charge", "pay out 7")
	if r.State != workflows.StateDone || ends(r) != "charge done, payout done" || r.Steps[0].Summary != "charged 7" {
		t.Errorf("result %+v", r)
	}
}

// If a step isn't done, the steps that depend on it are skipped, and others continue.
func TestDependentsOfASkippedStepAreSkipped(t *testing.T) {
	s := &shop{failure: map[string]error{"charge": refused}}
	var details string
	r := s.run(t, func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, closed)
		charge := workflows.Start(run, workflows.Step{Name: "charge"}, s.Charge)
		payout := workflows.Then(charge, workflows.Step{Name: "payout"}, s.PayOut)
		workflows.Start(run, workflows.Step{Name: "survey", After: []workflows.Dependency{payout}}, s.Survey)
		workflows.Start(run, workflows.Step{Name: "archive"}, s.Archive)
		return run.Finish()
	}, func(e env) {
		e.After(time.Hour, func() {
			details = e.Details()
			e.Skip("charge", "a guest")
		})
	})
	slices.Sort(s.events) // the two run side by side
	s.happened(t, "archive", "charge failed")
	if r.State != workflows.StateSkipped || ends(r) != "charge skipped, payout skipped, survey skipped, archive done" {
		t.Errorf("result %+v", r)
	}
	if got := r.Steps[1].Summary; got != "skipped: charge wasn't done" {
		t.Errorf("summary %q", got)
	}
	if !workflows.IsBlocked(details) {
		t.Errorf("not reported as blocked:\n%s", details)
	}
	for _, want := range []string{"**charge** is **blocked**", "**payout** is waiting for **charge**", "**survey** is waiting for **payout**", "**archive** is done"} {
		if !strings.Contains(details, want) {
			t.Errorf("details lack %q:\n%s", want, details)
		}
	}
}

// After waits for several steps, and runs when the last of them is done.
func TestAfterSeveralSteps(t *testing.T) {
	for _, first := range []string{"charge", "archive"} {
		t.Run(first+" last", func(t *testing.T) {
			s := &shop{failure: map[string]error{first: refused}}
			r := s.run(t, func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
				run := workflows.Begin(ctx, closed)
				charge := workflows.Start(run, workflows.Step{Name: "charge"}, s.Charge)
				archive := workflows.Start(run, workflows.Step{Name: "archive"}, s.Archive)
				workflows.Start(run, workflows.Step{Name: "survey", After: []workflows.Dependency{charge, archive}}, s.Survey)
				return run.Finish()
			}, func(e env) {
				e.After(time.Hour, func() {
					delete(s.failure, first)
					e.Retry(first, "the bank was asked")
				})
			})
			if got := s.events[len(s.events)-1]; got != "survey" || len(s.events) != 4 || r.State != workflows.StateDone {
				t.Errorf("happened %q, result %+v", s.events, r)
			}
		})
	}
}

// compensated charges, pays out, and refunds if the payout wasn't done.
func (s *shop) compensated(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)
	charge := workflows.Start(run, workflows.Step{Name: "charge"}, s.Charge)
	payout := workflows.Then(charge, workflows.Step{Name: "payout"}, s.PayOut)
	if _, err := payout.Wait(); err != nil {
		if charged, err := charge.Wait(); err == nil {
			workflows.StartWith(run, workflows.Step{Name: "refund"}, s.Refund, charged)
		}
	}
	return run.Finish()
}

func TestCompensation(t *testing.T) {
	tests := map[string]struct {
		failure map[string]error
		prepare func(env)
		events  []string
		ends    string
		states  string
	}{
		"all is well": {nil, nil, []string{"charge", "pay out 7"}, "charge done, payout done", ""},
		"the payout is given up": {map[string]error{"pay out 7": activities.GiveUpf("no account")}, nil,
			[]string{"charge", "pay out 7 failed", "refund 7"}, "charge done, payout given_up, refund done", "given_up"},
		"the payout is skipped": {map[string]error{"pay out 7": refused},
			func(e env) { e.After(time.Hour, func() { e.Skip("payout", "fraud") }) },
			[]string{"charge", "pay out 7 failed", "refund 7"}, "charge done, payout skipped, refund done", "blocked unset skipped"},
		"nothing was charged": {map[string]error{"charge": refused},
			func(e env) { e.After(time.Hour, func() { e.Skip("charge", "a guest") }) },
			[]string{"charge failed"}, "charge skipped, payout skipped", "blocked unset skipped"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &shop{failure: tt.failure}
			e := newEnv(t, s)
			if tt.prepare != nil {
				tt.prepare(e)
			}
			r := e.Run(s.compensated, closed)
			s.happened(t, tt.events...)
			if ends(r) != tt.ends || e.states() != tt.states {
				t.Errorf("ended as %s, want %s; states %s, want %s", ends(r), tt.ends, e.states(), tt.states)
			}
		})
	}
}

// An optional step is given up, and not blocked.
func TestAnOptionalStepIsGivenUp(t *testing.T) {
	for name, failure := range map[string]error{
		"blocked":  activities.Blockedf("no address"),
		"given up": activities.GiveUpf("no address"),
		// The retry would come after the step's Timeout.
		"deadline": activities.RetryAfterf(25*time.Hour, "no address"),
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{failure: map[string]error{"survey": failure}}
			var details string
			r := s.run(t, func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
				run := workflows.Begin(ctx, closed)
				workflows.Start(run, workflows.Step{Name: "survey", Optional: true}, s.Survey)
				workflows.Start(run, workflows.Step{Name: "archive", NotBefore: closed.RoomCloseTime.Add(time.Hour)}, s.Archive)
				return run.Finish()
			}, func(e env) { e.After(time.Minute, func() { details = e.Details() }) })
			if r.State != workflows.StateGivenUp || ends(r) != "survey given_up, archive done" {
				t.Errorf("result %+v", r)
			}
			if got := r.Steps[0]; !strings.HasPrefix(got.Summary, "given up: ") || !strings.HasSuffix(got.Summary, "no address") || !strings.HasSuffix(got.Failure, "no address") || got.Output != nil {
				t.Errorf("survey %+v", got)
			}
			if !strings.Contains(details, "**survey** was given up: `") || !strings.Contains(details, "**archive** is waiting until 2017-07-10T09:56:29Z") {
				t.Errorf("details:\n%s", details)
			}
		})
	}
}

// A NotBefore in the past doesn't delay a step.
func TestNotBefore(t *testing.T) {
	for name, tt := range map[string]struct{ notBefore, want time.Duration }{
		"later": {3 * time.Hour, 3 * time.Hour}, "now": {0, 0}, "past": {-time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shop{}
			e := newEnv(t, s)
			var at time.Time
			e.OnActivity(s.Survey, mock.Anything, mock.Anything).Return(func(context.Context, activities.Task) (string, error) {
				at = e.Now()
				return "sent", nil
			})
			e.Run(func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
				run := workflows.Begin(ctx, closed)
				workflows.Start(run, workflows.Step{Name: "survey", NotBefore: closed.RoomCloseTime.Add(tt.notBefore)}, s.Survey)
				return run.Finish()
			}, closed)
			if got := at.Sub(closed.RoomCloseTime).Round(time.Minute); got != tt.want {
				t.Errorf("it started after %v, want %v", got, tt.want)
			}
		})
	}
}

// transcribed awaits a transcript and pays out its result.
func (s *shop) transcribed(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)
	job := workflows.Start(run, workflows.Step{Name: "charge", NotBefore: closed.RoomCloseTime.Add(time.Minute)}, s.Charge)
	transcript := workflows.Await[Charge](run, workflows.Step{Name: "transcript", Timeout: 6 * time.Hour, After: []workflows.Dependency{job}})
	workflows.Then(transcript, workflows.Step{Name: "payout"}, s.PayOut)
	return run.Finish()
}

func TestAwait(t *testing.T) {
	signal := func(e env, at time.Duration, v any) { e.After(at, func() { e.SignalWorkflow("transcript", v) }) }
	tests := map[string]struct {
		prepare func(env)
		states  string
		result  workflows.State
		events  []string
	}{
		"it arrives":                       {func(e env) { signal(e, time.Hour, Charge{5}) }, "", workflows.StateDone, []string{"charge", "pay out 5"}},
		"it arrives before the step waits": {func(e env) { signal(e, time.Second, Charge{5}) }, "", workflows.StateDone, []string{"charge", "pay out 5"}},
		"it arrives twice": {func(e env) { signal(e, time.Second, Charge{5}); signal(e, 2*time.Second, Charge{6}) },
			"", workflows.StateDone, []string{"charge", "pay out 5"}},
		"it can't be decoded at first": {func(e env) { signal(e, time.Hour, "no charge"); signal(e, 2*time.Hour, Charge{5}) },
			"", workflows.StateDone, []string{"charge", "pay out 5"}},
		"it never arrives": {func(e env) { e.After(7*time.Hour, func() { e.Skip("transcript", "too late") }) },
			"blocked unset skipped", workflows.StateSkipped, []string{"charge"}},
		"it arrives after a retry": {func(e env) {
			e.After(7*time.Hour, func() { e.Retry("transcript", "they were asked") })
			signal(e, 8*time.Hour, Charge{5})
		}, "blocked unset", workflows.StateDone, []string{"charge", "pay out 5"}},
		"it comes too late, before a decision": {func(e env) { signal(e, 7*time.Hour, Charge{5}) },
			"blocked unset", workflows.StateDone, []string{"charge", "pay out 5"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &shop{}
			e := newEnv(t, s)
			tt.prepare(e)
			r := e.Run(s.transcribed, closed)
			s.happened(t, tt.events...)
			if r.State != tt.result || e.states() != tt.states {
				t.Errorf("states %s, want %s; result %+v", e.states(), tt.states, r)
			}
			if tt.result == workflows.StateSkipped && r.Steps[1].Failure != `not done within 6h0m0s: no signal "transcript" arrived` {
				t.Errorf("failure %q", r.Steps[1].Failure)
			}
		})
	}
}

// Verdict is a result with which another system can report a failure.
type Verdict struct {
	Text    string
	Refused string
	Never   bool
}

func (v *Verdict) Err() error {
	switch {
	case v.Never:
		return activities.GiveUpf("never: %s", v.Refused)
	case v.Refused != "":
		return errors.New(v.Refused)
	}
	return nil
}

func TestAwaitedResultWithAnError(t *testing.T) {
	tests := map[string]struct {
		verdicts []Verdict // an hour apart
		states   string
		want     string // the failure, or the output's text
	}{
		"succeeds":             {[]Verdict{{Text: "yes"}}, "", "yes"},
		"fails, then succeeds": {[]Verdict{{Refused: "busy"}, {Text: "yes"}}, "blocked unset", "yes"},
		"fails twice":          {[]Verdict{{Refused: "busy"}, {Refused: "ill", Never: true}}, "blocked unset given_up", "never: ill"},
		"fails for good":       {[]Verdict{{Refused: "ill", Never: true}}, "given_up", "never: ill"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			for i, v := range tt.verdicts {
				e.After(time.Duration(i+1)*time.Hour, func() { e.SignalWorkflow("review", v) })
			}
			r := e.Run(func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
				run := workflows.Begin(ctx, closed)
				workflows.Await[Verdict](run, workflows.Step{Name: "review"})
				return run.Finish()
			}, closed)
			got := r.Steps[0].Failure
			if output, ok := r.Steps[0].Output.(map[string]any); ok {
				got, _ = output["Text"].(string)
			}
			if got != tt.want || e.states() != tt.states {
				t.Errorf("%q, states %s; want %q, %s", got, e.states(), tt.want, tt.states)
			}
		})
	}
}

// A cancelled run ends, whatever its steps wait for.
func TestCancelledWhileStepsWait(t *testing.T) {
	s := &shop{}
	e := newEnv(t, s)
	e.After(10*time.Minute, e.CancelWorkflow)
	e.Start(func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, closed)
		transcript := workflows.Await[Charge](run, workflows.Step{Name: "transcript"})
		workflows.Then(transcript, workflows.Step{Name: "payout"}, s.PayOut)
		later := workflows.Start(run, workflows.Step{Name: "survey", NotBefore: closed.RoomCloseTime.Add(time.Hour)}, s.Survey)
		if _, err := later.Wait(); !temporal.IsCanceledError(err) {
			t.Errorf("error %v, want a cancellation", err)
		}
		return run.Finish()
	}, closed)
	if err := e.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error %v, want a cancellation", err)
	}
	s.happened(t)
}

// An older run continues without a step that was added later, and without the steps that
// depend on it.
func TestAddedSteps(t *testing.T) {
	for name, version := range map[string]workflow.Version{"an older run": workflow.DefaultVersion, "a new run": 1} {
		t.Run(name, func(t *testing.T) {
			s := &shop{}
			e := newEnv(t, s)
			e.OnGetVersion("step charge", workflow.DefaultVersion, workflow.Version(1)).Return(version)
			r := e.Run(func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
				run := workflows.Begin(ctx, closed)
				workflows.Start(run, workflows.Step{Name: "archive"}, s.Archive)
				charge := workflows.Start(run, workflows.Step{Name: "charge", AddedLater: true}, s.Charge)
				workflows.Then(charge, workflows.Step{Name: "payout"}, s.PayOut)
				if _, err := charge.Wait(); errors.Is(err, workflows.ErrAddedLater) == (version == 1) || (err == nil) != (version == 1) {
					t.Errorf("error %v", err)
				}
				return run.Finish()
			}, closed)
			want := "archive done"
			if version == 1 {
				want = "archive done, charge done, payout done"
			}
			if ends(r) != want || r.State != workflows.StateDone {
				t.Errorf("ended as %s, want %s", ends(r), want)
			}
		})
	}
}

func TestStepNamesMustBeUnique(t *testing.T) {
	for _, name := range []string{"", "archive"} {
		s := &shop{}
		e := newEnv(t, s)
		e.Start(func(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
			run := workflows.Begin(ctx, closed)
			workflows.Start(run, workflows.Step{Name: "archive"}, s.Archive)
			workflows.Start(run, workflows.Step{Name: name}, s.Survey)
			return run.Finish()
		}, closed)
		if err := e.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("step %q: want a name", name)) {
			t.Errorf("error %v", err)
		}
	}
}

func TestNameOfAWorkflow(t *testing.T) {
	s := &shop{}
	for want, w := range map[string]workflows.Workflow{"RoomClose": workflows.RoomClose, "transcribed": s.transcribed} {
		if got := workflows.Name(w); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// signaller is a fake Temporal with one run.
type signaller struct {
	client.Client
	id, name string
	value    any
}

func (s *signaller) SignalWorkflow(_ context.Context, id, runID, name string, value any) error {
	if id != s.id || runID != "" {
		return errors.New("no such run")
	}
	s.name, s.value = name, value
	return nil
}

func TestSignal(t *testing.T) {
	s := &signaller{id: "room-close-1-18446744073709551615"}
	if err := workflows.Signal(t.Context(), s, closed.WorkflowID(), "transcript", 7); err != nil || s.name != "transcript" || s.value != 7 {
		t.Errorf("%q, %v, error %v", s.name, s.value, err)
	}
	s.id = "another"
	if err := workflows.Signal(t.Context(), s, closed.WorkflowID(), "transcript", 7); err == nil || !strings.Contains(err.Error(), `signal "transcript" to room-close-1-`) {
		t.Errorf("error %v", err)
	}
}
