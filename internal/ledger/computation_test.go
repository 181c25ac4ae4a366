package ledger_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// The program's functions may be slow. Callbacks of this session and of others are recorded
// meanwhile, and the bill has those that arrive.
func TestSlowProgramFunctionsDelayNoCallback(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l, webhook := open(t, databaseURL), open(t, databaseURL)
		calls, meanwhile := map[string]int{}, func(string) {}
		l.Price = func(s pricing.Session) ([]pricing.Line, error) {
			calls["price"]++
			meanwhile("price")
			return perMillisecond(s)
		}
		l.Rules.Func = func(_ session.Session, p session.Participant) string {
			calls["exclude"]++
			meanwhile("exclude")
			return map[bool]string{true: "bot"}[strings.HasPrefix(p.User, "bot")]
		}
		arrive := func(u ledger.Event) {
			other := u
			other.RoomSessionID--
			record(t, webhook, u, other)
		}
		once := map[string]bool{}
		meanwhile = func(what string) {
			if !once[what] {
				once[what] = true
				arrive(logout("during "+what, what, 10, 20))
			}
		}
		record(t, l, created(0), logout("a", "1", 10, 50), logout("bot", "2", 0, 60))
		bill := closing(life, 100)
		bill.Charge = pricing.Charge{}
		b := finalize(t, l, bill)
		if b.Usage.Millis != 60_000 || b.Usage.Participants != 3 || b.Charge.Amount != 60_000 || b.Usage.Excluded != "bot (bot)" {
			t.Errorf("billed %+v", b)
		}
		priced := calls["price"]
		if again := finalize(t, l, bill); again != b || calls["price"] != priced {
			t.Errorf("repeated: %+v, priced %d more times", again, calls["price"]-priced)
		}

		clear(once)
		arrive(logout("late", "3", 0, 30))
		meanwhile = func(what string) {
			if !once[what] {
				once[what] = true
				arrive(logout("later", "4", 0, 40))
			}
		}
		a, err := adjust(t, l, dirty(t, l)[0])
		if err != nil || a.Usage.Millis != 130_000 || a.Difference.Amount != 70_000 || a.Difference.Lines != 2 {
			t.Errorf("adjusted %+v, %v", a, err)
		}
		linesOf(t, l, app, life, 1, 70_000, 2)
		if left := dirty(t, l); len(left) != 0 {
			t.Errorf("still dirty: %+v", left)
		}

		l.Lose(t, session.ID{AppID: app, RoomSessionID: life})
		clear(once)
		made := ledger.MadeBill{Bill: b, MadeAt: at(200)}
		if restored, err := l.RestoreBill(t.Context(), made); err != nil || !restored || !once["price"] {
			t.Errorf("restored %v, %v", restored, err)
		}
	})
}

// Finalize gives up on a session whose callbacks arrive during every computation.
func TestComputationsAreBounded(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l, webhook := open(t, databaseURL), open(t, databaseURL)
		calls := 0
		l.Price = func(s pricing.Session) ([]pricing.Line, error) {
			calls++
			record(t, webhook, logout("a", strconv.Itoa(calls), 10, 50))
			return perMillisecond(s)
		}
		bill := closing(life, 100)
		bill.Charge = pricing.Charge{}
		if _, _, err := l.Finalize(t.Context(), bill); err == nil || !strings.Contains(err.Error(), "arrived during each of 5 computations") || calls != 5 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}
