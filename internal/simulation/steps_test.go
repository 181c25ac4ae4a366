package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// approval is the name of a step and of its Signal.
const approval = "approval"

// Approval is what a person sends.
type Approval struct {
	By string `json:"by"`
}

// Receipt is the result of [faultySteps.SendReceipt].
type Receipt struct {
	Waiting *activities.Waiting `json:"waiting,omitempty"`
}

// Waits implements [activities.Waiter].
func (r Receipt) Waits() *activities.Waiting { return r.Waiting }

// route returns the Workflow of a session.
func route(s session.Session) workflows.Workflow {
	if s.RoomSessionID%2 == 0 {
		return Approved
	}
	return workflows.RoomClose
}

// noSooner delays the step of [faultySteps.Deliver].
const noSooner = 10 * time.Minute

// Approved is a Workflow of a user, with steps of all kinds.
func Approved(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)
	var steps *faultySteps
	bill := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Start(run, workflows.Recordings, activities.Standard.ArchiveRecordings)
	workflows.Then(bill, workflows.Step{Name: "receipt", Adjusts: true}, steps.SendReceipt)
	workflows.Await[Approval](run, workflows.Step{Name: approval, Timeout: time.Hour})
	workflows.Start(run, workflows.Step{Name: "delivery", Optional: true, Timeout: time.Hour, NotBefore: workflow.Now(ctx).Add(noSooner)}, steps.Deliver)
	return run.Finish()
}

// faultySteps has the product's standard steps, whose attempts fail in all ways.
type faultySteps struct {
	p     *workerProcess
	steps steps.Standard
}

func (f *faultySteps) FinalizeBill(ctx context.Context, t activities.Task) (activities.Bill, error) {
	return attempt(ctx, f.p, "billing", t, func(ctx context.Context) (activities.Bill, error) { return f.steps.FinalizeBill(ctx, t) })
}

func (f *faultySteps) AdjustBill(ctx context.Context, t activities.Task, number int) (activities.Adjusted, error) {
	return attempt(ctx, f.p, "adjustment", t, func(ctx context.Context) (activities.Adjusted, error) { return f.steps.AdjustBill(ctx, t, number) })
}

func (f *faultySteps) ArchiveRecordings(ctx context.Context, t activities.Task) (activities.Archived, error) {
	return attempt(ctx, f.p, "recordings", t, func(ctx context.Context) (activities.Archived, error) {
		f.p.k.more(t.Session.ID)
		return f.steps.ArchiveRecordings(ctx, t)
	})
}

func (f *faultySteps) AddRecordings(ctx context.Context, t activities.Task) (activities.Archived, error) {
	return attempt(ctx, f.p, "late recordings", t, func(ctx context.Context) (activities.Archived, error) { return f.steps.AddRecordings(ctx, t) })
}

// SendReceipt sends a receipt for a bill or an adjustment.
func (f *faultySteps) SendReceipt(ctx context.Context, t activities.Task, bill activities.Bill) (Receipt, error) {
	return attempt(ctx, f.p, "receipt", t, func(context.Context) (Receipt, error) {
		if t.Waited == nil && f.p.k.w.chance("bank", sessionOf(t.Session.RoomSessionID), t.Adjustment).IntN(3) == 0 {
			return Receipt{Waiting: &activities.Waiting{For: "the bank", Pause: 5 * time.Minute}}, nil
		}
		text, err := json.Marshal(bill.Bill)
		if err != nil {
			return Receipt{}, err
		}
		f.p.k.send(t.IdempotencyKey, string(text))
		return Receipt{}, nil
	})
}

// Deliver is a step without which a session can be closed out.
func (f *faultySteps) Deliver(ctx context.Context, t activities.Task) (string, error) {
	return attempt(ctx, f.p, "delivery", t, func(context.Context) (string, error) { return "delivered", nil })
}

// maxFaults bounds the faulty attempts of a session's step.
const maxFaults = 6

// attempt attempts a step. The attempt may fail before or after its effect, hang, panic, run
// beside another one, or block the step.
func attempt[R any](ctx context.Context, p *workerProcess, step string, t activities.Task, do func(context.Context) (R, error)) (result R, err error) {
	p.working.Add(1)
	defer p.working.Done()
	n := p.k.attempted(step, t)
	chance := p.k.w.chance(step, sessionOf(t.Session.RoomSessionID), t.Adjustment, n)
	fault := chance.IntN(20)
	if n > maxFaults {
		fault = -1
	}
	none, failed := *new(R), errors.New("simulated: the step failed")
	time.Sleep(between(chance, 0, 3*time.Second))
	switch fault {
	case 0, 1, 2:
		return none, failed
	case 3:
		return none, activities.Blockedf("simulated: %s can't go on", step)
	case 4:
		return none, activities.RetryAfterf(between(chance, time.Second, time.Hour), "simulated: busy")
	case 5:
		<-ctx.Done()
		return none, ctx.Err()
	case 6:
		panic("simulated: the step panics")
	case 7:
		p.working.Go(func() { _, _ = do(ctx) })
	}
	result, err = do(ctx)
	switch fault {
	case 8, 9, 10:
		return none, failed
	case 11:
		return none, activities.Blockedf("simulated: %s can't go on after its effect", step)
	case 12:
		<-ctx.Done()
		return none, ctx.Err()
	}
	return result, err
}
