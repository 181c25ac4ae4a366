package workflows

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// Step describes a step: one Activity of a post-close Workflow, with its retries
// and its place in the Web UI. Only Name is required.
type Step struct {
	// Name identifies the step in the Web UI, in a [Decision], and in the step's
	// idempotency key. Never change it: with another name the step has another key.
	// Steps of all Workflows of one session need different names.
	Name string
	// Summary describes the step on the Web UI's Timeline. Default: Name.
	Summary string
	// Timeout bounds the step with all its retries. After it the step is blocked. An
	// operator's retry starts a new Timeout. Default: 24 hours.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt. Default: 1 minute.
	AttemptTimeout time.Duration
	// HeartbeatTimeout bounds the time between two heartbeats of an attempt, for
	// Activities that heartbeat. Default: none.
	HeartbeatTimeout time.Duration
	// RetryPolicy replaces the default: retries after 1 s, 2 s, 4 s, at most 5
	// minutes apart. Prefer to leave MaximumAttempts unset: Timeout bounds the step.
	RetryPolicy *temporal.RetryPolicy
	// Quick makes the first attempt a local Activity of at most 5 seconds, which
	// spares Temporal the scheduling of an Activity. If that attempt fails, takes
	// longer, or returns [activities.ErrNotQuick], an Activity with all retries follows.
	Quick bool
	// After lists steps that must succeed before this one starts. If one of them is
	// skipped or given up, this step is skipped.
	After []Dependency
	// NotBefore delays the step until that time of the Workflow's clock.
	NotBefore time.Time
	// AfterSettling delays the step until CLOSEOUT_SETTLING after the run was started,
	// so that callbacks ZEGO is still retrying are included. A run that itself starts
	// with that delay doesn't wait again.
	AfterSettling bool
	// Optional means that the step is given up, and not blocked, when it fails for good.
	Optional bool
	// Adjusts makes the step run in adjustment runs too, each time with a new idempotency
	// key: see [activities.Task.Adjustment]. Adjustment runs skip all other steps, except
	// that [Billing] is done and its result is the adjusted bill.
	Adjusts bool
	// AddedLater must be set when you add a step to a deployed Workflow. Runs that
	// started earlier skip the step, which keeps their replay deterministic.
	AddedLater bool
}

// The default retries of a step.
const (
	defaultTimeout        = 24 * time.Hour
	defaultAttemptTimeout = time.Minute
	firstRetryInterval    = time.Second
	maxRetryInterval      = 5 * time.Minute
)

// quickTimeout bounds a quick attempt. It is half of Temporal's default Workflow
// Task timeout, so that no Workflow Task needs heartbeats to be extended.
const quickTimeout = 5 * time.Second

// Start starts a step and returns at once; steps run concurrently. The Activity is
// retried until it succeeds. If it returns [activities.Blockedf], or hasn't
// succeeded within the step's Timeout, the step is blocked until an operator decides.
// The Web UI shows the result if it is a string or has a String method.
func Start[R any](r *Run, definition Step, activity func(context.Context, activities.Task) (R, error)) *Future[R] {
	return startActivity[R](r, definition, activity, func() []any { return nil })
}

// StartWith is [Start] for an Activity with an input besides the session. The Workflow's
// history keeps the input, so it must be small and free of secrets.
func StartWith[I, R any](r *Run, definition Step, activity func(context.Context, activities.Task, I) (R, error), input I) *Future[R] {
	return startActivity[R](r, definition, activity, func() []any { return []any{input} })
}

// Then starts a step after an earlier step has succeeded, with the result of that step
// as its input.
func Then[I, R any](earlier *Future[I], definition Step, activity func(context.Context, activities.Task, I) (R, error)) *Future[R] {
	definition.After = append(slices.Clip(definition.After), earlier)
	return startActivity[R](earlier.run, definition, activity, func() []any { return []any{earlier.result} })
}

// startActivity starts a step whose attempts run an Activity.
func startActivity[R any](r *Run, definition Step, activity any, inputs func() []any) *Future[R] {
	options := workflow.ActivityOptions{
		Summary:                cmp.Or(definition.Summary, definition.Name),
		ScheduleToCloseTimeout: cmp.Or(definition.Timeout, defaultTimeout),
		StartToCloseTimeout:    cmp.Or(definition.AttemptTimeout, defaultAttemptTimeout),
		HeartbeatTimeout:       definition.HeartbeatTimeout,
		RetryPolicy: cmp.Or(definition.RetryPolicy,
			&temporal.RetryPolicy{InitialInterval: firstRetryInterval, BackoffCoefficient: 2, MaximumInterval: maxRetryInterval}),
	}
	quick := workflow.LocalActivityOptions{
		Summary:                options.Summary,
		ScheduleToCloseTimeout: quickTimeout,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	}
	return add(r, definition, func(ctx workflow.Context, task activities.Task, result *R) error {
		args := append([]any{task}, inputs()...)
		if definition.Quick {
			err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, quick), activity, args...).Get(ctx, result)
			if err == nil || activities.IsBlocked(err) || activities.IsGivenUp(err) || ctx.Err() != nil {
				return err
			}
			if pause := retryDelay(err); pause > options.ScheduleToCloseTimeout {
				return err
			} else if pause > 0 {
				timer := workflow.TimerOptions{Summary: clip("Wait to retry "+definition.Name, maxTimerSummary)}
				if err := workflow.NewTimerWithOptions(ctx, pause, timer).Get(ctx, nil); err != nil {
					return err
				}
			}
			*result = *new(R)
		}
		return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, args...).Get(ctx, result)
	})
}

// retryDelay returns the pause that an [activities.RetryAfterf] asks for, or 0.
func retryDelay(err error) time.Duration {
	if app := new(temporal.ApplicationError); errors.As(err, &app) {
		return app.NextRetryDelay()
	}
	return 0
}

// Await adds a step that is done outside Closeout. The step succeeds when the Signal named
// after it arrives, and its result is the Signal's content. Send the Signal with [Signal];
// it may arrive before the step starts. If none arrives within Timeout, the step is
// blocked, and a Signal still completes it. Await ignores a Signal that R can't decode.
//
// If the result has a method Err() error that returns an error, the step is blocked
// with that error, or given up if the error is an [activities.GiveUpf].
func Await[R any](r *Run, definition Step) *Future[R] {
	signals := workflow.GetSignalChannel(r.ctx, definition.Name)
	arrived := func() bool { return signals.Len() > 0 }
	timeout := cmp.Or(definition.Timeout, defaultTimeout)
	timer := workflow.TimerOptions{Summary: clip(cmp.Or(definition.Summary, definition.Name), maxTimerSummary)}
	future := add(r, definition, func(ctx workflow.Context, _ activities.Task, result *R) error {
		for until := workflow.Now(ctx).Add(timeout); ; {
			came, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: until.Sub(workflow.Now(ctx)), TimerOptions: timer}, arrived)
			switch {
			case err != nil:
				return err
			case !came:
				return fmt.Errorf("not done within %v: no signal %q arrived", timeout, definition.Name)
			case signals.ReceiveAsync(result):
				if failed, ok := any(result).(interface{ Err() error }); ok {
					return failed.Err()
				}
				return nil
			}
			*result = *new(R) // the SDK logged and dropped what it couldn't decode
		}
	})
	if future.step != nil {
		future.step.arrived = arrived
	}
	return future
}

// step is a step of one run.
type step struct {
	Step
	state    State
	summary  string             // of the output
	output   any                // of the Activity
	failure  string             // the last one
	reason   string             // of a skip
	decision string             // made and not yet acted upon
	arrived  func() bool        // reports whether a Signal has come that wakes the step; or nil
	waited   *activities.Waited // nil until the step returns a Waiting
	waitsFor string             // the For of its last Waiting
	retried  *activities.Retried
}

func (st *step) ended() bool {
	return st.state == StateDone || st.state == StateSkipped || st.state == StateGivenUp
}

// add adds a step to the run and starts it.
func add[R any](r *Run, definition Step, attempt func(workflow.Context, activities.Task, *R) error) *Future[R] {
	if definition.Name == "" || slices.ContainsFunc(r.steps, func(other *step) bool { return other.Name == definition.Name }) {
		panic(fmt.Sprintf("step %q: want a name that no other step of the Workflow has", definition.Name))
	}
	future := &Future[R]{run: r}
	if slices.ContainsFunc(definition.After, func(d Dependency) bool { return d.dependency() == nil }) {
		return future // the run started before the dependency was added
	}
	if r.adjusted != nil && !definition.Adjusts {
		future.step = &step{Step: definition, state: StateSkipped, reason: "it doesn't run in adjustments"}
		if bill, ok := any(activities.Bill{Bill: r.adjusted.Bill, Posted: r.adjusted.Posted}).(R); ok && definition.Name == Billing.Name {
			future.result, future.step.state = bill, StateDone
		}
		return future
	}
	if definition.AddedLater && workflow.GetVersion(r.ctx, "step "+definition.Name, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return future
	}
	definition.Summary = cmp.Or(definition.Summary, definition.Name)
	definition.Timeout = cmp.Or(definition.Timeout, defaultTimeout)
	st := &step{Step: definition}
	future.step = st
	r.steps = append(r.steps, st)
	task := activities.Task{Session: r.session, IdempotencyKey: r.session.IdempotencyKey(st.Name), Adjustment: r.Adjustment()}
	if task.Adjustment > 0 {
		task.IdempotencyKey = r.session.IdempotencyKey(fmt.Sprintf("%s-adjustment-%d", st.Name, task.Adjustment))
	}
	if info := workflow.GetInfo(r.ctx); info.OriginalRunID != "" && info.OriginalRunID != info.WorkflowExecution.RunID {
		task.Reset = info.WorkflowExecution.RunID
	}
	workflow.Go(r.ctx, func(ctx workflow.Context) {
		if !r.awaitStart(ctx, st) {
			return
		}
		r.execute(ctx, st, func() error {
			var result R
			if err := r.attempt(ctx, st, task, func(task activities.Task) (*activities.Waiting, error) {
				result = *new(R)
				err := attempt(ctx, task, &result)
				if w, ok := any(result).(activities.Waiter); ok && err == nil {
					return w.Waits(), nil
				}
				return nil, err
			}); err != nil {
				return err
			}
			future.result, st.output, st.summary = result, result, summarize(result)
			return nil
		})
	})
	return future
}

// awaitStart blocks until the step can start. It returns false if the step was skipped or
// the run is cancelled.
func (r *Run) awaitStart(ctx workflow.Context, st *step) bool {
	for _, d := range st.After {
		dependency := d.dependency()
		if !dependency.ended() {
			r.enter(st, StateWaiting)
		}
		if workflow.Await(ctx, dependency.ended) != nil {
			return false // Finish returns the cancellation
		}
		if dependency.state != StateDone {
			st.reason = dependency.Name + " wasn't done"
			r.enter(st, StateSkipped)
			return false
		}
	}
	summary := "Wait to start " + st.Name
	if settled := workflow.GetInfo(ctx).WorkflowStartTime.Add(time.Duration(r.session.Settling)); st.AfterSettling && settled.After(st.NotBefore) {
		st.NotBefore, summary = settled, "Wait for late callbacks before "+st.Name
	}
	if wait := st.NotBefore.Sub(workflow.Now(ctx)); wait > 0 {
		r.enter(st, StateWaiting)
		return workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: clip(summary, maxTimerSummary)}).Get(ctx, nil) == nil
	}
	return true
}

// execute attempts a step until it ends. Whenever the step is blocked, it waits for an
// operator's decision.
func (r *Run) execute(ctx workflow.Context, st *step, attempt func() error) {
	log := workflow.GetLogger(ctx)
	for {
		r.enter(st, StateRunning)
		err := attempt()
		if err == nil {
			r.enter(st, StateDone)
			return
		}
		if ctx.Err() != nil {
			return // Finish returns the cancellation
		}
		st.failure = failure(err, st.Timeout)
		if st.Optional || activities.IsGivenUp(err) {
			log.Warn("step given up", "step", st.Name, "session", r.session.String(), "failure", st.failure)
			r.enter(st, StateGivenUp)
			return
		}
		log.Warn("step blocked", "step", st.Name, "session", r.session.String(), "failure", st.failure)
		r.enter(st, StateBlocked)
		if !r.awaitDecision(ctx, st) {
			return
		}
		log.Info("step resumed", "step", st.Name, "session", r.session.String(), "by", cmp.Or(st.decision, "signal"))
		if st.decision == UpdateSkip {
			r.enter(st, StateSkipped)
			return
		}
		if st.decision == UpdateRetry {
			st.waited = nil // the step may wait for its full time again
			st.retried = &activities.Retried{Failure: clip(st.failure, maxRetried), Reason: clip(st.reason, maxRetried)}
		}
		st.decision = ""
	}
}

// maxRetried bounds, in characters, the failure and the reason in an
// [activities.Retried], because the history keeps an Activity's input.
const maxRetried = 1000

// blockedBar is the length of the timer that shows a blocked step on the Web UI's
// Timeline. Nothing depends on its end.
const blockedBar = 10 * 365 * 24 * time.Hour

// awaitDecision blocks until an operator decides about the step or a Signal wakes it.
// It returns false if the run is cancelled.
func (r *Run) awaitDecision(ctx workflow.Context, st *step) bool {
	barCtx, remove := workflow.WithCancel(ctx)
	defer remove()
	workflow.NewTimerWithOptions(barCtx, blockedBar, workflow.TimerOptions{
		Summary: clip(fmt.Sprintf("%s is blocked: %s", st.Name, st.failure), maxTimerSummary)})
	return workflow.Await(ctx, func() bool { return st.decision != "" || st.arrived != nil && st.arrived() }) == nil
}

// attempt runs a step. While the step returns an [activities.Waiting], attempt runs it
// again after Pause, or when a Signal named after the step arrives.
func (r *Run) attempt(ctx workflow.Context, st *step, task activities.Task, run func(activities.Task) (*activities.Waiting, error)) error {
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
		task.Retried = st.retried
		waiting, err := run(task)
		if err != nil || waiting == nil {
			return err
		}
		if st.waited == nil {
			st.waited = &activities.Waited{Since: began}
			st.arrived = arrived // from now on Signals wake the step, also while it is blocked
		}
		st.waited.Times++
		st.waited.Note, st.waitsFor = waiting.Note, waiting.For
		r.enter(st, StateWaiting)
		if _, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
			Timeout: waiting.Pause, TimerOptions: workflow.TimerOptions{Summary: clip("Wait for "+waiting.For, maxTimerSummary)},
		}, arrived); err != nil {
			return err
		}
		st.waitsFor = ""
		r.enter(st, StateRunning)
	}
}
