package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// world is a run with a wallet behind HTTP.
type world struct {
	*closeouttest.Env
	fake *fakeWallet
	// trouble, if set, disturbs the connection between the run and the wallet.
	trouble func(w http.ResponseWriter, r *http.Request, wallet http.Handler)
}

func walletAt(url string) *Wallet {
	return &Wallet{API: activities.Endpoint{Name: "the wallet", URL: url, Token: "token"}}
}

func newWorld(t *testing.T) *world {
	w := &world{fake: &fakeWallet{}}
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.trouble != nil {
			w.trouble(rw, r, w.fake)
			return
		}
		w.fake.ServeHTTP(rw, r)
	}))
	t.Cleanup(api.Close)
	w.Env = closeouttest.NewEnv(t, walletAt(api.URL))
	return w
}

// people returns the users of the room: caller and guest listened, and host published.
func people() []session.Participant {
	return []session.Participant{
		closeouttest.Participant("caller", 14*time.Minute+time.Second, 0), // 15 minutes begun
		closeouttest.Participant("guest", 2*time.Minute, 0),
		closeouttest.Participant("host", time.Hour, 10*time.Minute),
		closeouttest.Participant("recorder", time.Hour, 0, func(p *session.Participant) { p.Excluded = "role 4" }),
	}
}

func paid(room string) session.Session {
	return closeouttest.Session(func(c *zego.RoomClose) { c.RoomID = room })
}

func (w *world) close(room string) workflows.Result {
	w.SetParticipants(people()...)
	return w.Run(ClosePaidRoom, paid(room))
}

// booked lists the wallet's bookings.
func (w *world) booked() string {
	var all []string
	for _, b := range w.fake.booked {
		kind, _, _ := strings.Cut(b.ID, "-")
		all = append(all, fmt.Sprint(kind, " ", b.Account, " ", b.Cents))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// The wallet's bookings at the end of a run.
const (
	charged  = "charge caller 300, charge guest 40"
	paidOut  = charged + ", payout host 150"
	refunded = charged + ", refund caller -300, refund guest -40"
)

// outcomes returns the states of the steps.
func outcomes(r workflows.Result) string {
	var all []string
	for _, s := range r.Steps {
		all = append(all, s.Step+" "+string(s.State))
	}
	return strings.Join(all, ", ")
}

// failure returns the failure of a step.
func failure(r workflows.Result, step string) string {
	for _, s := range r.Steps {
		if s.Step == step {
			return s.Failure
		}
	}
	return ""
}

func TestMoneyGoesWhereItBelongs(t *testing.T) {
	for room, want := range map[string]struct {
		booked, outcomes string
		state            workflows.State
	}{
		"paid-talk":  {paidOut, "recordings done, billing done, charge done, payout done", workflows.StateDone},
		"paid-broke": {"", "recordings done, billing done, charge given_up, payout skipped", workflows.StateGivenUp},
		"paid-left":  {refunded, "recordings done, billing done, charge done, payout given_up, refund done", workflows.StateGivenUp},
	} {
		t.Run(room, func(t *testing.T) {
			w := newWorld(t)
			result := w.close(room)
			if result.State != want.state || outcomes(result) != want.outcomes {
				t.Errorf("%s: %s, want %s: %s", result.State, outcomes(result), want.state, want.outcomes)
			}
			if w.booked() != want.booked {
				t.Errorf("booked %q, want %q", w.booked(), want.booked)
			}
		})
	}
}

func TestSkippedPayoutIsRefunded(t *testing.T) {
	w := newWorld(t)
	w.After(time.Hour, func() {
		if want := "**payout** is **blocked**"; !strings.Contains(w.Details(), want) {
			t.Errorf("details lack %q:\n%s", want, w.Details())
		}
		w.Skip("payout", "fraud")
	})
	result := w.close("paid-frozen")
	if want := "recordings done, billing done, charge done, payout skipped, refund done"; outcomes(result) != want || w.booked() != refunded {
		t.Errorf("%s, booked %s", outcomes(result), w.booked())
	}
}

func TestRetriedPayoutIsNotRefunded(t *testing.T) {
	w := newWorld(t)
	frozen := true
	w.trouble = func(rw http.ResponseWriter, r *http.Request, wallet http.Handler) {
		if r.URL.Path == "/payouts" && frozen {
			http.Error(rw, "the host's account is frozen", http.StatusUnprocessableEntity)
			return
		}
		wallet.ServeHTTP(rw, r)
	}
	w.After(time.Hour, func() {
		frozen = false
		w.Retry("payout", "thawed")
	})
	result := w.close("paid-talk")
	if want := "recordings done, billing done, charge done, payout done"; outcomes(result) != want || w.booked() != paidOut {
		t.Errorf("%s, booked %s", outcomes(result), w.booked())
	}
}

// The wallet books, but its answer does not arrive.
func TestLostAnswersAreBookedOnce(t *testing.T) {
	w := newWorld(t)
	lost := map[string]int{}
	w.trouble = func(rw http.ResponseWriter, r *http.Request, wallet http.Handler) {
		if lost[r.URL.Path]++; lost[r.URL.Path] < 3 {
			wallet.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(rw, "upstream is away", http.StatusBadGateway)
			return
		}
		wallet.ServeHTTP(rw, r)
	}
	if result := w.close("paid-talk"); result.State != workflows.StateDone || w.booked() != paidOut {
		t.Errorf("%s, booked %s", outcomes(result), w.booked())
	}
}

// If a payout was booked and its answer was lost, there must be no refund, even if an
// operator skips the payout.
func TestNobodyIsPaidTwice(t *testing.T) {
	w := newWorld(t)
	w.trouble = func(rw http.ResponseWriter, r *http.Request, wallet http.Handler) {
		if r.URL.Path == "/payouts" {
			wallet.ServeHTTP(httptest.NewRecorder(), r)
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		wallet.ServeHTTP(rw, r)
	}
	w.After(time.Hour, func() { w.Skip("payout", "never mind") })
	w.After(2*time.Hour, func() { w.Skip("refund", "the host has it") })
	result := w.close("paid-talk")
	if want := "recordings done, billing done, charge done, payout skipped, refund skipped"; outcomes(result) != want || w.booked() != paidOut {
		t.Errorf("%s, booked %s", outcomes(result), w.booked())
	}
	if got := failure(result, "refund"); !strings.Contains(got, "a host of the session was paid") {
		t.Errorf("the refund failed with %q", got)
	}
}

// A canceled payout may have been booked, so nothing is refunded.
func TestCancelledRunIsNotRefunded(t *testing.T) {
	w := newWorld(t)
	w.After(time.Hour, w.CancelWorkflow)
	w.SetParticipants(people()...)
	w.Start(ClosePaidRoom, paid("paid-frozen"))
	if err := w.GetWorkflowError(); !temporal.IsCanceledError(err) || w.booked() != charged {
		t.Errorf("error %v, booked %s", err, w.booked())
	}
}

// The step and the status decide which refusals wait for an operator.
func TestOnlyWhatNobodyCouldMendIsGivenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		step    string
		status  int
		blocked bool
	}{
		"the caller has no money":        {"charge", http.StatusPaymentRequired, false},
		"the host is gone":               {"payout", http.StatusGone, false},
		"the wallet is gone":             {"charge", http.StatusGone, true},
		"the house has no money":         {"payout", http.StatusPaymentRequired, true},
		"the house can't give it back":   {"refund", http.StatusPaymentRequired, true},
		"nobody is there to be refunded": {"refund", http.StatusGone, true},
		"the token is wrong":             {"charge", http.StatusUnauthorized, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.trouble = func(rw http.ResponseWriter, r *http.Request, wallet http.Handler) {
				if r.URL.Path == "/"+tt.step+"s" {
					http.Error(rw, "it says why", tt.status)
					return
				}
				wallet.ServeHTTP(rw, r)
			}
			blocked := false
			w.After(time.Hour, func() {
				if blocked = strings.Contains(w.Details(), "**"+tt.step+"** is **blocked**"); blocked {
					w.Skip(tt.step, "paid by bank transfer")
				}
			})
			result := w.close("paid-left")
			if blocked != tt.blocked {
				t.Errorf("blocked %t: %s", blocked, outcomes(result))
			}
			if got, want := failure(result, tt.step), fmt.Sprintf("the wallet refused it: %d %s: it says why", tt.status, http.StatusText(tt.status)); got != want {
				t.Errorf("%s failed with %q, want %q", tt.step, got, want)
			}
		})
	}
}

// The logout of the caller arrives an hour after the bill, which counted the caller to the
// end of the room.
func TestALateLogoutCorrectsOneCaller(t *testing.T) {
	for room, want := range map[string]string{
		"paid-talk": paidOut + ", charge caller -200",
		"paid-left": refunded + ", charge caller 0",
	} {
		w := newWorld(t)
		w.close(room)
		now := people()
		now[0] = closeouttest.Participant("caller", 5*time.Minute, 0)
		adjustment := newWorld(t)
		adjustment.fake.booked, adjustment.fake.spent = w.fake.booked, w.fake.spent
		adjustment.SetParticipants(closeouttest.Adjusted(people(), now)...)
		session := paid(room)
		session.RoomSessionID = slices.Collect(maps.Keys(w.fake.spent))[0]
		result := adjustment.RunAdjustment(ClosePaidRoom, session, 1)
		if got := outcomes(result); got != "adjustment-1 done, charge done, payout done" {
			t.Error(got)
		}
		if got, want := adjustment.booked(), sorted(want); got != want {
			t.Errorf("%s: booked %s, want %s", room, got, want)
		}
	}
}

func sorted(list string) string {
	all := strings.Split(list, ", ")
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// One participant has no money. The others pay, and the host is paid.
func TestADebtHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	w.trouble = func(rw http.ResponseWriter, r *http.Request, wallet http.Handler) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "guest") {
			http.Error(rw, "insufficient funds", http.StatusPaymentRequired)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		wallet.ServeHTTP(rw, r)
	}
	result := w.close("paid-talk")
	if result.State != workflows.StateDone || w.booked() != "charge caller 300, payout host 150" {
		t.Errorf("%s, booked %s", outcomes(result), w.booked())
	}
	if got := (Booked{Cents: 300, Users: 1, Debts: 1}).String(); got != "EUR 3.00 of 1 users, 1 without money" {
		t.Error(got)
	}
}

func TestWhatIsPosted(t *testing.T) {
	session := closeouttest.Session()
	task := activities.Task{Session: session, IdempotencyKey: session.IdempotencyKey("refund")}
	charge := uuid.New()
	var got *http.Request
	var body order
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(Booking{ID: "r", Account: "caller", Cents: -1234})
	}))
	defer api.Close()
	ctx := closeouttest.WithParticipants(t.Context(), closeouttest.Participant("caller", time.Hour, 0))
	refunded, err := walletAt(api.URL+"/v1").Refund(ctx, task, Booked{Key: charge})
	if err != nil {
		t.Fatal(err)
	}
	if refunded != (Booked{Users: 1, Cents: -1234}) {
		t.Errorf("refunded %s", refunded)
	}
	if got.URL.Path != "/v1/refunds" || got.Header.Get("Authorization") != "Bearer token" || got.Header.Get("Idempotency-Key") != task.KeyFor("caller").String() {
		t.Errorf("%s with %v", got.URL, got.Header)
	}
	if body != (order{Session: session, User: "caller", Charge: activities.Task{IdempotencyKey: charge}.KeyFor("caller")}) {
		t.Errorf("body %+v", body)
	}
}

func TestSettingsAreRead(t *testing.T) {
	for name, tt := range map[string]struct {
		url, token string
		want       string // the wallet's address; empty if the URL is wrong
	}{
		"none, and a fake wallet": {want: "http://fake"},
		"a wallet":                {url: "https://wallet.example.com/v1/", token: "hunter2", want: "https://wallet.example.com/v1"},
		"one without a token":     {url: "http://wallet", want: "http://wallet"},
		"a token without a URL":   {token: "hunter2"},
		"no scheme":               {url: "wallet.example.com"},
		"another scheme":          {url: "ftp://user:hunter2@wallet.example.com"},
		"no host":                 {url: "http://"},
		"no URL":                  {url: "https://user:hunter2@[::1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WALLET_URL", tt.url)
			t.Setenv("WALLET_TOKEN", tt.token)
			wallet := new(Wallet)
			err := wallet.load()
			if tt.want != "" && (err != nil || wallet.API.URL != tt.want || wallet.API.Token != tt.token) {
				t.Errorf("the wallet is at %s, want %s: %v", wallet.API.URL, tt.want, err)
			}
			if tt.want == "" && (err == nil || !strings.HasPrefix(err.Error(), "WALLET_URL: ") || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestOnlyPaidRoomsArePaid(t *testing.T) {
	if w := route(session.Session{RoomID: "paid-talk"}); workflows.Name(w) != "ClosePaidRoom" {
		t.Errorf("a paid room is closed out by %s", workflows.Name(w))
	}
	if route(session.Session{RoomID: "lobby"}) != nil {
		t.Error("the lobby isn't closed out by the default")
	}
}

func TestServiceIsSound(t *testing.T) {
	if err := service().Check(); err != nil {
		t.Error(err)
	}
}

func TestRunsUnderWayGoOn(t *testing.T) { closeouttest.Replay(t, "testdata", ClosePaidRoom) }
