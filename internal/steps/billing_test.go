package steps_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// posts starts a billing API and returns its endpoint and the events it gets, by Idempotency-Key.
func posts(t *testing.T) (activities.Endpoint, map[string]map[string]any) {
	t.Helper()
	got := map[string]map[string]any{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event map[string]any
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &event); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		got[r.Header.Get("Idempotency-Key")] = event
	}))
	t.Cleanup(s.Close)
	return activities.Endpoint{Name: "the billing API", URL: s.URL}, got
}

// stay returns a stay of a user that lasts for long, and ends the given time before the task's room
// closes.
func stay(user string, long, ahead time.Duration) ledger.Event {
	end := task.Session.RoomCloseTime.Add(-ahead)
	return ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: task.Session.RoomSessionID}, RoomID: "lobby", Event: "room_logout", Stay: user, User: user,
		Role: "1", Login: end.Add(-long), Logout: end, SeenAt: time.Now()}
}

func adjust(t *testing.T, b *steps.Billing, key uuid.UUID, number int) (activities.Adjusted, error) {
	t.Helper()
	env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
	env.RegisterActivity(b.AdjustBill)
	var adjusted activities.Adjusted
	value, err := env.ExecuteActivity(b.AdjustBill, activities.Task{Session: task.Session, IdempotencyKey: key}, number)
	if err == nil {
		err = value.Get(&adjusted)
	}
	return adjusted, err
}

func TestBillHasFiguresAndAmount(t *testing.T) {
	api, posted := posts(t)
	books := sqlite(t)
	if err := books.Record(t.Context(), []ledger.Event{stay("a", time.Minute, time.Second), stay("b", time.Second, 0)}); err != nil {
		t.Fatal(err)
	}
	billing := &steps.Billing{Ledger: books, API: api, Prices: metering.Prices{Default: pricing.Price{Currency: "EUR", PerMinute: 7}}}
	bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
	if err != nil || bill.Usage.Seconds != 61 || bill.Usage.Minutes != 2 || bill.Charge.Amount != 14 || bill.Usage.Estimated != session.NoRoomCreate {
		t.Errorf("bill %+v, %v", bill, err)
	}
	if want := "bill " + bill.ID.String() + ": 2 participants, 61 s, 2 min, EUR 0.14; estimated, because of no_room_create; also at the billing API"; bill.String() != want {
		t.Errorf("in words %q, want %q", bill, want)
	}
	event := posted[bill.ID.String()]
	data := event["data"].(map[string]any)
	figures, charge := data["usage"].(map[string]any), data["charge"].(map[string]any)
	if event["type"] != "io.closeout.bill.finalized.v1" || data["bill_id"] != bill.ID.String() || data["room_session_id"] != "18446744073709551615" ||
		figures["participant_seconds"] != 61.0 || figures["estimated"].([]any)[0] != "no_room_create" || charge["amount"] != 14.0 || charge["currency"] != "EUR" {
		t.Errorf("posted %v", event)
	}
}

func TestBillWithoutCollectedUsageSaysWhy(t *testing.T) {
	billing := &steps.Billing{Ledger: sqlite(t), NotCollected: true}
	bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
	if want := session.NotCollected | session.NoUsage | session.NoRoomCreate; err != nil || bill.Usage.Estimated != want || !strings.Contains(bill.String(), "not_collected") {
		t.Errorf("bill %v, %v", bill, err)
	}
	if b, err := json.Marshal(bill); err != nil || strings.Contains(string(b), `"charge"`) {
		t.Errorf("without a price there is an amount: %s, %v", b, err)
	}
}

func TestTooLargeAmountBlocks(t *testing.T) {
	books := sqlite(t)
	if err := books.Record(t.Context(), []ledger.Event{stay("a", time.Hour, 0)}); err != nil {
		t.Fatal(err)
	}
	billing := &steps.Billing{Ledger: books, Prices: metering.Prices{Default: pricing.Price{Currency: "EUR", PerMinute: 1 << 60}}}
	if bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill); !activities.IsBlocked(err) {
		t.Errorf("bill %+v, %v", bill, err)
	}
}

func TestAdjustmentIsPostedWithItsOwnKey(t *testing.T) {
	api, posted := posts(t)
	books := sqlite(t)
	var observed []string
	billing := &steps.Billing{Ledger: books, API: api, Observe: func(outcome string) { observed = append(observed, outcome) }}
	if _, err := adjust(t, billing, uuid.New(), 1); !activities.IsBlocked(err) {
		t.Errorf("without a bill: %v", err)
	}
	bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := adjust(t, billing, uuid.New(), 1); err != nil || !a.Nothing || a.String() != "nothing to adjust" {
		t.Errorf("without anything new: %+v, %v", a, err)
	}
	if err := books.Record(t.Context(), []ledger.Event{stay("a", time.Minute, 0)}); err != nil {
		t.Fatal(err)
	}
	dirty, err := books.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10)
	if err != nil || len(dirty) != 1 {
		t.Fatal(dirty, err)
	}
	if dirty[0].Session != task.Session || dirty[0].Number != 1 {
		t.Errorf("next is %+v", dirty[0])
	}
	key := uuid.New()
	for range 2 {
		a, err := adjust(t, billing, key, 1)
		if err != nil || a.ID != key || a.Bill.ID != bill.ID || a.Difference.Seconds != 60 || !a.Posted ||
			!strings.HasPrefix(a.String(), "adjustment 1 of bill "+bill.ID.String()+", by +60 s, +1 min, now 1 participant, 60 s, 1 min; estimated") {
			t.Errorf("adjusted %v, %+v, %v", a, a, err)
		}
	}
	event := posted[key.String()]
	data := event["data"].(map[string]any)
	if event["type"] != "io.closeout.bill.adjusted.v1" || event["id"] != key.String() || data["adjustment_id"] != key.String() || data["bill_id"] != bill.ID.String() ||
		data["number"] != 1.0 || data["difference"].(map[string]any)["participant_seconds"] != 60.0 || len(posted) != 2 {
		t.Errorf("posted %v", posted)
	}
	if got := strings.Join(observed, " "); got != "made posted adjusted posted adjusted posted" {
		t.Errorf("observed %s", got)
	}
}

// finalizeBill runs the step as a worker does.
func finalizeBill(t *testing.T, b *steps.Billing, task activities.Task) (bill activities.Bill, err error) {
	t.Helper()
	env := newEnv()
	env.RegisterActivity(b.FinalizeBill)
	value, err := env.ExecuteActivity(b.FinalizeBill, task)
	if err == nil {
		err = value.Get(&bill)
	}
	return bill, err
}

// message returns the failure message that an operator sees.
func message(err error) string {
	app := new(temporal.ApplicationError)
	if errors.As(err, &app) {
		return app.Message()
	}
	return ""
}

// A large bill is made once an operator has approved exactly that bill.
func TestLargeBillNeedsApproval(t *testing.T) {
	books := sqlite(t)
	if err := books.Record(t.Context(), []ledger.Event{stay("a", 3*time.Minute, 0)}); err != nil {
		t.Fatal(err)
	}
	b := &steps.Billing{Ledger: books, MaxMinutes: 2}
	_, err := finalizeBill(t, b, task)
	question := message(err)
	if !activities.IsBlocked(err) || !strings.HasPrefix(question, "a person has to approve the bill: more than CLOSEOUT_MAX_BILL=2 minutes: 1 participant, 180 s, 3 min") {
		t.Fatalf("error %v", err)
	}
	if _, err := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: task.Session.RoomSessionID}); !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("there is a bill: %v", err)
	}
	// An operator who retries after another failure hasn't approved the bill.
	retried := task
	retried.Retried = &activities.Retried{Failure: "not done within 24h0m0s: connection refused", Reason: "it is back"}
	if _, err := finalizeBill(t, b, retried); !activities.IsBlocked(err) {
		t.Errorf("made without approval: %v", err)
	}
	// Nor has an operator who saw a smaller bill.
	if err := books.Record(t.Context(), []ledger.Event{stay("b", time.Minute, 0)}); err != nil {
		t.Fatal(err)
	}
	retried.Retried.Failure = question
	_, err = finalizeBill(t, b, retried)
	if !activities.IsBlocked(err) || !strings.Contains(message(err), "240 s, 4 min") {
		t.Errorf("another bill than was approved: %v", err)
	}
	retried.Retried.Failure = message(err)
	if bill, err := finalizeBill(t, b, retried); err != nil || bill.Usage.Minutes != 4 {
		t.Errorf("approved: %+v, %v", bill, err)
	}
	// A bill that was made needs no approval again, but an adjustment does.
	if bill, err := finalizeBill(t, b, task); err != nil || bill.Usage.Minutes != 4 {
		t.Errorf("repeated: %+v, %v", bill, err)
	}
	if err := books.Record(t.Context(), []ledger.Event{stay("c", time.Hour, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := adjust(t, b, uuid.New(), 1); !activities.IsBlocked(err) || !strings.Contains(message(err), "3840 s, 64 min") {
		t.Errorf("adjustment: %v", err)
	}
	b.MaxMinutes = 0
	if a, err := adjust(t, b, uuid.New(), 1); err != nil || a.Difference.Minutes != 60 {
		t.Errorf("adjustment without a limit: %+v, %v", a, err)
	}
}

// An impossible close time is corrected if that is safe. Otherwise the step asks an operator.
func TestImpossibleCloseTimeIsNotBilled(t *testing.T) {
	closed := task.Session.RoomCloseTime
	sent := closed.Truncate(time.Second)
	close := func(at time.Time) activities.Task {
		c := &zego.RoomClose{Common: zego.Common{AppID: 1, Timestamp: sent.Unix()}, RoomID: "lobby", RoomSessionID: task.Session.RoomSessionID, RoomCloseTime: at}
		return activities.Task{Session: session.Of(c), IdempotencyKey: uuid.New()}
	}
	noLogout := stay("b", time.Minute, 0)
	noLogout.Event, noLogout.Logout = "room_login", time.Time{}
	for _, tt := range []struct {
		name    string
		close   time.Time
		events  []ledger.Event
		seconds int64
		reasons session.Reasons
		asks    string
	}{
		{"as it should be", closed, []ledger.Event{stay("a", time.Minute, 0)}, 60, session.NoRoomCreate, ""},
		{"in ten years, all have left", closed.AddDate(10, 0, 0), []ledger.Event{stay("a", time.Minute, time.Second)}, 60, session.NoRoomCreate | session.ImplausibleTime, ""},
		{"in the year 9999, somebody is inside", time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), []ledger.Event{noLogout}, 59, session.NoRoomCreate | session.NoLogout | session.ImplausibleTime, ""},
		{"before it began, all have left", closed.Add(-time.Hour), []ledger.Event{stay("a", time.Minute, 0)}, 60, session.NoRoomCreate | session.ImplausibleTime, ""},
		{"before it began, nobody has left", closed.Add(-time.Hour), []ledger.Event{noLogout}, 0, session.NoRoomCreate | session.NoLogout | session.OutsideRoom | session.ImplausibleTime, "before it began"},
		{"longer ago than a room can live", closed.AddDate(0, 0, -8), nil, 0, session.NoRoomCreate | session.NoUsage, "CLOSEOUT_MAX_ROOM_LIFE=168h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			books := sqlite(t)
			if len(tt.events) > 0 {
				if err := books.Record(t.Context(), tt.events); err != nil {
					t.Fatal(err)
				}
			}
			b, task := &steps.Billing{Ledger: books, MaxRoomLife: 7 * 24 * time.Hour}, close(tt.close)
			bill, err := finalizeBill(t, b, task)
			if tt.asks != "" {
				if !activities.IsBlocked(err) || !strings.Contains(message(err), tt.asks) {
					t.Fatalf("error %v, want one that asks about %q", err, tt.asks)
				}
				task.Retried = &activities.Retried{Failure: message(err)}
				bill, err = finalizeBill(t, b, task)
			}
			if err != nil || bill.Usage.Seconds != tt.seconds || bill.Usage.Estimated != tt.reasons {
				t.Errorf("%+v, %v, want %d s, %v", bill.Usage, err, tt.seconds, tt.reasons)
			}
		})
	}
}

// perHead is a price function that returns one line for each participant.
func perHead(s pricing.Session) (lines []pricing.Line, err error) {
	for p := range s.Participants {
		lines = append(lines, pricing.Line{Payer: p.User, Description: "entry", Quantity: 1, Unit: "person", UnitPrice: 50, Amount: 50, Currency: "EUR"})
	}
	return lines, nil
}

func TestPostedBillHasLinesAndResultTheirNumber(t *testing.T) {
	for _, users := range []int{0, 2, 1000, 1001} {
		api, posted := posts(t)
		books := sqlite(t)
		books.Price = perHead
		var events []ledger.Event
		for u := range users {
			events = append(events, stay(fmt.Sprint(u), time.Minute, 0))
		}
		if err := books.Record(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		billing := &steps.Billing{Ledger: books, API: api}
		bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill)
		if err != nil || bill.Charge.Lines != int64(users) || bill.Charge.Amount != int64(50*users) || !bill.Charge.Function {
			t.Errorf("bill %+v, %v", bill, err)
		}
		if result, err := json.Marshal(bill); err != nil || len(result) > 1000 {
			t.Errorf("a result of %d bytes, %v", len(result), err)
		}
		lines, some := posted[bill.ID.String()]["data"].(map[string]any)["lines"].([]any)
		if want := users <= 1000; some != want || some && len(lines) != users {
			t.Errorf("posted %d lines, %t, want %d", len(lines), some, users)
		}
		if again, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill); err != nil || again.ID != bill.ID || again.Charge != bill.Charge {
			t.Errorf("repeated %+v, %v, want %+v", again, err, bill)
		}
	}
}

func TestFailingPriceFunctionBlocksUntilFixed(t *testing.T) {
	books := sqlite(t)
	if err := books.Record(t.Context(), []ledger.Event{stay("a", time.Minute, 0)}); err != nil {
		t.Fatal(err)
	}
	billing := &steps.Billing{Ledger: books}
	books.Price = func(pricing.Session) ([]pricing.Line, error) { return nil, errors.New("no tariff for lobby") }
	if _, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "price the session: the price function failed: no tariff for lobby") {
		t.Errorf("found %v", err)
	}
	books.Price = perHead
	if bill, err := run[activities.Bill](t, newEnv(), billing.FinalizeBill); err != nil || bill.Charge.Amount != 50 {
		t.Errorf("bill %+v, %v", bill, err)
	}
}

// If numbers prove that callbacks are missing, the bill waits for them for a limited time.
func TestBillWaitsForMissingCallbacks(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*steps.Billing, *activities.Task)
		waits  bool
	}{
		"at first":              {func(*steps.Billing, *activities.Task) {}, true},
		"until the wait ends":   {func(_ *steps.Billing, task *activities.Task) { task.Waited = waited(5*time.Minute - time.Second) }, true},
		"no longer":             {func(_ *steps.Billing, task *activities.Task) { task.Waited = waited(5 * time.Minute) }, false},
		"not if waiting is off": {func(b *steps.Billing, _ *activities.Task) { b.MissingWait = 0 }, false},
		"not if retried":        {func(_ *steps.Billing, task *activities.Task) { task.Retried = &activities.Retried{} }, false},
		"not if none collected": {func(b *steps.Billing, _ *activities.Task) { b.NotCollected = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			books := sqlite(t)
			first, last := stay("a", time.Minute, time.Second), stay("b", time.Minute, 0)
			first.Event, first.Logout, first.Number = "room_login", time.Time{}, 2
			last.Event, last.Logout, last.Number = "room_login", time.Time{}, 5
			if err := books.Record(t.Context(), []ledger.Event{first, last}); err != nil {
				t.Fatal(err)
			}
			b, due := &steps.Billing{Ledger: books, MissingWait: 5 * time.Minute}, task
			tt.change(b, &due)
			bill, err := finalizeBill(t, b, due)
			if err != nil {
				t.Fatal(err)
			}
			_, unbilled := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: due.Session.RoomSessionID})
			if waits := bill.Waits(); (waits != nil) != tt.waits || (unbilled != nil) != tt.waits {
				t.Fatalf("waits %+v, want %v; in the ledger: %v", waits, tt.waits, unbilled)
			} else if tt.waits {
				if !strings.Contains(waits.For, "missing callbacks") || waits.Pause <= 0 || waits.Pause > time.Minute {
					t.Errorf("waits %+v", waits)
				}
				return
			}
			if missing := bill.Usage.Callbacks.Missing; missing < 2 || bill.Usage.Estimated&session.MissingCallbacks == 0 {
				t.Errorf("%d callbacks are missing, estimated %v", missing, bill.Usage.Estimated)
			}
		})
	}
}

// waited returns the Waited of a step that first ran d ago.
func waited(d time.Duration) *activities.Waited {
	return &activities.Waited{Since: time.Unix(0, 0), Now: time.Unix(0, 0).Add(d)}
}
