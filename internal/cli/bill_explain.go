package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// explanation is who was in the room of each of some sessions.
type explanation struct {
	Sessions []explainedSession `json:"sessions"`
}

type explainedSession struct {
	session.ID
	RoomID  string `json:"room_id"`
	Settled bool   `json:"settled"`
	// Adjustment is the number of the last adjustment; 0 for the bill.
	Adjustment      int                   `json:"adjustment"`
	Callbacks       session.Completeness  `json:"callbacks"`
	StreamCallbacks session.Completeness  `json:"stream_callbacks"`
	Participants    []session.Participant `json:"participants"`
	// Lines are those of the bill, then those of each adjustment.
	Lines [][]pricing.Line `json:"lines"`
}

// needRules is a step that has the ledger count participants and price them as the workers do.
func needRules(extension service.Extension) func(context.Context, *operation) error {
	return func(_ context.Context, op *operation) error {
		op.ledger.Rules, op.ledger.Price = op.config.Exclude, extension.Price
		op.ledger.Rules.Func = extension.Exclude
		return nil
	}
}

func explainBills(ctx context.Context, op *operation) error {
	report := explanation{Sessions: []explainedSession{}}
	err := op.each("session", exampleSession, func(arg string) error {
		found, err := findBills(ctx, op, arg)
		if err != nil {
			return err
		}
		for _, b := range found {
			s := session.Session{ID: b.ID}
			if b.Bill != nil {
				s = b.Bill.Session
			} else if s.RoomCloseTime, err = op.ledger.LastTime(ctx, b.ID); err != nil {
				return err
			}
			p, err := op.ledger.Participants(ctx, s, len(b.Adjustments))
			if err != nil {
				return err
			}
			e := explainedSession{s.ID, s.RoomID, p.Settled, p.Adjustment, p.Callbacks, p.StreamCallbacks, []session.Participant{}, b.Lines}
			for q, err := range p.All {
				if err != nil {
					return err
				}
				e.Participants = append(e.Participants, q)
			}
			report.Sessions = append(report.Sessions, e)
		}
		return nil
	})
	return errors.Join(err, op.print(report, report.print))
}

func (r explanation) print(out io.Writer) error {
	for _, s := range r.Sessions {
		state := "the bill"
		switch {
		case !s.Settled:
			state = "not billed yet, as it is known now"
		case s.Adjustment > 0:
			state = fmt.Sprintf("adjustment %d", s.Adjustment)
		}
		fmt.Fprintf(out, "session %d of app %d, %s\n", s.RoomSessionID, s.AppID, state)
		if s.RoomID != "" {
			fmt.Fprintf(out, "  room: %s\n", printable.Line(s.RoomID))
		}
		fmt.Fprintf(out, "  callbacks of users: %v, of streams: %v\n", s.Callbacks, s.StreamCallbacks)
		printed := map[string]bool{}
		for _, p := range s.Participants {
			if err := explain(out, p, s.Adjustment > 0); err != nil {
				return err
			}
			printed[p.User] = true
			s.printLines(out, func(party string) bool { return party == p.User })
		}
		others := &bytes.Buffer{}
		if s.printLines(others, func(party string) bool { return !printed[party] }); others.Len() > 0 {
			fmt.Fprintf(out, "\n%s", others)
		}
	}
	return nil
}

// printLines prints the lines of the parties that of chooses: those of adjustments add to
// those before.
func (s explainedSession) printLines(out io.Writer, of func(party string) bool) {
	for entry, lines := range s.Lines {
		name := "bill"
		if entry > 0 {
			name = fmt.Sprint("adjustment ", entry)
		}
		for _, l := range lines {
			if of(l.Payer + l.Payee) {
				fmt.Fprintf(out, "  %s: %s\n", name, lineText(l))
			}
		}
	}
}

// explain prints a participant's figures, and the timeline that they come from.
func explain(out io.Writer, p session.Participant, adjusted bool) error {
	name := printable.Line(p.User)
	if len(p.Names) > 0 {
		name += " (" + printable.Line(strings.Join(p.Names, ", ")) + ")"
	}
	if p.Excluded != "" {
		name += ", no participant: " + printable.Line(p.Excluded)
	}
	fmt.Fprintf(out, "\n%s\n  in the room: %s\n  published:   %s\n", name, length(p.InRoom), length(p.Published))
	if adjusted && p.Before != p.Billed() {
		fmt.Fprintf(out, "  before:      %v in the room, %v published\n", time.Duration(p.Before.InRoom)*time.Millisecond, time.Duration(p.Before.Published)*time.Millisecond)
	}
	type moment struct {
		at   session.End
		what string
	}
	var line []moment
	for _, s := range p.Stays {
		id := cmp.Or(printable.Line(s.SessionID), "without a callback")
		line = append(line, moment{s.Login, "login, stay " + id}, moment{s.Logout, "logout, stay " + id})
	}
	for _, s := range p.Streams {
		id := printable.Line(cmp.Or(s.StreamID, s.StreamSID))
		line = append(line, moment{s.Create, "publishes " + id}, moment{s.Close, "stops " + id})
	}
	slices.SortStableFunc(line, func(a, b moment) int { return a.at.Time.Compare(b.at.Time) })
	t := newTable(out, "  TIME", "EVENT", "CERTAINTY")
	for _, m := range line {
		certainty := string(m.at.Certainty)
		if m.at.Certainty != session.Stated {
			certainty += ", from " + millis(m.at.Earliest) + " to " + millis(m.at.Latest)
		}
		t.row("  "+millis(m.at.Time), m.what, certainty)
	}
	return t.print()
}

// length describes a length of time and its bounds.
func length(s session.Span) string {
	seconds := func(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }
	text := seconds(s.Millis)
	if s.Exact() {
		return text
	}
	most := "unknown"
	if s.Max >= 0 {
		most = seconds(s.Max)
	}
	return fmt.Sprintf("%s, at least %s and at most %s, because of %s", text, seconds(s.Min), most, strings.Join(s.Reasons.Names(), ", "))
}
