package workflows

// State is the state of a step, or of a whole run in [CloseoutState].
type State string

// The states of steps and runs.
const (
	// StateWaiting means that the step hasn't started, or waits to run again. A run
	// whose steps wait is running.
	StateWaiting State = "waiting"
	// StateRunning means that the step is being attempted.
	StateRunning State = "running"
	// StateBlocked means that the step waits for an operator's [Decision].
	StateBlocked State = "blocked"
	// StateDone means that the step succeeded.
	StateDone State = "done"
	// StateSkipped means that an operator skipped the step, or that it depended on a step
	// that didn't succeed. Of a run: at least one step was skipped.
	StateSkipped State = "skipped"
	// StateGivenUp means that the step failed and was optional, or failed with
	// [activities.GiveUpf]. Of a run: at least one step was given up.
	StateGivenUp State = "given_up"
)

// Result is the result of a run.
type Result struct {
	// State is [StateGivenUp] or [StateSkipped] if a step was, else [StateDone].
	State State `json:"state"`
	// Steps are the results of the steps, in the order of the Workflow's code.
	Steps []StepResult `json:"steps"`
	// Decisions are the operators' decisions, the earliest first.
	Decisions []DecisionResult `json:"decisions,omitempty"`
}

// StepResult is the result of a step.
type StepResult struct {
	// Step is the name of the step.
	Step string `json:"step"`
	// State is [StateDone], [StateSkipped] or [StateGivenUp].
	State State `json:"state"`
	// Summary describes the result in a few words, or explains why there is none.
	Summary string `json:"summary"`
	// Output is what the step's Activity returned, if it succeeded.
	Output any `json:"output,omitempty"`
	// Failure is the last failure of a step without a result, if it was attempted.
	Failure string `json:"failure,omitempty"`
}
