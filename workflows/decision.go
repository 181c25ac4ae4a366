package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"
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

// offer lets people make a decision by an update.
func (s *Steps) offer(update, description string) {
	decide := func(ctx workflow.Context, d Decision) (string, error) {
		st, err := s.blocked(d)
		if err != nil {
			return "", err
		}
		st.decision, st.reason = update, d.Reason
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
