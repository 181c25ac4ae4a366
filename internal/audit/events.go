package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// maxNamed bounds the callbacks that a fault names.
const maxNamed = 5

// readEvents checks the participants' callbacks. Because they move from the inbox to the
// ledger, it looks for a missing one in the inbox, and then in the ledger again.
func (a *audit) readEvents(ctx context.Context) error {
	lacking := map[session.ID][]ledger.Event{}
	if a.Journal != nil {
		for l, err := range a.Journal {
			if err != nil {
				return fmt.Errorf("read the journal: %w", err)
			}
			for _, t := range l.Events {
				if !t.Acknowledged {
					continue
				}
				u := ledger.Event{ID: l.ID, Event: t.Event, Stay: t.Stay, User: t.User}
				lacks, err := a.Ledger.Lacks(ctx, u)
				if err != nil {
					return fmt.Errorf("read the ledger: %w", err)
				}
				a.report.EventsAcknowledged++
				if lacks {
					lacking[l.ID] = append(lacking[l.ID], u)
				}
			}
		}
	}
	queued, aside := map[session.ID]bool{}, map[session.ID]string{}
	if a.EventInbox != nil {
		for e, err := range a.EventInbox(ctx) {
			if err != nil {
				return fmt.Errorf("read the inbox of events: %w", err)
			}
			_, k, err := eventsink.ParseKey(e.Key)
			if err != nil {
				return fmt.Errorf("read the inbox of events: %w", err)
			}
			queued[k] = true
			if e.DeadAt.IsZero() {
				a.report.EventsWaiting++
				continue
			}
			a.report.EventDeadLetters++
			problem := fmt.Sprintf("The callback %s is a dead letter, as the ledger refuses it: %q", e.Key, e.Reason)
			if k.RoomSessionID == 0 { // a recording or an unreadable callback; its session is unknown
				a.report.add(k, Fault{Kind: EventDeadLetter, Problem: problem, Remedy: asideRemedy, workflowID: e.Key})
				continue
			}
			aside[k] = problem
		}
	}
	for k, problem := range aside {
		a.report.add(k, Fault{Kind: EventDeadLetter, Problem: problem, Remedy: asideRemedy})
	}
	for k, all := range lacking {
		if queued[k] {
			continue // the session is enough to wait for
		}
		var lost []string
		for _, u := range all {
			lacks, err := a.Ledger.Lacks(ctx, u)
			if err != nil {
				return fmt.Errorf("read the ledger: %w", err)
			}
			if lacks {
				lost = append(lost, strings.TrimSpace(u.Event+" "+u.User))
			}
		}
		if len(lost) == 0 {
			continue
		}
		named := strings.Join(lost[:min(len(lost), maxNamed)], ", ")
		if len(lost) > maxNamed {
			named += " ..."
		}
		a.report.add(k, Fault{Kind: EventLost,
			Problem: fmt.Sprintf("Of its participants %d callbacks were acknowledged that are neither in the ledger nor in the inbox: %s.", len(lost), named),
			Remedy:  "See that the webhook and this audit have the same ledger (CLOSEOUT_DATABASE_URL), and that all webhooks' folders were looked into (--event-inbox). If they are lost, its bill lacks them."})
	}
	return a.compareLives(ctx, queued)
}

const asideRemedy = "Fix what the ledger complains of, and then: closeout inbox retry --all. closeout inbox list --events --dead-letters lists them."

// compareLives compares bills with the callbacks in the journal. Callbacks move from the inbox
// to the ledger and then into an entry, so it reads the places in that order.
func (a *audit) compareLives(ctx context.Context, queued map[session.ID]bool) error {
	if a.Journal == nil {
		return nil
	}
	for l, err := range a.Journal {
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		truth, whole, ok := truthOf(l)
		if !ok || queued[l.ID] {
			continue
		}
		adjusting, err := a.Ledger.Adjusting(ctx, l.ID)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if adjusting {
			a.report.Adjusting++
			continue
		}
		bill, err := a.bill(ctx, l.ID)
		if err != nil {
			return err
		}
		if bill == nil {
			continue // other checks decide whether it should have one
		}
		adjustments, err := a.Ledger.Adjustments(ctx, l.ID)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		a.report.SessionsCompared++
		if problem := untrue(*bill, adjustments, truth, whole); problem != "" {
			a.report.add(l.ID, Fault{Kind: BillUntrue, Problem: problem,
				Remedy: "See what came of it: closeout bill show " + l.WorkflowID() + ". The journal says what happened."})
		}
	}
	return nil
}

// truthOf computes the figures that a session's entries must add up to. whole reports that all
// its callbacks were acknowledged. ok is false if the figures cannot be known, because a
// callback was sent and not acknowledged.
func truthOf(l Entry) (truth session.Usage, whole, ok bool) {
	room, whole := metering.Room{Close: l.RoomCloseTime.UnixMilli()}, l.Acknowledged
	type ends struct {
		metering.Stay
		user     string
		reported bool
	}
	stays := map[string]*ends{}
	for _, t := range l.Events {
		if !t.Acknowledged && !t.Withheld {
			return truth, false, false
		}
		whole = whole && t.Acknowledged
		if t.Event == zego.EventRoomCreate {
			room.Create = t.RoomCreateTime.UnixMilli()
			continue
		}
		s := stays[t.Stay]
		if s == nil {
			s = &ends{user: t.User, Stay: metering.Stay{Role: t.Role, Login: t.LoginTime.UnixMilli()}}
			stays[t.Stay] = s
		}
		s.reported = s.reported || t.Acknowledged
		if t.Event == zego.EventRoomLogout {
			s.Logout = t.LogoutTime.UnixMilli()
		}
	}
	if room.Create == 0 {
		return truth, false, false
	}
	users := map[string]metering.User{}
	for _, s := range stays {
		switch {
		case s.Logout == 0:
			return truth, false, false // the journal does not have the end
		case s.reported:
			users[s.user] = metering.User{Account: s.user, Stays: append(users[s.user].Stays, s.Stay)}
		}
	}
	room.Roles = slices.ContainsFunc(l.Events, func(t Callback) bool { return t.Role != "" && t.Role != zego.RoleService })
	meter := metering.NewMeter(room)
	for _, u := range users {
		meter.Add(u, metering.Default.Of(session.Session{}, room))
	}
	truth, err := meter.Figures()
	return truth, whole, err == nil
}

// untrue describes what is wrong with a session's entries. It returns "" if they add up to the
// truth, or are marked as an estimate.
func untrue(bill ledger.MadeBill, adjustments []ledger.Adjustment, truth session.Usage, whole bool) string {
	last := bill.Usage
	sum := bill.Since(pricing.Bill{})
	for _, a := range adjustments {
		last = a.Usage
		sum.Millis, sum.Seconds, sum.Minutes = sum.Millis+a.Difference.Millis, sum.Seconds+a.Difference.Seconds, sum.Minutes+a.Difference.Minutes
	}
	figures := func(u session.Usage) string {
		return fmt.Sprintf("%d participants, %d stays and %d ms from %v to %v", u.Participants, u.Stays, u.Millis, u.Start, u.End)
	}
	switch {
	case sum.Millis != last.Millis || sum.Seconds != last.Seconds || sum.Minutes != last.Minutes:
		return fmt.Sprintf("Its bill and adjustments add up to %d ms, %d s and %d min, and the last of them has %d, %d and %d.",
			sum.Millis, sum.Seconds, sum.Minutes, last.Millis, last.Seconds, last.Minutes)
	case last.Estimated != 0 && whole:
		return fmt.Sprintf("All events were reported and acknowledged, but the bill is an estimate: %s.", last.Estimated)
	case last.Estimated != 0:
		return ""
	case last.Participants != truth.Participants || last.Stays != truth.Stays || last.Millis != truth.Millis || !last.Start.Equal(truth.Start) || !last.End.Equal(truth.End):
		return fmt.Sprintf("What is billed isn't what happened: found %s; want %s.", figures(last), figures(truth))
	}
	return ""
}
