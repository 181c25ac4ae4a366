package workflows_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

var closed = session.Session{ID: session.ID{AppID: 1, RoomSessionID: math.MaxUint64}, RoomID: "lobby", CloseReason: zego.CloseOffline, RoomCloseTime: time.UnixMilli(1499676989909).UTC()}

// env is the environment of a run that closes out the session closed.
type env struct{ *closeouttest.Env }

func newEnv(t *testing.T, steps ...any) env {
	t.Helper()
	return env{closeouttest.NewEnv(t, steps...)}
}

// states returns the values of CloseoutState so far, separated by spaces.
func (e env) states() string {
	var words []string
	for _, state := range e.States() {
		words = append(words, cmp.Or(string(state), "unset"))
	}
	return strings.Join(words, " ")
}

// update sends an Update to the run and returns its outcome.
func update(env env, name string, d workflows.Decision) *outcome {
	o := &outcome{}
	env.UpdateWorkflow(name, "", o, d)
	return o
}

type outcome struct {
	accepted bool
	err      error
}

func (o *outcome) Accept()             { o.accepted = true }
func (o *outcome) Reject(err error)    { o.err = err }
func (o *outcome) Complete(any, error) {}

func TestRoomClose(t *testing.T) {
	env := newEnv(t)
	bill := activities.Bill{Posted: true}
	bill.ID = closed.IdempotencyKey("billing")
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, activities.Task{Session: closed, IdempotencyKey: bill.ID}).Return(bill, nil).Once()
	env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, activities.Task{Session: closed, IdempotencyKey: closed.IdempotencyKey("recordings")}).
		Return(activities.Archived{Manifest: "m", Files: 2, Bytes: 7}, nil).Once()

	result := env.Run(workflows.RoomClose, closed)
	if result.State != workflows.StateDone || len(result.Decisions) != 0 {
		t.Fatalf("result %+v", result)
	}
	if s := result.Steps[0]; s.Step != "billing" || s.State != workflows.StateDone || !strings.Contains(s.Summary, bill.ID.String()) {
		t.Errorf("billing %+v", s)
	}
	if s := result.Steps[1]; s.Step != "recordings" || s.State != workflows.StateDone || s.Summary != "2 recordings of 7 bytes, see m" || !reflect.DeepEqual(s.Output, map[string]any{"manifest": "m", "files": 2.0, "bytes": 7.0}) {
		t.Errorf("recordings %+v", s)
	}
	if got := env.states(); got != "" {
		t.Errorf("CloseoutState became %s", got)
	}
	env.AssertExpectations(t)
}

var (
	archived = activities.Archived{Manifest: "m"}
	billed   = activities.Bill{}
)

// mockArchive makes the step recordings succeed.
func (e env) mockArchive() {
	e.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(archived, nil).Once()
}

// billingFails makes the step billing fail a number of times before it succeeds.
func (e env) billingFails(times int, err error) *int {
	attempts := 0
	e.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(func(context.Context, activities.Task) (activities.Bill, error) {
		if attempts++; attempts <= times {
			return activities.Bill{}, err
		}
		return billed, nil
	})
	return &attempts
}

func TestStepRetries(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	attempts := env.billingFails(10, errors.New("ledger is down")) // a quick attempt, and the environment's limit of ten others
	result := env.Run(workflows.RoomClose, closed)
	if result.State != workflows.StateDone || *attempts != 11 || env.states() != "" {
		t.Errorf("result %+v after %d attempts, states %v", result, *attempts, env.states())
	}
}

// The attempt after an operator's retry gets the failure and the operator's reason.
func TestRetryReceivesFailureAndReason(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	first := activities.Task{Session: closed, IdempotencyKey: closed.IdempotencyKey("billing")}
	again := first
	again.Retried = &activities.Retried{Failure: "a person has to approve the bill", Reason: "it was a concert"}
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, first).Return(activities.Bill{}, activities.Blockedf("a person has to approve the bill")).Once()
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, again).Return(billed, nil).Once()
	env.RegisterDelayedCallback(func() { env.Retry("billing", "it was a concert") }, time.Hour)
	if result := env.Run(workflows.RoomClose, closed); result.State != workflows.StateDone {
		t.Errorf("result %+v", result)
	}
}

// A step that can't succeed blocks visibly, and an operator retries it. The other step is
// done in the meantime.
func TestBlockedThenRetried(t *testing.T) {
	for name, err := range map[string]error{
		"non-retryable": activities.Blockedf("the billing API refused the bill: 422"),
		// The retry would come after the step's Timeout.
		"deadline": temporal.NewApplicationErrorWithOptions("ledger is away", "", temporal.ApplicationErrorOptions{NextRetryDelay: 25 * time.Hour}),
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			env.mockArchive()
			env.billingFails(1, err)
			env.RegisterDelayedCallback(func() {
				if got := env.states(); got != "blocked" {
					t.Errorf("CloseoutState became %s", got)
				}
				for _, want := range []string{"**billing** is **blocked**", "**recordings** is done", "`lobby`", "18446744073709551615"} {
					if details := env.Details(); !strings.Contains(details, want) {
						t.Errorf("details lack %q:\n%s", want, details)
					}
				}
				env.Retry("billing", "fixed")
			}, 48*time.Hour)
			result := env.Run(workflows.RoomClose, closed)
			if result.State != workflows.StateDone || result.Steps[0].State != workflows.StateDone {
				t.Errorf("result %+v", result)
			}
			want := workflows.DecisionResult{Decision: "retry", Step: "billing", Reason: "fixed", Time: closed.RoomCloseTime.Add(48 * time.Hour)}
			if len(result.Decisions) != 1 || result.Decisions[0] != want {
				t.Errorf("decisions %+v, want %+v", result.Decisions, want)
			}
			if got := env.states(); got != "blocked unset" {
				t.Errorf("CloseoutState became %s", got)
			}
		})
	}
}

func TestBlockedThenSkipped(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	env.billingFails(1<<30, activities.Blockedf("no price list"))
	env.RegisterDelayedCallback(func() {
		update(env, workflows.UpdateSkip, workflows.Decision{Reason: "free of charge"}) // the only blocked one
	}, time.Hour)
	result := env.Run(workflows.RoomClose, closed)
	if result.State != workflows.StateSkipped || env.states() != "blocked skipped" {
		t.Errorf("result %+v, states %v", result, env.states())
	}
	if s := result.Steps[0]; s.State != workflows.StateSkipped || s.Summary != "skipped: free of charge" || s.Failure != "no price list" || s.Output != nil {
		t.Errorf("billing %+v", s)
	}
	if result.Steps[1].State != workflows.StateDone {
		t.Errorf("recordings %+v", result.Steps[1])
	}
}

func TestDecisionsRefused(t *testing.T) {
	env := newEnv(t)
	checked := 0
	env.billingFails(1<<30, activities.Blockedf("no price list"))
	env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(archived, activities.Blockedf("no bucket"))
	refuse := func(d workflows.Decision, want string) {
		o := update(env, workflows.UpdateRetry, d)
		env.RegisterDelayedCallback(func() {
			if o.accepted || o.err == nil || !strings.Contains(o.err.Error(), want) {
				t.Errorf("%+v: accepted %v, error %v, want one with %q", d, o.accepted, o.err, want)
			}
			checked++
		}, time.Second)
	}
	env.RegisterDelayedCallback(func() {
		refuse(workflows.Decision{Step: "billing"}, "reason: missing")
		refuse(workflows.Decision{Step: "billing", Reason: "  "}, "reason: missing")
		refuse(workflows.Decision{Step: "billing", Reason: strings.Repeat("é", 1001)}, "found 2002 bytes")
		refuse(workflows.Decision{Reason: "which?"}, "billing, recordings")
		refuse(workflows.Decision{Step: "bill", Reason: "typo"}, "billing, recordings")
		update(env, workflows.UpdateSkip, workflows.Decision{Step: "billing", Reason: "r"})
	}, time.Minute)
	env.RegisterDelayedCallback(func() {
		refuse(workflows.Decision{Step: "billing", Reason: "too late"}, "recordings")
	}, 2*time.Minute)
	env.RegisterDelayedCallback(func() {
		update(env, workflows.UpdateSkip, workflows.Decision{Step: "recordings", Reason: "r"})
	}, 3*time.Minute)
	if result := env.Run(workflows.RoomClose, closed); result.State != workflows.StateSkipped || len(result.Decisions) != 2 || checked != 6 {
		t.Errorf("result %+v, %d refusals checked", result, checked)
	}
}

// A run that was started without search attributes, because the Namespace lacks them,
// doesn't set any.
func TestWithoutSearchAttributes(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	env.billingFails(0, nil)
	env.MockStandard()
	env.ExecuteWorkflow(workflows.RoomClose, closed)
	var result workflows.Result
	if err := env.GetWorkflowResult(&result); err != nil {
		t.Fatal(err)
	}
	if result.State != workflows.StateDone || len(env.States()) != 0 {
		t.Errorf("result %+v, states %v", result, env.states())
	}
}

// A run that was blocked before setup created the search attributes sets them after it.
func TestSetupMakesRunsSetSearchAttributes(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	env.billingFails(1<<30, activities.Blockedf("no price list"))
	env.MockStandard()
	env.After(time.Hour, func() {
		if got := env.states(); got != "" {
			t.Errorf("CloseoutState became %s before setup", got)
		}
		env.SignalWorkflow(workflows.SignalIndex, nil)
		env.SignalWorkflow(workflows.SignalIndex, nil) // setup, run twice
	})
	env.After(2*time.Hour, func() {
		if got := env.states(); got != "blocked" {
			t.Errorf("CloseoutState became %s after setup", got)
		}
		update(env, workflows.UpdateSkip, workflows.Decision{Reason: "free of charge"})
	})
	env.ExecuteWorkflow(workflows.RoomClose, closed)
	var result workflows.Result
	if err := env.GetWorkflowResult(&result); err != nil {
		t.Fatal(err)
	}
	if got := env.states(); got != "blocked skipped" {
		t.Errorf("CloseoutState became %s", got)
	}
}

func TestCancelled(t *testing.T) {
	env := newEnv(t)
	env.mockArchive()
	env.billingFails(1<<30, activities.Blockedf("no price list"))
	env.After(time.Hour, env.CancelWorkflow)
	env.Start(workflows.RoomClose, closed)
	if err := env.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error %v, want a cancellation", err)
	}
}

// Foreign text, such as a room's name, is shown literally and not as Markdown.
func TestDetailsEscape(t *testing.T) {
	options := workflows.StartOptions(session.Session{RoomID: "a`[b](http://c)\n# d", CloseReason: "kicked by `[b](http://c)`"}, "q")
	if want := "Room `a'[b](http://c) # d` closed: `kicked by '[b](http://c)'`"; options.StaticSummary != want {
		t.Errorf("summary %q, want %q", options.StaticSummary, want)
	}
}

func TestCloseReasonInWords(t *testing.T) {
	s := closed
	s.CloseReason = "kicked by `host`"
	options := workflows.StartOptions(s, "q")
	if got := options.Memo["close_reason"]; got != string(s.CloseReason) {
		t.Errorf("the memo has %q", got)
	}
	if _, ok := options.TypedSearchAttributes.GetInt64(workflows.CloseReason); ok {
		t.Error("the Search Attribute has words as a number")
	}
}

func TestInputJSON(t *testing.T) {
	b, err := json.Marshal(closed)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"appid":1,"room_session_id":"18446744073709551615","room_id":"lobby","close_reason":2,"room_close_time":"2017-07-10T08:56:29.909Z"}`; string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestStartOptions(t *testing.T) {
	long := closed
	long.RoomID = strings.Repeat("é", 300)
	o := workflows.StartOptions(long, "closeout")
	if id, _ := o.TypedSearchAttributes.GetKeyword(workflows.RoomID); id != strings.Repeat("é", 255) {
		t.Errorf("RoomId has %d bytes", len(id))
	}
	long.RoomID, long.CloseReason = strings.Repeat("語", 300), zego.Code(strings.Repeat("🎤", 200))
	adjustment := activities.Adjustment{Session: long, Number: math.MaxInt}
	for _, o := range []client.StartWorkflowOptions{workflows.StartOptions(long, "q"), workflows.LateRecordingsOptions(long, "q"), workflows.AdjustOptions(adjustment, "q")} {
		if len(o.StaticSummary) > 400 || !utf8.ValidString(o.StaticSummary) {
			t.Errorf("%s: the summary has %d bytes", o.ID, len(o.StaticSummary))
		}
	}
	if s, _ := o.TypedSearchAttributes.GetKeyword(workflows.RoomSessionID); s != "18446744073709551615" {
		t.Errorf("RoomSessionId %s", s)
	}
	if o.Memo["room_id"] != strings.Repeat("é", 300) {
		t.Error("the memo lacks the whole room_id")
	}
	for _, key := range workflows.SearchAttributes() {
		if set := o.TypedSearchAttributes.ContainsKey(key); set == (key == workflows.CloseoutState) {
			t.Errorf("%s is set: %v", key.GetName(), set)
		}
	}
}
