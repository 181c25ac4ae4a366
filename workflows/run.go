package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// Run is a run of a post-close Workflow: its steps, and the operators' decisions about
// them.
type Run struct {
	ctx        workflow.Context
	session    session.Session
	steps      []*step
	decisions  []DecisionResult
	searchable bool                 // the Namespace has our Search Attributes
	shown      State                // the value of CloseoutState; "" if it is not set
	adjusted   *activities.Adjusted // nil unless this run has made an adjustment
}

// Begin begins the run that closes out a session. Start its steps with [Start], and
// end with [Run.Finish].
func Begin(ctx workflow.Context, closed session.Session) *Run {
	if r, ok := ctx.Value(runKey{}).(*Run); ok {
		return r // an adjustment run
	}
	r := &Run{ctx: ctx, session: closed}
	// In a Namespace without the Search Attributes, every Workflow Task that sets one would
	// fail. There, runs are started without them.
	if _, r.searchable = workflow.GetTypedSearchAttributes(ctx).GetKeyword(RoomID); !r.searchable {
		workflow.Go(ctx, r.awaitIndex)
	}
	r.handle(UpdateRetry, "Try a blocked step again.")
	r.handle(UpdateSkip, "Go on without a blocked step.")
	return r
}

// Adjustment returns the number of the adjustment in an adjustment run, and 0 in the run
// that closes out the session. Adjustment runs call the Workflow function again, but run
// only steps with [Step.Adjusts]. If the function does anything besides starting steps, do
// that only if Adjustment returns 0.
func (r *Run) Adjustment() int {
	if r.adjusted == nil {
		return 0
	}
	return r.adjusted.Number
}

// awaitIndex sets the Search Attributes when [SignalIndex] arrives.
func (r *Run) awaitIndex(ctx workflow.Context) {
	workflow.GetSignalChannel(ctx, SignalIndex).Receive(ctx, nil)
	if err := workflow.UpsertTypedSearchAttributes(ctx, searchAttributes(r.session)...); err != nil {
		workflow.GetLogger(ctx).Error("search attributes not set", "error", err)
		return
	}
	r.searchable = true
	r.showState()
}

// Finish waits for all steps and returns the Workflow's result. It returns an error
// only if the run is cancelled. A step that fails doesn't fail the run.
func (r *Run) Finish() (Result, error) {
	if err := workflow.Await(r.ctx, r.ended); err != nil {
		return Result{}, err
	}
	r.showState()
	result := Result{State: r.state(), Decisions: r.decisions}
	for _, st := range r.steps {
		s := StepResult{Step: st.Name, State: st.state, Summary: st.summary, Output: st.output}
		switch st.state {
		case StateSkipped:
			s.Summary, s.Failure = "skipped: "+st.reason, st.failure
		case StateGivenUp:
			s.Summary, s.Failure = "given up: "+st.failure, st.failure
		}
		result.Steps = append(result.Steps, s)
	}
	workflow.GetLogger(r.ctx).Info("session closed out", "session", r.session.String(), "state", result.State)
	return result, nil
}

// enter sets the state of a step and shows it in the Web UI.
func (r *Run) enter(st *step, state State) {
	st.state = state
	workflow.SetCurrentDetails(r.ctx, r.details())
	workflow.GetMetricsHandler(r.ctx).WithTags(map[string]string{"step": st.Name, "state": string(state)}).Counter("closeout_steps_total").Inc(1)
	if !r.ended() { // otherwise another step or Finish follows in the same Workflow Task
		r.showState()
	}
}

// showState sets CloseoutState to the state of the run, and unsets it if the run is
// running or done: the execution's status shows that, and each change costs an event in
// the history.
func (r *Run) showState() {
	state := r.state()
	if state == StateRunning || state == StateDone {
		state = ""
	}
	if !r.searchable || r.shown == state {
		return
	}
	r.shown = state
	update := CloseoutState.ValueUnset()
	if state != "" {
		update = CloseoutState.ValueSet(string(state))
	}
	if err := workflow.UpsertTypedSearchAttributes(r.ctx, update); err != nil {
		workflow.GetLogger(r.ctx).Error("search attribute not set", "attribute", CloseoutState.GetName(), "error", err)
	}
}

// state returns the state of the run. A blocked step counts most, then a running, a given
// up and a skipped one.
func (r *Run) state() State {
	has := func(state State) bool {
		return slices.ContainsFunc(r.steps, func(st *step) bool { return st.state == state })
	}
	switch {
	case has(StateBlocked):
		return StateBlocked
	case !r.ended():
		return StateRunning
	case has(StateGivenUp):
		return StateGivenUp
	case has(StateSkipped):
		return StateSkipped
	}
	return StateDone
}

// ended reports whether all steps so far have ended.
func (r *Run) ended() bool {
	return !slices.ContainsFunc(r.steps, func(st *step) bool { return !st.ended() })
}

// summarize returns the summary of a step's result for the Web UI.
func summarize(result any) string {
	switch r := result.(type) {
	case fmt.Stringer:
		return r.String()
	case string:
		return r
	default:
		return "done"
	}
}
