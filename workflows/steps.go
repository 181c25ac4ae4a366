package workflows

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// Step describes a step of a workflow. Only the name is needed.
type Step struct {
	// Name is what people call the step, in the Web UI and in a [Decision]. The
	// step's idempotency key is made of it, so it can't be changed later.
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

// State is the state of a step, or of a whole run in [CloseoutState].
type State string

// The states of steps and runs.
const (
	// StateRunning means that it is being tried.
	StateRunning State = "running"
	// StateBlocked means that it can't go on without a person: see [Decision].
	StateBlocked State = "blocked"
	// StateDone means that it succeeded.
	StateDone State = "done"
	// StateSkipped means that a person decided to do without it; of a run, that
	// this was decided of at least one step.
	StateSkipped State = "skipped"
)

// The updates by which a person decides what becomes of a blocked step. Both
// take a [Decision] and return a string.
const (
	// UpdateRetry has the step tried again, with a new deadline.
	UpdateRetry = "retry"
	// UpdateSkip gives the step up.
	UpdateSkip = "skip"
)

// Decision is what a person decides about a blocked step.
type Decision struct {
	// Step is the step's name. It may be left out if only one step is blocked.
	Step string `json:"step"`
	// Reason is why; it is kept in the result and must not be empty.
	Reason string `json:"reason"`
}

// Result is what came of a run.
type Result struct {
	// Session is what was closed out.
	Session activities.Session `json:"session"`
	// State is [StateDone], or [StateSkipped] if a step was skipped.
	State State `json:"state"`
	// Steps says what each step did, in their order in the workflow.
	Steps []StepResult `json:"steps"`
	// Decisions are those that people made, in their order in time.
	Decisions []DecisionResult `json:"decisions,omitempty"`
}

// StepResult is what one step did.
type StepResult struct {
	// Step is its name.
	Step string `json:"step"`
	// State is [StateDone] or [StateSkipped].
	State State `json:"state"`
	// Summary says it in a few words: the step's result, or why it was skipped.
	Summary string `json:"summary"`
	// Output is what the step's activity returned, if it succeeded.
	Output any `json:"output,omitempty"`
	// Failure is the last failure, if it was skipped.
	Failure string `json:"failure,omitempty"`
}

// DecisionResult is a decision that was made.
type DecisionResult struct {
	// Decision is [UpdateRetry] or [UpdateSkip].
	Decision string `json:"decision"`
	// Step is the step that it was about.
	Step string `json:"step"`
	// Reason is the one given.
	Reason string `json:"reason"`
	// Time is when, by the workflow's clock.
	Time time.Time `json:"time"`
}

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
	summary  string // of the output
	output   any    // of the activity
	failure  string // the last one
	decision string // made, and not yet acted upon
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

// Run runs a step beside the others. The activity is tried until it succeeds,
// with a growing pause between the attempts. Where it can't succeed
// ([activities.Blocked]), or hasn't by the step's deadline, the step waits for a
// person. If the activity's result is a string or has a String method, that is
// how people see it.
func Run[R any](s *Steps, definition Step, activity func(context.Context, activities.Task) (R, error)) {
	if definition.Name == "" || slices.ContainsFunc(s.steps, func(other *step) bool { return other.Name == definition.Name }) {
		panic(fmt.Sprintf("step %q: want a name that no other step of the workflow has", definition.Name))
	}
	if definition.Added && workflow.GetVersion(s.ctx, "step "+definition.Name, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	definition.Summary = cmp.Or(definition.Summary, definition.Name)
	definition.Deadline = cmp.Or(definition.Deadline, 24*time.Hour)
	st := &step{Step: definition}
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
		s.follow(ctx, st, func() error {
			var result R
			if err := workflow.ExecuteActivity(ctx, activity, task).Get(ctx, &result); err != nil {
				return err
			}
			switch r := any(result).(type) {
			case fmt.Stringer:
				st.summary = r.String()
			case string:
				st.summary = r
			default:
				st.summary = "done"
			}
			st.output = result
			return nil
		})
	})
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
		workflow.GetLogger(ctx).Warn("step blocked", "step", st.Name, "room_session_id", s.session.Key(), "failure", st.failure)
		s.enter(st, StateBlocked)
		if workflow.Await(ctx, func() bool { return st.decision != "" }) != nil {
			return
		}
		if st.decision == UpdateSkip {
			s.enter(st, StateSkipped)
			return
		}
		st.decision = ""
	}
}

// Finish waits for the steps and says what came of them. Its error is that of a
// run which was cancelled; a step's failure is none.
func (s *Steps) Finish() (Result, error) {
	if err := workflow.Await(s.ctx, func() bool {
		return !slices.ContainsFunc(s.steps, func(st *step) bool { return st.state != StateDone && st.state != StateSkipped })
	}); err != nil {
		return Result{}, err
	}
	result := Result{Session: s.session, State: s.state(), Decisions: s.decisions}
	for _, st := range s.steps {
		r := StepResult{Step: st.Name, State: st.state, Summary: st.summary, Output: st.output}
		if st.state == StateSkipped {
			r.Summary, r.Failure = "skipped: "+s.reason(st), st.failure
		}
		result.Steps = append(result.Steps, r)
	}
	return result, nil
}

// enter moves a step to a state and shows it.
func (s *Steps) enter(st *step, state State) {
	st.state = state
	workflow.SetCurrentDetails(s.ctx, s.details())
	if now := s.state(); s.shown != "" && s.shown != now {
		s.shown = now
		if err := workflow.UpsertTypedSearchAttributes(s.ctx, CloseoutState.ValueSet(string(now))); err != nil {
			workflow.GetLogger(s.ctx).Error("search attribute not set", "attribute", CloseoutState.GetName(), "error", err)
		}
	}
}

// state is the state of the run as a whole: the one of its steps that matters
// most to people.
func (s *Steps) state() State {
	for _, state := range []State{StateBlocked, StateRunning, StateSkipped} {
		if slices.ContainsFunc(s.steps, func(st *step) bool { return cmp.Or(st.state, StateRunning) == state }) {
			return state
		}
	}
	return StateDone
}

// details is what the Web UI shows of the run, in its Markdown.
func (s *Steps) details() string {
	var b strings.Builder
	write := func(format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...)) }
	write("Room %s, session %d of app %d, closed at %s (%v).\n\n", code(s.session.RoomID), s.session.RoomSessionID, s.session.AppID,
		s.session.RoomCloseTime.UTC().Format(time.RFC3339Nano), s.session.CloseReason)
	for _, st := range s.steps {
		switch st.state {
		case StateDone:
			write("- **%s** is done: %s\n", st.Name, code(st.summary))
		case StateSkipped:
			write("- **%s** was skipped: %s\n", st.Name, code(s.reason(st)))
		case StateBlocked:
			write("- **%s** is **blocked**: %s\n  Mend it and send the update `%s` with %s, or do without it with `%s`.\n",
				st.Name, code(st.failure), UpdateRetry, code(fmt.Sprintf(`{"step": %q, "reason": "why"}`, st.Name)), UpdateSkip)
		default:
			write("- **%s** is running: %s\n", st.Name, st.Summary)
		}
	}
	for _, d := range s.decisions {
		write("- %s: %s of **%s**, because: %s\n", d.Time.UTC().Format(time.RFC3339), d.Decision, d.Step, code(d.Reason))
	}
	return b.String()
}

// offer lets people make a decision by an update.
func (s *Steps) offer(update, description string) {
	decide := func(ctx workflow.Context, d Decision) (string, error) {
		st, err := s.blocked(d)
		if err != nil {
			return "", err
		}
		st.decision = update
		s.decisions = append(s.decisions, DecisionResult{update, st.Name, d.Reason, workflow.Now(ctx)})
		return update + " of " + st.Name, nil
	}
	if err := workflow.SetUpdateHandlerWithOptions(s.ctx, update, decide, workflow.UpdateHandlerOptions{
		// Refused here, a decision leaves no trace in the history.
		Validator:   func(d Decision) error { _, err := s.blocked(d); return err },
		Description: description + ` Input: {"step": "billing", "reason": "why"}`,
	}); err != nil {
		panic(err) // only for a handler of the wrong type
	}
}

// blocked finds the step that a decision is about.
func (s *Steps) blocked(d Decision) (*step, error) {
	if strings.TrimSpace(d.Reason) == "" {
		return nil, errors.New("reason: missing; say why, it is kept with the run")
	}
	var names []string
	var found []*step
	for _, st := range s.steps {
		if st.state == StateBlocked && st.decision == "" {
			names = append(names, st.Name)
			if d.Step == "" || d.Step == st.Name {
				found = append(found, st)
			}
		}
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("no step is blocked")
	case len(found) != 1:
		return nil, fmt.Errorf("step: found %q, want one that is blocked: %s", d.Step, strings.Join(names, ", "))
	}
	return found[0], nil
}

// reason is the one given with the last decision about the step.
func (s *Steps) reason(st *step) (reason string) {
	for _, d := range s.decisions {
		if d.Step == st.Name {
			reason = d.Reason
		}
	}
	return reason
}

// failure says in a line why an activity ended.
func failure(err error, deadline time.Duration) string {
	var ended *temporal.ActivityError
	var timeout *temporal.TimeoutError
	var app *temporal.ApplicationError
	text := err.Error()
	switch {
	case errors.As(err, &app):
		text = app.Message()
	case errors.As(err, &timeout):
		text = timeout.Message()
	}
	if errors.As(err, &ended) && ended.RetryState() == enums.RETRY_STATE_TIMEOUT || errors.As(err, &timeout) {
		return fmt.Sprintf("not done within %v: %s", deadline, text)
	}
	return text
}

// code makes a Markdown code span of text that may hold anything.
func code(s string) string {
	return "`" + strings.Join(strings.Fields(strings.ReplaceAll(s, "`", "'")), " ") + "`"
}

// keyspace is the namespace of the UUIDs that are idempotency keys.
var keyspace = uuid.MustParse("dae2ee15-f6ee-579e-bf43-12098b064d47")

// IdempotencyKey is the key of a step's effects for a session, a UUIDv5. It
// depends on nothing else, so that also a run started by hand has it.
func IdempotencyKey(session activities.Session, step string) uuid.UUID {
	return uuid.NewSHA1(keyspace, []byte(WorkflowID(session)+"/"+step))
}
