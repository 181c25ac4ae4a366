package workflows

import "github.com/closeouthq/closeout/activities"

// State is the state of a step, or of a whole run in [CloseoutState].
type State string

// The states of steps and runs.
const (
	// StateWaiting means that it hasn't begun, for lack of another step's result or
	// as it isn't time. A run whose steps wait is running.
	StateWaiting State = "waiting"
	// StateRunning means that it is being tried.
	StateRunning State = "running"
	// StateBlocked means that it can't go on without a person: see [Decision].
	StateBlocked State = "blocked"
	// StateDone means that it succeeded.
	StateDone State = "done"
	// StateSkipped means that a person decided to do without it, or that a step
	// which has to be done before it ended otherwise; of a run, that at least one
	// step was skipped.
	StateSkipped State = "skipped"
	// StateGivenUp means that it failed without a person being asked, as it is
	// optional or failed with [activities.GiveUp]; of a run, that at least one step
	// was given up.
	StateGivenUp State = "given_up"
)

// Result is what came of a run.
type Result struct {
	// Session is what was closed out.
	Session activities.Session `json:"session"`
	// State is [StateGivenUp] or [StateSkipped] if a step was, else [StateDone].
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
	// State is [StateDone], [StateSkipped] or [StateGivenUp].
	State State `json:"state"`
	// Summary says it in a few words: the step's result, or why there is none.
	Summary string `json:"summary"`
	// Output is what the step's activity returned, if it succeeded.
	Output any `json:"output,omitempty"`
	// Failure is the last failure, if there is no result and it was tried.
	Failure string `json:"failure,omitempty"`
}
