package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"
)

// The Updates with which an operator decides about a blocked step. Both take a [Decision]
// and return a string.
const (
	// UpdateRetry tries the step again, with a new Timeout.
	UpdateRetry = "retry"
	// UpdateSkip ends the step without a result.
	UpdateSkip = "skip"
)

// Decision is an operator's decision about a blocked step.
type Decision struct {
	// Step is the name of the step. It may be empty if only one step is blocked.
	Step string `json:"step"`
	// Reason is required; the run's result keeps it.
	Reason string `json:"reason"`
}

// DecisionResult is a decision in the run's result.
type DecisionResult struct {
	// Decision is [UpdateRetry] or [UpdateSkip].
	Decision string `json:"decision"`
	// Step is the name of the step.
	Step string `json:"step"`
	// Reason is the operator's reason.
	Reason string `json:"reason"`
	// Time is when the decision was made, by the Workflow's clock.
	Time time.Time `json:"time"`
}

// handle sets the handler of [UpdateRetry] or [UpdateSkip].
func (r *Run) handle(update, description string) {
	decide := func(ctx workflow.Context, d Decision) (string, error) {
		st, err := r.blocked(d)
		if err != nil {
			return "", err
		}
		st.decision, st.reason = update, d.Reason
		r.decisions = append(r.decisions, DecisionResult{update, st.Name, d.Reason, workflow.Now(ctx)})
		return update + " of " + st.Name, nil
	}
	if err := workflow.SetUpdateHandlerWithOptions(r.ctx, update, decide, workflow.UpdateHandlerOptions{
		// A decision rejected here leaves no event in the history.
		Validator:   func(d Decision) error { _, err := r.blocked(d); return err },
		Description: description + ` Input: {"step": "billing", "reason": "why"}`,
	}); err != nil {
		panic(err) // only a handler of the wrong type
	}
}

// maxReason bounds the reason of a decision in bytes, because the run's result contains
// all reasons.
const maxReason = 2000

// blocked returns the blocked step to which d applies.
func (r *Run) blocked(d Decision) (*step, error) {
	if strings.TrimSpace(d.Reason) == "" {
		return nil, errors.New("reason: missing, want why you decide so; the run's result keeps it")
	}
	if len(d.Reason) > maxReason {
		return nil, fmt.Errorf("reason: found %d bytes, want at most %d", len(d.Reason), maxReason)
	}
	var names []string
	var found []*step
	for _, st := range r.steps {
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
