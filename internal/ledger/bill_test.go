package ledger_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// closing returns the bill to finalize after the session's room_close.
func closing(number uint64, seconds int64) ledger.Bill {
	return ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: app, RoomSessionID: number}, RoomID: "Zimmer 7", RoomCloseTime: at(seconds)},
		Charge: pricing.Charge{Price: pricing.Price{Currency: "EUR", PerMinute: 2}}}
}

func record(t *testing.T, l *ledger.Ledger, events ...ledger.Event) {
	t.Helper()
	if err := l.Record(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func finalize(t *testing.T, l *ledger.Ledger, b ledger.Bill) ledger.Bill {
	t.Helper()
	made, _, err := l.Finalize(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func dirty(t *testing.T, l *ledger.Ledger) []ledger.BilledSession {
	t.Helper()
	all, err := l.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// adjust makes the next adjustment of the session.
func adjust(t *testing.T, l *ledger.Ledger, s ledger.BilledSession) (ledger.Adjustment, error) {
	t.Helper()
	return l.Adjust(t.Context(), uuid.New(), s.ID, s.Number)
}

func TestBillHasTheRecordedUsage(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, created(0), logout("a", "1", 1, 61), logout("b", "2", 0, 30), login("c", "3", 90))
		other := logout("a", "1", 1, 500) // in another session
		other.RoomSessionID--
		record(t, l, other)

		want := closing(life, 100)
		want.Usage = session.Usage{Start: at(0), End: at(100), StartFrom: "room_create", EndFrom: "room_close",
			Participants: 3, Stays: 3, Millis: 100_000, Seconds: 100, Minutes: 2, Estimated: session.NoLogout}
		want.Charge.Amount, want.Charge.Lines = 4, 1
		input := closing(life, 100)
		input.ID = want.ID
		if got := finalize(t, l, input); got != want {
			t.Errorf("billed %+v, want %+v", got, want)
		}
		made, err := l.MadeBill(t.Context(), session.ID{AppID: app, RoomSessionID: life})
		if err != nil || made.Bill != want || time.Since(made.MadeAt) > time.Minute {
			t.Errorf("found %+v, %v, want %+v", made, err, want)
		}
		if open, err := l.Overdue(t.Context(), time.Now().Add(time.Hour), ledger.OpenSession{}, 10); err != nil || len(open) != 1 || open[0].RoomSessionID != other.RoomSessionID {
			t.Errorf("overdue: %+v, %v, want the other session alone", open, err)
		}
		var stays []string
		for s, err := range l.Stays(t.Context(), session.ID{AppID: app, RoomSessionID: life}) {
			if err != nil {
				t.Fatal(err)
			}
			stays = append(stays, fmt.Sprintf("%s %s %d-%d", s.ID, s.User, s.Login, s.Logout))
		}
		if len(stays) != 3 || stays[0] != fmt.Sprintf("1 a %d-%d", at(1).UnixMilli(), at(61).UnixMilli()) {
			t.Errorf("stays: %q", stays)
		}
	})
}

func TestKnownReasonsAreKept(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		b := closing(life, 100)
		b.Usage.Estimated = session.NotCollected
		want := session.NotCollected | session.NoUsage | session.NoRoomCreate
		if got := finalize(t, l, b); got.Usage.Estimated != want {
			t.Errorf("estimated because of %q, want %q", got.Usage.Estimated, want)
		}
	})
}

func TestAdjustmentsLackUncollectedCallbacks(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		b := closing(life, 100)
		b.Usage.Estimated = session.NotCollected
		finalize(t, l, b)
		record(t, l, created(0), logout("a", "1", 10, 70)) // callbacks are collected by now
		if got, err := adjust(t, l, dirty(t, l)[0]); err != nil || got.Usage.Estimated != session.NotCollected || got.Difference.Seconds != 60 {
			t.Errorf("adjusted %+v, %v", got, err)
		}
	})
}

func TestLateLogoutMakesAnAdjustment(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, created(0), login("a", "1", 10), logout("b", "2", 0, 60))
		bill := finalize(t, l, closing(life, 130)) // a: 120 s, b: 60 s
		record(t, l, logout("b", "2", 0, 60), created(0))
		if d := dirty(t, l); len(d) != 0 {
			t.Errorf("dirty after repeated callbacks: %+v", d)
		}
		record(t, l, logout("a", "1", 10, 50), logout("a", "1", 10, 50)) // 40 s
		d := dirty(t, l)
		if len(d) != 1 || d[0].RoomSessionID != life || d[0].AppID != app || d[0].Number != 1 || d[0].RoomCloseTime != bill.RoomCloseTime || d[0].RoomID != bill.RoomID {
			t.Fatalf("dirty: %+v", d)
		}
		got, err := adjust(t, l, d[0])
		want := pricing.Change{Millis: -80_000, Seconds: -80, Minutes: -1, Amount: -2, Lines: 1}
		if err != nil || got.Number != 1 || got.Bill.ID != bill.ID || got.Difference != want || got.Usage.Estimated != 0 || got.Usage.Seconds != 100 || got.Charge.Amount != 4 {
			t.Errorf("adjusted %+v, %v, want a difference of %+v", got, err, want)
		}
		if again, err := adjust(t, l, d[0]); err != nil || again != got {
			t.Errorf("again %+v, %v, want %+v", again, err, got)
		}
		if d := dirty(t, l); len(d) != 0 {
			t.Errorf("still dirty: %+v", d)
		}
		if same, err := l.Bill(t.Context(), session.ID{AppID: app, RoomSessionID: life}); err != nil || same != bill {
			t.Errorf("the bill is %+v, %v, and was %+v", same, err, bill)
		}
		// The first stay is new to the ledger. The second, a recorder's, makes no difference.
		record(t, l, logout("c", "3", 100, 130))
		got, err = adjust(t, l, dirty(t, l)[0])
		want = pricing.Change{Millis: 30_000, Seconds: 30, Minutes: 1, Amount: 2, Lines: 1}
		if err != nil || got.Number != 2 || got.Difference != want {
			t.Errorf("adjusted %+v, %v, want a difference of %+v", got, err, want)
		}
		recorder := logout("r", "4", 0, 130)
		recorder.Role = "4"
		record(t, l, recorder)
		if got, err := adjust(t, l, dirty(t, l)[0]); !errors.Is(err, ledger.ErrNothingToAdjust) {
			t.Errorf("adjusted %+v, %v", got, err)
		}
		if d := dirty(t, l); len(d) != 0 {
			t.Errorf("still dirty: %+v", d)
		}
		if all, err := l.Adjustments(t.Context(), session.ID{AppID: app, RoomSessionID: life}); err != nil || len(all) != 2 {
			t.Errorf("adjustments: %+v, %v", all, err)
		}
		if _, err := l.Adjust(t.Context(), uuid.New(), session.ID{AppID: app, RoomSessionID: life}, 4); err == nil {
			t.Error("Adjust accepts a number that leaves one out")
		}
		if _, err := l.Adjust(t.Context(), uuid.New(), session.ID{AppID: app, RoomSessionID: 5}, 1); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("session without a bill: %v", err)
		}
	})
}

// A late room_create states when the session began.
func TestLateCreateMakesAnAdjustment(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, logout("a", "1", 10, 70))
		if b := finalize(t, l, closing(life, 100)); b.Usage.Estimated != session.NoRoomCreate || b.Usage.Start != at(10) {
			t.Errorf("billed %+v", b)
		}
		record(t, l, created(20))
		got, err := adjust(t, l, dirty(t, l)[0])
		if err != nil || got.Difference.Seconds != -10 || got.Difference.Minutes != 0 || got.Usage.Estimated != 0 || got.Usage.Start != at(20) {
			t.Errorf("adjusted %+v, %v", got, err)
		}
	})
}

// A session without a room_close ends at its last known time.
func TestReconciledSessionEndsAtItsLastKnownTime(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, created(0), logout("a", "1", 0, 60), login("b", "2", 30))
		b := closing(life, 60)
		b.Reconciled = true
		b = finalize(t, l, b)
		if !b.Reconciled || b.Usage.Estimated != session.NoRoomClose|session.NoLogout || b.Usage.Seconds != 90 || b.Usage.End != at(60) {
			t.Errorf("billed %+v", b)
		}
		record(t, l, logout("b", "2", 30, 120))
		got, err := adjust(t, l, dirty(t, l)[0])
		if err != nil || got.Difference.Seconds != 60 || got.Usage.End != at(120) || got.Usage.Estimated != session.NoRoomClose {
			t.Errorf("adjusted %+v, %v", got, err)
		}
	})
}

// A changed price applies to new bills only.
func TestAdjustmentHasThePriceOfItsBill(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		free := closing(life, 100)
		free.Charge = pricing.Charge{}
		finalize(t, l, free)
		record(t, l, logout("a", "1", 10, 70))
		if got, err := adjust(t, l, dirty(t, l)[0]); err != nil || got.Charge != (pricing.Charge{}) || got.Difference.Amount != 0 || got.Difference.Minutes != 1 {
			t.Errorf("adjusted %+v, %v", got, err)
		}
	})
}

func TestTooLargeAmountMakesNoBill(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, logout("a", "1", 10, 190))
		b := closing(life, 500)
		b.Charge.PerMinute = math.MaxInt64 / 2
		if made, _, err := l.Finalize(t.Context(), b); !errors.As(err, new(*ledger.PriceError)) {
			t.Errorf("billed %+v, %v", made, err)
		}
		if _, err := l.Bill(t.Context(), session.ID{AppID: app, RoomSessionID: life}); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("there is a bill: %v", err)
		}
	})
}

// Several workers finalize and adjust a session while its callbacks are recorded. In the end, the
// entries add up to all of them.
func TestNothingIsLostBetweenRecordingAndBilling(t *testing.T) {
	testenv.Databases(t, recordAndBillAtOnce)
}

func recordAndBillAtOnce(t *testing.T, databaseURL string) {
	const users = 60
	var recorders, workers sync.WaitGroup
	for i := range 3 {
		l := open(t, databaseURL)
		recorders.Go(func() {
			for u := i; u < users; u += 3 {
				if err := l.Record(t.Context(), []ledger.Event{created(0), logout(fmt.Sprint(u), fmt.Sprint(u), 0, 7)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	settle := func(l *ledger.Ledger) error {
		if _, _, err := l.Finalize(t.Context(), closing(life, 100)); err != nil {
			return err
		}
		all, err := l.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10)
		for _, d := range all {
			if _, err := l.Adjust(t.Context(), uuid.New(), d.ID, d.Number); err != nil && !errors.Is(err, ledger.ErrNothingToAdjust) {
				return err
			}
		}
		return err
	}
	done := make(chan struct{})
	for range 2 {
		l := open(t, databaseURL)
		workers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if err := settle(l); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	recorders.Wait()
	close(done)
	workers.Wait()
	l := open(t, databaseURL)
	if err := settle(l); err != nil {
		t.Fatal(err)
	}
	if d := dirty(t, l); len(d) != 0 {
		t.Errorf("still dirty: %+v", d)
	}
	if sum := billed(t, l, app, life); sum.Seconds != users*7 {
		t.Errorf("billed %+v in all, want %d s", sum, users*7)
	}
}

// billed returns the sum of a session's bill and its adjustments.
func billed(t *testing.T, l *ledger.Ledger, appID uint32, number uint64) pricing.Change {
	t.Helper()
	b, err := l.Bill(t.Context(), session.ID{AppID: appID, RoomSessionID: number})
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.Adjustments(t.Context(), session.ID{AppID: appID, RoomSessionID: number})
	if err != nil {
		t.Fatal(err)
	}
	sum := pricing.Change{Millis: b.Usage.Millis, Seconds: b.Usage.Seconds, Minutes: b.Usage.Minutes, Amount: b.Charge.Amount, Lines: b.Charge.Lines}
	for _, a := range all {
		d := a.Difference
		sum = pricing.Change{Millis: sum.Millis + d.Millis, Seconds: sum.Seconds + d.Seconds, Minutes: sum.Minutes + d.Minutes, Amount: sum.Amount + d.Amount, Lines: sum.Lines + d.Lines}
	}
	return sum
}

// The test generates sessions with known times. Users come and go, some twice at once, some before
// or after the room's life. Callbacks are lost, repeated and shuffled, and arrive before and after
// the bill. The sum of the entries is exact, or an estimate that is marked as one.
func TestEveryBillIsExactOrAnEstimate(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		sessions, estimates := 200, 0
		if testing.Short() {
			sessions = 50
		}
		for seed := range uint64(sessions) {
			r := rand.New(rand.NewPCG(seed, 7))
			number := seed + 1
			begin := r.Int64N(1000)
			end := begin + r.Int64N(500)
			reconciled, lossy := r.IntN(10) == 0, r.IntN(3) == 0
			events := []ledger.Event{created(begin)}
			type ends struct {
				user     string
				from, to int64
			}
			stays := map[string]ends{}
			for u := range r.IntN(6) {
				for i := range r.IntN(5) {
					from := begin - 2 + r.Int64N(end-begin+4)
					id, s := fmt.Sprintf("%d/%d", u, i), ends{fmt.Sprintf("user %d", u), from, from + r.Int64N(end-from+5)}
					stays[id] = s
					events = append(events, login(s.user, id, s.from), logout(s.user, id, s.from, s.to))
				}
			}
			if r.IntN(3) == 0 { // a recorder
				in, out := login("recorder", "r", begin), logout("recorder", "r", begin, end)
				in.Role, out.Role = "4", "4"
				events = append(events, in, out)
			}
			var sent []ledger.Event
			for _, u := range events {
				u.RoomSessionID = number
				for range 1 + r.IntN(2) {
					if !lossy || r.IntN(4) > 0 {
						sent = append(sent, u)
					}
				}
			}
			// Nobody can know of a stay without any callback.
			there := map[string]bool{}
			for _, u := range sent {
				s, ok := stays[u.Stay]
				for second := max(s.from, begin); ok && second < min(s.to, end); second++ {
					there[fmt.Sprint(s.user, second)] = true
				}
				delete(stays, u.Stay)
			}
			want := int64(len(there))
			r.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
			cut := func() []ledger.Event {
				n := r.IntN(len(sent) + 1)
				part := sent[:n]
				sent = sent[n:]
				return part
			}
			record(t, l, cut()...)
			b := closing(number, end)
			if b.Reconciled = reconciled; reconciled {
				b.RoomCloseTime = at(max(1, end-r.Int64N(10)))
			}
			finalize(t, l, b)
			for rounds := 0; rounds < 2; rounds++ {
				if rounds == 1 {
					record(t, l, sent...)
				} else {
					record(t, l, cut()...)
				}
				for _, d := range dirty(t, l) {
					if _, err := adjust(t, l, d); err != nil && !errors.Is(err, ledger.ErrNothingToAdjust) {
						t.Fatal(err)
					}
				}
			}
			sum, now := billed(t, l, app, number), finalFigures(t, l, number)
			minutes := (sum.Seconds + 59) / 60
			if sum.Millis != now.Millis || sum.Seconds != now.Seconds || sum.Minutes != minutes || sum.Amount != 2*minutes {
				t.Errorf("seed %d: the entries add up to %+v, want %+v", seed, sum, now)
			}
			if now.Estimated != 0 {
				estimates++
			} else if sum.Seconds != want {
				t.Errorf("seed %d: billed %+v without saying that it is an estimate, want %d s", seed, sum, want)
			}
		}
		t.Logf("%d of %d sessions were estimated", estimates, sessions)
		if estimates > sessions*6/10 {
			t.Errorf("%d of %d sessions are estimates, want at most 60%%", estimates, sessions)
		}
	})
}

// finalFigures returns the figures of the session's last entry.
func finalFigures(t *testing.T, l *ledger.Ledger, number uint64) session.Usage {
	t.Helper()
	b, err := l.Bill(t.Context(), session.ID{AppID: app, RoomSessionID: number})
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.Adjustments(t.Context(), session.ID{AppID: app, RoomSessionID: number})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) > 0 {
		return all[len(all)-1].Usage
	}
	return b.Usage
}

func TestEntriesAreListedByTheTimeOfTheirRooms(t *testing.T) {
	ledger.SmallPages(t, 3)
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for s := range uint64(10) { // two with the same time
			u := login("a", "1", 0)
			u.RoomSessionID = s
			record(t, l, u)
			finalize(t, l, closing(s, int64(s)/2*60))
			if s%3 == 0 {
				u = logout("a", "1", -5, 0)
				u.RoomSessionID = s
				record(t, l, u)
			}
		}
		for _, d := range dirty(t, l) {
			if _, err := adjust(t, l, d); err != nil {
				t.Fatal(err)
			}
		}
		elsewhere := closing(99, 60)
		elsewhere.AppID = 7
		finalize(t, l, elsewhere)
		for _, tt := range []struct {
			filter ledger.Filter
			want   []uint64
		}{
			{ledger.Filter{}, []uint64{0, 1, 99, 2, 3, 4, 5, 6, 7, 8, 9}},
			{ledger.Filter{AppID: app}, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
			{ledger.Filter{AppID: 7}, []uint64{99}},
			{ledger.Filter{From: at(60), To: at(180)}, []uint64{99, 2, 3, 4, 5}},
			{ledger.Filter{From: at(240)}, []uint64{8, 9}},
			{ledger.Filter{To: at(1)}, []uint64{0, 1}},
			{ledger.Filter{From: at(1000)}, nil},
		} {
			var got []uint64
			for e, err := range l.Entries(t.Context(), tt.filter) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.RoomSessionID)
				if wants := e.RoomSessionID%3 == 0 && e.RoomSessionID != 99; (len(e.Adjustments) == 1) != wants {
					t.Errorf("session %d has %d adjustments", e.RoomSessionID, len(e.Adjustments))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%+v lists %v, want %v", tt.filter, got, tt.want)
			}
			if n, err := l.CountBills(t.Context(), tt.filter); err != nil || n != int64(len(tt.want)) {
				t.Errorf("%+v counts %d, %v, want %d", tt.filter, n, err, len(tt.want))
			}
		}
	})
}

// An app has few bills in a long time. Reading them must not load the other apps' adjustments of
// that time into memory.
func TestEntriesOfAnAppReadNoOtherApp(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for s, appID := range []uint32{7, app, 7} {
			b := closing(uint64(s), int64(s)*60)
			b.AppID = appID
			finalize(t, l, b)
			u := logout("a", "1", -5, 0)
			u.AppID, u.RoomSessionID = appID, uint64(s)
			record(t, l, u)
		}
		for _, d := range dirty(t, l) {
			if _, err := adjust(t, l, d); err != nil {
				t.Fatal(err)
			}
		}
		l.SpoilAdjustments(t, app)
		n := 0
		for e, err := range l.Entries(t.Context(), ledger.Filter{AppID: 7}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; len(e.Adjustments) != 1 {
				t.Errorf("session %d has %d adjustments", e.RoomSessionID, len(e.Adjustments))
			}
		}
		if n != 2 {
			t.Errorf("%d bills, want 2", n)
		}
	})
}

// A second room_close that contradicts the first marks the bill as an estimate. After the bill, it
// makes an adjustment of zero.
func TestSecondCloseOfASessionIsReported(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		second := ledger.Event{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "Zimmer 7", Event: zego.EventRoomClose, Close: at(200), SeenAt: at(200)}
		record(t, l, created(0), logout("a", "1", 1, 10), second)
		if b := finalize(t, l, closing(life, 100)); b.Usage.Estimated != session.Contradicted || b.Usage.Seconds != 9 {
			t.Errorf("before the bill: %+v", b.Usage)
		}
		after := []ledger.Event{created(0), logout("a", "1", 1, 10)}
		for i := range after {
			after[i].RoomSessionID = 5
		}
		record(t, l, after...)
		if b := finalize(t, l, closing(5, 100)); b.Usage.Estimated != 0 {
			t.Errorf("without a contradiction: %+v", b.Usage)
		}
		second.RoomSessionID = 5
		record(t, l, second)
		d := dirty(t, l)
		if len(d) != 1 {
			t.Fatalf("dirty: %+v", d)
		}
		if a, err := adjust(t, l, d[0]); err != nil || a.Usage.Estimated != session.Contradicted || a.Difference != (pricing.Change{}) {
			t.Errorf("after the bill: %+v, %v", a, err)
		}
	})
}
