package closeouttest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

func TestPriceRefusesImpureFunctions(t *testing.T) {
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

func TestPricedSessionTotalsParticipants(t *testing.T) {
	recorder := Participant("recorder", time.Hour, 0)
	recorder.Excluded = "role 4"
	unsure := Participant("b", 90*time.Second, 1500*time.Millisecond)
	unsure.InRoom.Reasons, unsure.Published.Reasons = session.NoLogout, session.NoStreamClose
	other := Participant("a", 31*time.Second, time.Second)
	other.InRoom.Reasons = session.NoLogout | session.NoLogin
	s := PricedSession(unsure, other, recorder)
	if s.Usage.Participants != 2 || s.Usage.Seconds != 121 || s.Usage.Minutes != 3 || s.Usage.Published != 2500 || s.Usage.PublishedSeconds != 2 ||
		s.Usage.Estimated != session.NoLogin|session.NoLogout || s.Usage.PublishedEstimated != session.NoStreamClose {
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

func TestStepReadsTheLinesOfTheTest(t *testing.T) {
	line := pricing.Line{Payee: "harry", Amount: -5}
	lines, blocked := 0, 0
	for l, err := range activities.Lines(WithLines(t.Context(), line), activities.Task{Session: Session()}) {
		if lines++; err != nil || l != line {
			t.Errorf("%+v, %v", l, err)
		}
	}
	for _, err := range activities.Lines(t.Context(), activities.Task{Session: Session()}) {
		if blocked++; !activities.IsBlocked(err) {
			t.Errorf("without a ledger: %v", err)
		}
	}
	if lines != 1 || blocked != 1 {
		t.Errorf("%d lines, and %d errors without a ledger, want one of each", lines, blocked)
	}
}

func TestAdjustmentHasEarlierFigures(t *testing.T) {
	before := []session.Participant{Participant("ada", time.Hour, time.Minute), Participant("Bo", time.Minute, 0)}
	now := []session.Participant{Participant("çelik", time.Second, 0), Participant("ada", time.Minute, time.Minute)}
	var got []string
	for _, p := range Adjusted(before, now) {
		got = append(got, fmt.Sprint(p.User, " ", p.Billed(), " ", p.Before))
	}
	if want := "Bo {0 0} {60000 0}; ada {60000 60000} {3600000 60000}; çelik {1000 0} {0 0}"; strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	perMinute := func(s pricing.Session) (lines []pricing.Line, err error) {
		for p := range s.Participants {
			lines = append(lines, pricing.Line{Payer: p.User, Description: "time", Quantity: p.InRoom.Minutes(), Unit: "minute", UnitPrice: 2, Amount: 2 * p.InRoom.Minutes(), Currency: "EUR"})
		}
		return lines, nil
	}
	lines, amount := PriceAdjustment(t, perMinute, PricedSession(before...), PricedSession(now...))
	if len(lines) != 3 || lines[0].Payer != "ada" || lines[0].Quantity != -59 || amount != -118-2+2 {
		t.Errorf("%d of %+v", amount, lines)
	}
}
