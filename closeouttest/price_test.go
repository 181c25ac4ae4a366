package closeouttest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/pricing"
)

func TestPriceFailsForAFunctionThatIsNotPure(t *testing.T) {
	calls := 0
	one := func(description string) []pricing.Line {
		return []pricing.Line{{Description: description, Quantity: 1, Unit: "session", Amount: 5, Currency: "EUR"}}
	}
	for want, price := range map[string]pricing.Func{
		"": func(s pricing.Session) ([]pricing.Line, error) { return one(s.RoomID), nil },
		"the price function returned other lines": func(pricing.Session) ([]pricing.Line, error) {
			calls++
			return one(strings.Repeat("x", calls)), nil
		},
		"price the session: %v": func(pricing.Session) ([]pricing.Line, error) { return nil, errors.New("no tariff") },
		"the price function returned other lines for": func(s pricing.Session) (lines []pricing.Line, err error) {
			for user := range map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true, "f": true, "g": true, "h": true} {
				lines = append(lines, one(user)...)
			}
			return lines, nil
		},
		"price the session without participants: %v": func(s pricing.Session) (lines []pricing.Line, err error) {
			return one([]string{s.RoomID}[s.Usage.Participants-1]), nil
		},
	} {
		r := &recorder{TB: t}
		r.ended(func() { Price(r, price, PricedSession(Participant("alice", time.Minute, 0))) })
		if (r.failure == "") != (want == "") || !strings.Contains(r.failure, want) {
			t.Errorf("failed with %q, want %q", r.failure, want)
		}
	}
}

func TestAPricedSessionHasTheTotalsOfThoseWhoCount(t *testing.T) {
	recorder := Participant("recorder", time.Hour, 0)
	recorder.Excluded = "role 4"
	s := PricedSession(Participant("b", 90*time.Second, 0), Participant("a", 31*time.Second, time.Second), recorder)
	if s.Usage.Participants != 2 || s.Usage.Seconds != 121 || s.Usage.Minutes != 3 {
		t.Errorf("%+v", s.Usage)
	}
	var users []string
	for p := range s.Participants {
		users = append(users, p.User)
	}
	if strings.Join(users, " ") != "a b" {
		t.Errorf("participants %v", users)
	}
}

func TestAStepReadsTheLinesOfTheTest(t *testing.T) {
	line := pricing.Line{Payee: "harry", Amount: -5}
	for l, err := range activities.Lines(WithLines(t.Context(), line), activities.Task{Session: Session()}) {
		if err != nil || l != line {
			t.Errorf("%+v, %v", l, err)
		}
	}
	for _, err := range activities.Lines(t.Context(), activities.Task{Session: Session()}) {
		if !activities.IsBlocked(err) {
			t.Errorf("without a ledger: %v", err)
		}
	}
}
