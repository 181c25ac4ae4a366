package workflows

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// Step describes a step of a workflow. Only the name is needed.
type Step struct {
	// Name is what people call the step, in the Web UI and in a [Decision]. The
	// step's idempotency key is made of it and the session, so it can't be changed
	// later, and if a session has several workflows, no two of their steps may share
	// one.
	Name string
	// Summary is a line about the step for the Web UI's timeline.
	Summary string
	// Deadline is how long the step is retried before it is blocked; a day unless
	// set. It starts anew when a person has the step retried.
	Deadline time.Duration
	// Attempt is how long one attempt may take; a minute unless set.
	Attempt time.Duration
	// Heartbeat is how long an attempt may be silent; for steps that heartbeat.
	Heartbeat time.Duration
	// After are steps that have to be done before this one begins. If one of them
	// ends without, so does this one.
	After []Earlier
	// NotBefore is when the step begins at the earliest, by the workflow's clock.
	NotBefore time.Time
	// Settled says that the step doesn't begin before what ZEGO still sends of the
	// session should have come: some time after the run has begun, which is a setting
	// of the workers. Runs that are older than this go on without waiting.
	Settled bool
	// Optional says that the run can do without the step: where another one would
	// wait for a person, it is given up.
	Optional bool
	// Added says that the step came to a workflow which had been deployed without
	// it. Runs that are older than the step then go on without it; otherwise they
	// could not be replayed.
	Added bool
}

// The backoff between the attempts of a step.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Steps are the steps of one run, and what people decide about them.
type Steps struct {
	ctx       workflow.Context
	session   activities.Session
	steps     []*step
	decisions []DecisionResult
	shown     State // what CloseoutState says; empty if the namespace lacks it
}

type step struct {
	Step
	state    State
	summary  string             // of the output
	output   any                // of the activity
	failure  string             // the last one
	reason   string             // for which it was skipped
	decision string             // made, and not yet acted upon
	arrived  func() bool        // whether what an awaited step waits for has come; or nil
	waited   *activities.Waited // how long it has, by its own word; or nil
	waits    string             // and what for
}

// Begin begins a run that closes the session out. Call [Run] for each step and
// then [Steps.Finish].
func Begin(ctx workflow.Context, session activities.Session) *Steps {
	s := &Steps{ctx: ctx, session: session}
	if _, ok := workflow.GetTypedSearchAttributes(ctx).GetKeyword(CloseoutState); ok {
		s.shown = StateRunning
	}
	s.offer(UpdateRetry, "Try a blocked step again.")
	s.offer(UpdateSkip, "Do without a blocked step.")
	return s
}

// Future is what will come of a step.
type Future[R any] struct {
	steps  *Steps
	step   *step // nil if the run is older than the step
	result R
}

// Earlier is the [Future] of a step, whatever its result.
type Earlier interface{ earlier() *step }

func (f *Future[R]) earlier() *step { return f.step }

// Wait waits for the step and gives what it returned. done is false if there is
// no such result, and never will be: the step was skipped or given up, the run
// was cancelled, or it is older than the step. The steps that were begun go on
// meanwhile. Only the workflow function itself can wait, not a coroutine of it.
func (f *Future[R]) Wait() (result R, done bool) {
	if f.step == nil || workflow.Await(f.steps.ctx, f.step.ended) != nil || f.step.state != StateDone {
		return result, false
	}
	return f.result, true
}

// Run runs a step beside the others. The activity is tried until it succeeds,
// with a growing pause between the attempts. Where it can't succeed
// ([activities.Blocked]), or hasn't by the step's deadline, the step waits for a
// person. If the activity's result is a string or has a String method, that is
// how people see it.
func Run[R any](s *Steps, definition Step, activity func(context.Context, activities.Task) (R, error)) *Future[R] {
	return begin(s, definition, func(ctx workflow.Context, task activities.Task, result *R) error {
		return workflow.ExecuteActivity(ctx, activity, task).Get(ctx, result)
	})
}

// RunWith is [Run] for an activity that needs to know more than the session.
// Like everything that a workflow hands to an activity, the input is kept in the
// history: it should be small, and no secret.
func RunWith[I, R any](s *Steps, definition Step, activity func(context.Context, activities.Task, I) (R, error), input I) *Future[R] {
	return begin(s, definition, func(ctx workflow.Context, task activities.Task, result *R) error {
		return workflow.ExecuteActivity(ctx, activity, task, input).Get(ctx, result)
	})
}

// Then runs a step with what an earlier one returned, as soon as that is done.
func Then[I, R any](earlier *Future[I], definition Step, activity func(context.Context, activities.Task, I) (R, error)) *Future[R] {
	definition.After = append(slices.Clip(definition.After), earlier)
	return begin(earlier.steps, definition, func(ctx workflow.Context, task activities.Task, result *R) error {
		return workflow.ExecuteActivity(ctx, activity, task, earlier.result).Get(ctx, result)
	})
}

// Await adds a step that somebody else does. It is done when the signal that is
// named as the step arrives, be it before the step begins, and its result is what
// the signal carries; one that carries something else is ignored. [Signal] sends
// one. Where none arrives by the deadline, the step waits for a person, and still
// for the signal.
//
// If the result has a method Err() error, by which somebody else can say that it
// wasn't done, the error blocks the step, or gives it up if it is an
// [activities.GiveUp].
func Await[R any](s *Steps, definition Step) *Future[R] {
	signals := workflow.GetSignalChannel(s.ctx, definition.Name)
	arrived := func() bool { return signals.Len() > 0 }
	future := begin(s, definition, func(ctx workflow.Context, _ activities.Task, result *R) error {
		most := deadline(definition)
		for until := workflow.Now(ctx).Add(most); ; {
			came, err := workflow.AwaitWithTimeout(ctx, until.Sub(workflow.Now(ctx)), arrived)
			switch {
			case err != nil:
				return err
			case !came:
				return fmt.Errorf("not done within %v: no signal %q came", most, definition.Name)
			case signals.ReceiveAsync(result):
				if failed, ok := any(result).(interface{ Err() error }); ok {
					return failed.Err()
				}
				return nil
			}
			// It carried something else, which the SDK has logged and dropped.
			*result = *new(R)
		}
	})
	if future.step != nil {
		future.step.arrived = arrived
	}
	return future
}

func deadline(definition Step) time.Duration { return cmp.Or(definition.Deadline, 24*time.Hour) }

// begin adds a step and takes it to its end beside the others.
func begin[R any](s *Steps, definition Step, attempt func(workflow.Context, activities.Task, *R) error) *Future[R] {
	if definition.Name == "" || slices.ContainsFunc(s.steps, func(other *step) bool { return other.Name == definition.Name }) {
		panic(fmt.Sprintf("step %q: want a name that no other step of the workflow has", definition.Name))
	}
	future := &Future[R]{steps: s}
	if slices.ContainsFunc(definition.After, func(e Earlier) bool { return e.earlier() == nil }) {
		return future // a run that is too old for the one is too old for the other
	}
	if definition.Added && workflow.GetVersion(s.ctx, "step "+definition.Name, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return future
	}
	definition.Summary = cmp.Or(definition.Summary, definition.Name)
	definition.Deadline = deadline(definition)
	st := &step{Step: definition}
	future.step = st
	s.steps = append(s.steps, st)
	options := workflow.ActivityOptions{
		Summary:                st.Summary,
		ScheduleToCloseTimeout: st.Deadline,
		StartToCloseTimeout:    cmp.Or(st.Attempt, time.Minute),
		HeartbeatTimeout:       st.Heartbeat,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: firstRetry, BackoffCoefficient: 2, MaximumInterval: lastRetry},
	}
	task := activities.Task{Session: s.session, IdempotencyKey: IdempotencyKey(s.session, st.Name)}
	workflow.Go(s.ctx, func(ctx workflow.Context) {
		ctx = workflow.WithActivityOptions(ctx, options)
		if !s.due(ctx, st) {
			return
		}
		s.follow(ctx, st, func() error {
			var result R
			if err := s.patiently(ctx, st, task, func(task activities.Task) (*activities.Waiting, error) {
				result = *new(R)
				err := attempt(ctx, task, &result)
				if w, ok := any(result).(activities.Waiter); ok && err == nil {
					return w.Waits(), nil
				}
				return nil, err
			}); err != nil {
				return err
			}
			future.result, st.output, st.summary = result, result, inWords(result)
			return nil
		})
	})
	return future
}

// patiently attempts a step for as long as it says that it has to wait.
func (s *Steps) patiently(ctx workflow.Context, st *step, task activities.Task, attempt func(activities.Task) (*activities.Waiting, error)) error {
	signals := workflow.GetSignalChannel(ctx, st.Name)
	arrived := func() bool { return signals.Len() > 0 }
	for {
		began := workflow.Now(ctx)
		if st.waited != nil {
			for arrived() {
				signals.ReceiveAsync(nil) // whatever it carries
			}
			waited := *st.waited
			waited.Now, task.Waited = began, &waited
		}
		waiting, err := attempt(task)
		if err != nil || waiting == nil {
			return err
		}
		if st.waited == nil {
			st.waited = &activities.Waited{Since: began}
			st.arrived = arrived // from now on, also when it is blocked
		}
		st.waited.Times++
		st.waited.Note, st.waits = waiting.Note, waiting.For
		s.enter(st, StateWaiting)
		if _, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
			Timeout: waiting.Pause, TimerOptions: workflow.TimerOptions{Summary: clip("Wait for "+waiting.For, mostOfTimer)},
		}, arrived); err != nil {
			return err
		}
		st.waits = ""
		s.enter(st, StateRunning)
	}
}

// mostOfTimer is how many characters a timer's summary may have: Temporal's limit
// is 400 bytes.
const mostOfTimer = 95

// inWords is what people see of a result.
func inWords(result any) string {
	switch r := result.(type) {
	case fmt.Stringer:
		return r.String()
	case string:
		return r
	default:
		return "done"
	}
}

// due waits until a step may begin, and says whether it may.
func (s *Steps) due(ctx workflow.Context, st *step) bool {
	for _, e := range st.After {
		earlier := e.earlier()
		if !earlier.ended() {
			s.enter(st, StateWaiting)
		}
		if workflow.Await(ctx, earlier.ended) != nil {
			return false // Finish says that the run was cancelled
		}
		if earlier.state != StateDone {
			st.reason = earlier.Name + " wasn't done"
			s.enter(st, StateSkipped)
			return false
		}
	}
	if !s.settles(ctx, st) {
		return false
	}
	if wait := st.NotBefore.Sub(workflow.Now(ctx)); wait > 0 {
		s.enter(st, StateWaiting)
		summary := "Until " + st.Name + " may begin"
		if st.Settled {
			summary = "What ZEGO still sends of the session comes in, before " + st.Name
		}
		return workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: summary}).Get(ctx, nil) == nil
	}
	return true
}

// settles puts a step off that has to be settled. It fails if the run was
// cancelled.
func (s *Steps) settles(ctx workflow.Context, st *step) bool {
	if !st.Settled || workflow.GetVersion(ctx, "settled "+st.Name, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return true
	}
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: 10 * time.Second})
	var settling time.Duration
	// It has no more to do than to say it, so only a cancellation ends it.
	if err := workflow.ExecuteLocalActivity(ctx, do.Billing.SettlingTime).Get(ctx, &settling); err != nil {
		return false
	}
	if settled := workflow.GetInfo(ctx).WorkflowStartTime.Add(settling); settled.After(st.NotBefore) {
		st.NotBefore = settled
	}
	return true
}

// follow takes a step to its end.
func (s *Steps) follow(ctx workflow.Context, st *step, attempt func() error) {
	for {
		s.enter(st, StateRunning)
		err := attempt()
		if err == nil {
			s.enter(st, StateDone)
			return
		}
		if ctx.Err() != nil {
			return // Finish says that the run was cancelled
		}
		st.failure = failure(err, st.Deadline)
		logger := workflow.GetLogger(ctx)
		if st.Optional || activities.IsGivenUp(err) {
			logger.Warn("step given up", "step", st.Name, "session", s.session.Key(), "failure", st.failure)
			s.enter(st, StateGivenUp)
			return
		}
		logger.Warn("step blocked", "step", st.Name, "session", s.session.Key(), "failure", st.failure)
		s.enter(st, StateBlocked)
		if workflow.Await(ctx, func() bool { return st.decision != "" || st.arrived != nil && st.arrived() }) != nil {
			return
		}
		logger.Info("step goes on", "step", st.Name, "session", s.session.Key(), "by", cmp.Or(st.decision, "signal"))
		if st.decision == UpdateSkip {
			s.enter(st, StateSkipped)
			return
		}
		if st.decision == UpdateRetry {
			st.waited = nil // it has all of its time again
		}
		st.decision = ""
	}
}

// Finish waits for the steps and says what came of them. Its error is that of a
// run which was cancelled; a step's failure is none.
func (s *Steps) Finish() (Result, error) {
	if err := workflow.Await(s.ctx, s.ended); err != nil {
		return Result{}, err
	}
	s.show()
	result := Result{Session: s.session, State: s.state(), Decisions: s.decisions}
	for _, st := range s.steps {
		r := StepResult{Step: st.Name, State: st.state, Summary: st.summary, Output: st.output}
		switch st.state {
		case StateSkipped:
			r.Summary, r.Failure = "skipped: "+st.reason, st.failure
		case StateGivenUp:
			r.Summary, r.Failure = "given up: "+st.failure, st.failure
		}
		result.Steps = append(result.Steps, r)
	}
	workflow.GetLogger(s.ctx).Info("session closed out", "session", s.session.Key(), "state", result.State)
	return result, nil
}

// enter moves a step to a state and lets people see it.
func (s *Steps) enter(st *step, state State) {
	st.state = state
	workflow.SetCurrentDetails(s.ctx, s.details())
	workflow.GetMetricsHandler(s.ctx).WithTags(map[string]string{"step": st.Name, "state": string(state)}).Counter("closeout_steps").Inc(1)
	if !s.ended() { // else there is another step to come, or Finish
		s.show()
	}
}

// show lets people find the run by its state.
func (s *Steps) show() {
	now := s.state()
	if s.shown == "" || s.shown == now {
		return
	}
	s.shown = now
	if err := workflow.UpsertTypedSearchAttributes(s.ctx, CloseoutState.ValueSet(string(now))); err != nil {
		workflow.GetLogger(s.ctx).Error("search attribute not set", "attribute", CloseoutState.GetName(), "error", err)
	}
}

// state is the state of the run as a whole: the one of its steps that matters
// most to people.
func (s *Steps) state() State {
	is := func(state State) bool {
		return slices.ContainsFunc(s.steps, func(st *step) bool { return st.state == state })
	}
	switch {
	case is(StateBlocked):
		return StateBlocked
	case !s.ended():
		return StateRunning
	case is(StateGivenUp):
		return StateGivenUp
	case is(StateSkipped):
		return StateSkipped
	}
	return StateDone
}

// ended says whether all steps that there are so far have ended.
func (s *Steps) ended() bool {
	return !slices.ContainsFunc(s.steps, func(st *step) bool { return !st.ended() })
}

func (st *step) ended() bool {
	return st.state == StateDone || st.state == StateSkipped || st.state == StateGivenUp
}
