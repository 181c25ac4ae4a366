package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// Run is the run of a post-close Workflow: its steps, and what people decided about
// them.
type Run struct {
	ctx        workflow.Context
	session    session.Session
	steps      []*step
	decisions  []DecisionResult
	searchable bool                 // whether the Namespace has our Search Attributes
	shown      State                // the value of CloseoutState; "" if it is not set
	adjusted   *activities.Adjusted // in an adjustment run, once it is made
}

// Begin begins the run that closes out session. Start its steps with [Start], and
// end with [Run.Finish].
func Begin(ctx workflow.Context, closed session.Session) *Run {
	if r, ok := ctx.Value(runKey{}).(*Run); ok {
		return r // an adjustment run
	}
	r := &Run{ctx: ctx, session: closed}
	// A Namespace without the Search Attributes would fail every Workflow Task that
	// sets one. Runs are then started without them.
	if _, r.searchable = workflow.GetTypedSearchAttributes(ctx).GetKeyword(RoomID); !r.searchable {
		workflow.Go(ctx, r.awaitIndex)
	}
	r.handle(UpdateRetry, "Try a blocked step again.")
	r.handle(UpdateSkip, "Go on without a blocked step.")
	return r
}

// Adjustment returns the number of the adjustment whose run this is; 0 if it is the run
// that closes out the session. The Workflow function is run for adjustments too, where only
// steps that set [Step.Adjusts] run: what it does besides steps it must do only if
// Adjustment is 0.
func (r *Run) Adjustment() int {
	if r.adjusted == nil {
		return 0
	}
	return r.adjusted.Number
}

// awaitIndex sets the Search Attributes once the Namespace has them.
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
// only if the run is cancelled: a step that fails doesn't fail the run.
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

// enter changes the state of a step and shows it.
func (r *Run) enter(st *step, state State) {
	st.state = state
	workflow.SetCurrentDetails(r.ctx, r.details())
	workflow.GetMetricsHandler(r.ctx).WithTags(map[string]string{"step": st.Name, "state": string(state)}).Counter("closeout_steps_total").Inc(1)
	if !r.ended() { // else another step or Finish follows in the same task
		r.showState()
	}
}

// showState sets CloseoutState where it says more than the execution's status does.
// Each change is an event in the history, so running and done are not shown.
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

// state returns the state of the run: that of the step which matters most to people.
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

// summarize returns what people see of a step's result.
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
