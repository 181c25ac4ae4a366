package closeouttest

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// PricedSession returns a settled session with these participants, for a price function.
func PricedSession(participants ...session.Participant) pricing.Session {
	s := pricing.Session{Session: Session()}
	s.Usage.End, s.Usage.EndFrom = s.RoomCloseTime, "room_close"
	count := slices.DeleteFunc(slices.Clone(participants), func(p session.Participant) bool { return p.Excluded != "" })
	slices.SortFunc(count, byUser)
	for _, p := range count {
		s.Usage.Participants++
		s.Usage.Stays += int64(max(1, len(p.Stays)))
		s.Usage.Millis += p.InRoom.Millis
		s.Usage.Published += p.Published.Millis
		s.Usage.Estimated |= p.InRoom.Reasons
		s.Usage.PublishedEstimated |= p.Published.Reasons
	}
	s.Usage.Seconds, s.Usage.PublishedSeconds = s.Usage.Millis/1000, s.Usage.Published/1000
	s.Usage.Minutes = session.Minutes(s.Usage.Millis)
	s.Participants = slices.Values(count)
	return s
}

// Price returns the lines of a session and their sum, the amount of the bill. It fails the
// test if the step would block, or if the function is not pure: if it returns different
// lines when it is called again, with another session in between.
func Price(t testing.TB, price pricing.Func, s pricing.Session) (lines []pricing.Line, amount int64) {
	t.Helper()
	lines, err := pricing.Apply(price, s)
	if err != nil {
		t.Fatalf("price the session: %v", err)
	}
	lines = slices.Clone(lines)
	other := s
	other.Usage, other.Participants = session.Usage{}, slices.Values([]session.Participant(nil))
	for range 10 { // the order of a map doesn't differ every time
		if _, err := pricing.Apply(price, other); err != nil {
			t.Fatalf("price the session without participants: %v", err)
		}
		again, err := pricing.Apply(price, s)
		if err != nil {
			t.Fatalf("price the session again: %v", err)
		}
		if !slices.Equal(again, lines) {
			t.Fatalf("the price function returned other lines for the same session, want the same ones in the same order:\n%+v\n%+v", lines, again)
		}
	}
	if amount, err = pricing.Sum(lines); err != nil {
		t.Fatalf("add up the lines: %v", err)
	}
	return lines, amount
}

// PriceAdjustment returns the lines of the adjustment that corrects the bill of before to
// the figures of now, and the sum of the lines.
func PriceAdjustment(t testing.TB, price pricing.Func, before, now pricing.Session) (lines []pricing.Line, amount int64) {
	t.Helper()
	billed, _ := Price(t, price, before)
	due, _ := Price(t, price, now)
	lines, err := pricing.Difference(billed, due)
	if err == nil {
		amount, err = pricing.Sum(lines)
	}
	if err != nil {
		t.Fatalf("adjust the lines: %v", err)
	}
	return lines, amount
}

// WithLines returns a context in which activities.Lines returns the given lines.
func WithLines(ctx context.Context, lines ...pricing.Line) context.Context {
	return attendance.WithLines(ctx, func(context.Context, session.Session, int) iter.Seq2[pricing.Line, error] {
		return func(yield func(pricing.Line, error) bool) {
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
		}
	})
}
