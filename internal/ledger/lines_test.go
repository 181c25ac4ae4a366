package ledger_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// shared charges each participant 5 for every minute after the first, and pays 70 % of the total to
// all participants, split by their time in the room.
func shared(s pricing.Session) (lines []pricing.Line, err error) {
	var users []string
	var times []int64
	charged := int64(0)
	for p := range s.Participants {
		users, times = append(users, p.User), append(times, p.InRoom.Millis)
		if minutes := p.InRoom.Minutes() - 1; minutes > 0 {
			lines = append(lines, pricing.Line{Payer: p.User, Description: "time in the room", Quantity: minutes, Unit: "minute", UnitPrice: 5, Amount: 5 * minutes, Currency: "KWD"})
			charged += 5 * minutes
		}
	}
	for i, share := range pricing.Split(charged*70/100, times) {
		lines = append(lines, pricing.Line{Payee: users[i], Description: "share", Quantity: times[i] / 1000, Unit: "second", Amount: -share, Currency: "KWD"})
	}
	return lines, nil
}

// linesOf returns the lines of an entry, and fails the test if they don't add up to amount.
func linesOf(t *testing.T, l *ledger.Ledger, appID uint32, roomSessionID uint64, entry int, amount, count int64) (lines []pricing.Line) {
	t.Helper()
	for line, err := range l.Lines(t.Context(), session.ID{AppID: appID, RoomSessionID: roomSessionID}, entry) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if sum, err := pricing.Sum(lines); err != nil || sum != amount || int64(len(lines)) != count {
		t.Errorf("session %d, entry %d: %d lines add up to %d, %v, want %d and %d", roomSessionID, entry, len(lines), sum, err, count, amount)
	}
	return lines
}

// The test generates sessions. Their callbacks are lost and shuffled, and arrive before and after
// the bill.
func TestLinesOfAllEntriesAddUpToTheCurrentPrice(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price = shared
		for seed := range uint64(60) {
			r := rand.New(rand.NewPCG(seed, 23))
			var events []ledger.Event
			add := func(u ledger.Event) {
				u.RoomSessionID = seed + 1
				if r.IntN(5) > 0 {
					events = append(events, u)
				}
			}
			add(created(0))
			for i := range r.IntN(12) {
				from := r.Int64N(900)
				to := from + r.Int64N(1000-from)
				user, stay := fmt.Sprintf("user %d", r.IntN(5)), fmt.Sprint(i)
				add(login(user, stay, from))
				add(logout(user, stay, from, to))
			}
			r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			part := func() {
				n := r.IntN(len(events) + 1)
				record(t, l, events[:n]...)
				events = events[n:]
			}
			part()
			bill := closing(seed+1, 1000)
			bill.Charge = pricing.Charge{}
			b := finalize(t, l, bill)
			all := linesOf(t, l, app, seed+1, 0, b.Charge.Amount, b.Charge.Lines)
			for round := range 3 {
				if round == 2 {
					record(t, l, events...)
				} else {
					part()
				}
				for _, d := range dirty(t, l) {
					a, err := adjust(t, l, d)
					if errors.Is(err, ledger.ErrNothingToAdjust) {
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					again, err := adjust(t, l, d)
					if err != nil || again != a {
						t.Errorf("seed %d: repeated %+v, %v, want %+v", seed, again, err, a)
					}
					all = append(all, linesOf(t, l, app, seed+1, a.Number, a.Difference.Amount, a.Difference.Lines)...)
				}
			}
			now, due, err := l.Reprice(t.Context(), b, pricing.Price{})
			if err != nil {
				t.Fatal(err)
			}
			if sum := billed(t, l, app, seed+1); sum.Amount != now.Charge.Amount || sum.Millis != now.Usage.Millis {
				t.Errorf("seed %d: entries add up to %+v, want %+v", seed, sum, now)
			}
			if off, err := pricing.Difference(all, due); err != nil || len(off) != 0 {
				t.Errorf("seed %d: lines are off by %+v, %v", seed, off, err)
			}
		}
	})
}

// A host is paid for publishing. A listener's logout arrives an hour late.
func TestLateLogoutCorrectsLinesOfOneUser(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price = func(s pricing.Session) (lines []pricing.Line, err error) {
			for p := range s.Participants {
				n := p.InRoom.Minutes()
				lines = append(lines, pricing.Line{Payer: p.User, Description: "time", Quantity: n, Unit: "minute", UnitPrice: 7, Amount: 7 * n, Currency: "EUR"})
				if n := p.Published.Minutes(); n > 0 {
					lines = append(lines, pricing.Line{Payee: p.User, Description: "microphone", Quantity: n, Unit: "minute", UnitPrice: -5, Amount: -5 * n, Currency: "EUR"})
				}
			}
			return lines, nil
		}
		record(t, l, created(0), logout("a", "1", 0, 100), login("b", "2", 0), logout("c", "3", 0, 250), published("c", "s", 10, 130))
		b := finalize(t, l, closing(life, 600))
		linesOf(t, l, app, life, 0, b.Charge.Amount, 4)
		late := logout("b", "2", 0, 90)
		late.SentAt, late.SeenAt = at(600+3600), at(600+3600)
		record(t, l, late)
		a, err := adjust(t, l, dirty(t, l)[0])
		if err != nil {
			t.Fatal(err)
		}
		want := []pricing.Line{{Payer: "b", Description: "time", Quantity: -8, Unit: "minute", UnitPrice: 7, Amount: -56, Currency: "EUR"}}
		if got := linesOf(t, l, app, life, 1, -56, 1); !slices.Equal(got, want) || a.Difference.Amount != -56 || a.Charge.Lines != 4 {
			t.Errorf("adjusted %+v by %+v, want %+v", a, got, want)
		}
		if _, all := participants(t, l, life, at(600), 1); len(all) != 3 {
			t.Errorf("participants %+v", all)
		} else {
			for _, p := range all {
				if (p.Billed() != p.Before) != (p.User == "b") {
					t.Errorf("%s has %+v, after %+v", p.User, p.Billed(), p.Before)
				}
			}
		}
	})
}

// Lines can change although their sum stays the same.
func TestLinesThatChangeWithoutTheSumMakeAnAdjustment(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price = func(s pricing.Session) (lines []pricing.Line, err error) {
			for p := range s.Participants { // the first participant pays
				return []pricing.Line{{Payer: p.User, Description: "entry", Quantity: 1, Unit: "session", UnitPrice: 9, Amount: 9, Currency: "EUR"}}, nil
			}
			return nil, nil
		}
		record(t, l, created(0), logout("b", "1", 0, 60))
		finalize(t, l, closing(life, 100))
		record(t, l, logout("a", "2", 0, 60))
		a, err := adjust(t, l, dirty(t, l)[0])
		if err != nil || a.Difference.Amount != 0 || a.Difference.Lines != 2 {
			t.Errorf("adjusted %+v, %v", a, err)
		}
		linesOf(t, l, app, life, 1, 0, 2)
	})
}

func TestUnpriceableSessionHasNoBill(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, logout("a", "1", 0, 60))
		for want, price := range map[string]pricing.Func{
			"the price function failed: no tariff": func(pricing.Session) ([]pricing.Line, error) { return nil, errors.New("no tariff") },
			"the price function panicked: oh":      func(pricing.Session) ([]pricing.Line, error) { panic("oh") },
			"want Quantity 2 times UnitPrice 3": func(pricing.Session) ([]pricing.Line, error) {
				return []pricing.Line{{Description: "x", Quantity: 2, Unit: "u", UnitPrice: 3, Amount: 5, Currency: "EUR"}}, nil
			},
		} {
			l.Price = price
			_, _, err := l.Finalize(t.Context(), closing(life, 100))
			if !errors.As(err, new(*ledger.PriceError)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			if _, err := l.Bill(t.Context(), session.ID{AppID: app, RoomSessionID: life}); err == nil {
				t.Error("there is a bill")
			}
		}
		l.Price = shared
		b := finalize(t, l, closing(life, 100))
		l.Price = nil
		record(t, l, logout("b", "2", 0, 90))
		if _, err := adjust(t, l, dirty(t, l)[0]); !errors.As(err, new(*ledger.PriceError)) || !strings.Contains(err.Error(), "run the program that has it") {
			t.Errorf("without the function: %v", err)
		}
		l.Price = func(s pricing.Session) ([]pricing.Line, error) {
			return []pricing.Line{{Description: "x", Quantity: 1, Unit: "u", Amount: 5, Currency: "EUR"}}, nil
		}
		if _, err := adjust(t, l, dirty(t, l)[0]); err == nil || !strings.Contains(err.Error(), "found Currency EUR, want "+b.Charge.Currency) {
			t.Errorf("in another currency: %v", err)
		}
	})
}

// A large room has 10,000 participants. Each pays for one line and is paid for another.
func TestLargeBillHasLinesOnlyInTheLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("large, for the race detector too, and nothing in it is concurrent")
	}
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price = shared
		const users = 10_000
		for first := 0; first < users; first += 1000 {
			var chunk []ledger.Event
			for u := first; u < first+1000; u++ {
				chunk = append(chunk, logout(fmt.Sprintf("user %d", u), fmt.Sprint(u), int64(u%600), 1000))
			}
			record(t, l, chunk...)
		}
		bill := closing(life, 1000)
		bill.Charge = pricing.Charge{}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b := finalize(t, l, bill)
		runtime.ReadMemStats(&after)
		t.Logf("allocated %d MB in all", (after.TotalAlloc-before.TotalAlloc)>>20)
		if b.Charge.Lines != 2*users {
			t.Errorf("%d lines, want %d", b.Charge.Lines, 2*users)
		}
		linesOf(t, l, app, life, 0, b.Charge.Amount, 2*users)
		record(t, l, logout("late", "late", 0, 600))
		a, err := adjust(t, l, dirty(t, l)[0])
		if err != nil || a.Charge.Lines != 2*users+2 {
			t.Errorf("adjusted %+v, %v", a, err)
		}
	})
}

// Restored entries have new lines, because Temporal's history, the source of the restore, has none.
func TestRestoredEntriesHaveLinesThatAddUp(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		l.Price = shared
		for number, whole := range map[uint64]bool{1: true, 2: false} {
			events := []ledger.Event{created(0), logout("a", "1", 0, 500), logout("b", "2", 0, 90)}
			late := logout("c", "3", 0, 700)
			for i := range events {
				events[i].RoomSessionID = number
			}
			late.RoomSessionID = number
			record(t, l, events...)
			bill := closing(number, 1000)
			bill.Charge = pricing.Charge{}
			b := finalize(t, l, bill)
			lines := linesOf(t, l, app, number, 0, b.Charge.Amount, b.Charge.Lines)
			record(t, l, late)
			a, err := adjust(t, l, dirty(t, l)[0])
			if err != nil {
				t.Fatal(err)
			}
			l.Lose(t, session.ID{AppID: app, RoomSessionID: number})
			if record(t, l, events[:2]...); whole {
				record(t, l, events[2])
			}
			made := ledger.MadeBill{Bill: b, MadeAt: at(2000)}
			if restored, err := l.RestoreBill(t.Context(), made); err != nil || !restored {
				t.Fatal(restored, err)
			}
			if restored, err := l.RestoreBill(t.Context(), made); err != nil || restored {
				t.Error("restored twice", err)
			}
			if whole {
				if got := linesOf(t, l, app, number, 0, b.Charge.Amount, b.Charge.Lines); !slices.Equal(got, lines) {
					t.Errorf("restored %+v, want %+v", got, lines)
				}
				record(t, l, late)
			} else if got := linesOf(t, l, app, number, 0, b.Charge.Amount, 1); got[0].Description != "as billed, lines lost" {
				t.Errorf("restored %+v", got)
			}
			count := a.Difference.Lines
			if !whole {
				count = 1
			}
			if restored, err := l.RestoreAdjustment(t.Context(), a); err != nil || !restored {
				t.Fatal(restored, err)
			}
			linesOf(t, l, app, number, 1, a.Difference.Amount, count)
			if sum := billed(t, l, app, number); sum.Amount != a.Charge.Amount {
				t.Errorf("restored entries add up to %+v, want %+v", sum, a)
			}
			record(t, l, func() ledger.Event { u := logout("d", "4", 0, 999); u.RoomSessionID = number; return u }())
			if err := l.AdjustRestored(t.Context(), session.ID{AppID: app, RoomSessionID: number}); err != nil {
				t.Fatal(err)
			}
			next, err := l.Adjust(t.Context(), uuid.New(), session.ID{AppID: app, RoomSessionID: number}, 2)
			if err != nil {
				t.Fatal(err)
			}
			linesOf(t, l, app, number, 2, next.Difference.Amount, next.Difference.Lines)
		}
	})
}

func TestLinesThatDoNotAddUpAreNotStored(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		lines := []pricing.Line{{Description: "a", Quantity: 1, Unit: "x", Amount: 3, Currency: "EUR"}, {Description: "b", Quantity: 1, Unit: "x", Amount: 4, Currency: "EUR"}}
		if err := l.InsertLines(t, session.ID{AppID: 1, RoomSessionID: 1}, lines, 8); !errors.As(err, new(*ledger.PriceError)) {
			t.Errorf("lines of 7 for an amount of 8: %v", err)
		}
		linesOf(t, l, 1, 1, 0, 0, 0)
		if err := l.InsertLines(t, session.ID{AppID: 1, RoomSessionID: 1}, lines, 7); err != nil {
			t.Error(err)
		}
		linesOf(t, l, 1, 1, 0, 7, 2)
	})
}
