package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Wages pays people for their published time.
type Wages struct {
	mu   sync.Mutex // steps run concurrently
	paid []string
}

func (w *Wages) add(paid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paid = append(w.paid, paid)
}

// Pay pays the time that wasn't paid before.
func (w *Wages) Pay(ctx context.Context, task activities.Task, bill activities.Bill) (string, error) {
	people, err := activities.Participants(ctx, task)
	if err != nil {
		return "", err
	}
	for p, err := range people.All {
		if err != nil {
			return "", err
		}
		w.add(fmt.Sprintf("%s %d ms, bill of %d s, %v", p.User, p.Billed().Published-p.Before.Published, bill.Usage.Seconds, task.IdempotencyKey))
	}
	return "paid", nil
}

// Mail sends an email, which must not be sent twice.
func (w *Wages) Mail(context.Context, activities.Task) (string, error) {
	w.add("mailed")
	return "sent", nil
}

func closePaid(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)
	w := (*Wages)(nil)
	bill := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Then(bill, workflows.Step{Name: "wages", Adjusts: true}, w.Pay)
	workflows.Start(run, workflows.Step{Name: "mail"}, w.Mail)
	return run.Finish()
}

func TestAdjustingStepRunsInAdjustments(t *testing.T) {
	for _, tt := range []struct {
		name     string
		adjusted activities.Adjusted
		want     []string
		steps    []string
	}{
		{"something to adjust", activities.Adjusted{Adjustment: pricing.Adjustment{Number: 2, Bill: pricing.Bill{Usage: session.Usage{Seconds: 90}}}},
			[]string{fmt.Sprintf("ada 20000 ms, bill of 90 s, %v", closed.IdempotencyKey("wages-adjustment-2"))}, []string{"adjustment-2", "wages"}},
		{"nothing to adjust", activities.Adjusted{Nothing: true}, nil, []string{"adjustment-2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &Wages{}
			env := newEnv(t)
			env.RegisterActivity(w)
			env.SetParticipants(closeouttest.Participant("ada", time.Minute, 50*time.Second, func(p *session.Participant) { p.Before.Published = 30_000 }))
			env.OnActivity(activities.Standard.AdjustBill, mock.Anything, mock.Anything, 2).Return(tt.adjusted, nil).Once()
			r := env.RunAdjustment(closePaid, closed, 2)
			var steps []string
			for _, s := range r.Steps {
				steps = append(steps, s.Step)
			}
			if !slices.Equal(w.paid, tt.want) || !slices.Equal(steps, tt.steps) || r.State != workflows.StateDone {
				t.Errorf("paid %q, want %q; steps %q, want %q; state %s", w.paid, tt.want, steps, tt.steps, r.State)
			}
		})
	}
}

func TestAdjustingStepRunsOnceAtTheClose(t *testing.T) {
	w := &Wages{}
	env := newEnv(t)
	env.RegisterActivity(w)
	env.SetParticipants(closeouttest.Participant("ada", time.Minute, 50*time.Second))
	env.Run(closePaid, closed)
	slices.Sort(w.paid)
	if want := []string{fmt.Sprintf("ada 50000 ms, bill of 0 s, %v", closed.IdempotencyKey("wages")), "mailed"}; !slices.Equal(w.paid, want) {
		t.Errorf("paid %q, want %q", w.paid, want)
	}
}
