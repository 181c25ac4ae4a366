package closeouttest_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Wallet and CloseShow stand for your own steps and Workflow.
type Wallet struct{}

func (*Wallet) Charge(context.Context, activities.Task) (string, error) { return "charged", nil }

var wallet *Wallet

func CloseShow(ctx workflow.Context, session session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, session)
	workflows.Start(run, workflows.Step{Name: "charge", Summary: "Charge the caller's wallet"}, wallet.Charge)
	workflows.Start(run, workflows.Step{Name: "billing", Summary: "Make the session's bill"}, activities.Standard.FinalizeBill)
	return run.Finish()
}

// A test of a Workflow: the wallet refuses, and an operator retries the step.
func ExampleEnv() {
	var t testing.TB = &testing.T{} // the test's own
	env := closeouttest.NewEnv(t, &Wallet{})
	env.OnActivity(wallet.Charge, mock.Anything, mock.Anything).Return("", activities.Blockedf("no such wallet")).Once()
	env.OnActivity(wallet.Charge, mock.Anything, mock.Anything).Return("charged", nil).Once()
	env.After(time.Hour, func() { env.Retry("charge", "the wallet was restored") })

	result := env.Run(CloseShow, closeouttest.Session())
	for _, s := range result.Steps {
		fmt.Println(s.Step, s.State)
	}
	fmt.Println(env.States())
	// Output:
	// charge done
	// billing done
	// [blocked ]
}

// PayPerformers is a Workflow with its own input type. A program registers it in
// closeout.Service.Register.
func PayPerformers(_ workflow.Context, roomID string) (int, error) { return len(roomID), nil }

// Report reports how many performers were paid.
func (*Wallet) Report(_ context.Context, _ activities.Task, paid int) (string, error) {
	return fmt.Sprint(paid, " paid"), nil
}

// ClosePaidShow starts a child Workflow and passes its result to a step.
func ClosePaidShow(ctx workflow.Context, session session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, session)
	workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)

	var paid int
	if err := workflow.ExecuteChildWorkflow(ctx, PayPerformers, session.RoomID).Get(ctx, &paid); err == nil {
		workflows.StartWith(run, workflows.Step{Name: "report"}, wallet.Report, paid)
	}
	return run.Finish()
}

// A Workflow with a child Workflow.
func ExampleEnv_childWorkflow() {
	var t testing.TB = &testing.T{} // the test's own
	env := closeouttest.NewEnv(t, &Wallet{})
	env.RegisterWorkflow(PayPerformers)
	session := closeouttest.Session(func(c *zego.RoomClose) { c.RoomID = "quartet" })
	for _, s := range env.Run(ClosePaidShow, session).Steps {
		fmt.Println(s.Step, s.State, s.Summary[:4])
	}
	// Output:
	// billing done bill
	// report done 7 pa
}

// A test of a handler of ZEGO's callbacks.
func ExampleRequest() {
	router := webhook.Router(webhook.Options{Keyring: closeouttest.Keyring(), Receiver: printer{}, Log: slog.New(slog.DiscardHandler)})
	callback := closeouttest.RoomClose(func(c *zego.RoomClose) { c.RoomID = "live-1" })
	answer := httptest.NewRecorder()
	router.ServeHTTP(answer, closeouttest.Request(callback))
	fmt.Print(answer.Code, " ", answer.Body)
	// Output:
	// room live-1 closed
	// 200 {"status":"started"}
}

type printer struct{}

func (printer) Receive(_ context.Context, event zego.Event) (webhook.Receipt, error) {
	if closed, ok := event.(*zego.RoomClose); ok {
		fmt.Println("room", closed.RoomID, "closed")
	}
	return webhook.Receipt{Status: webhook.Started}, nil
}

// In a test function: open runs of RoomClose can continue.
func ExampleReplay() {
	_ = func(t *testing.T) {
		closeouttest.Replay(t, "../workflows/testdata", workflows.RoomClose)
	}
}
