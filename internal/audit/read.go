package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/session"
)

func (a *audit) readJournal(context.Context) error {
	if a.Journal == nil {
		return nil
	}
	for e, err := range a.Journal {
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		a.sessions.mark(e.ID, e.flags())
	}
	return nil
}

func (e Entry) flags() flags {
	switch {
	case e.Acknowledged:
		return offered | acknowledged
	case e.Undecided:
		return offered | undecided
	}
	return offered
}

func (a *audit) readInbox(ctx context.Context) error {
	if a.Inbox == nil {
		return nil
	}
	for e, err := range a.Inbox(ctx) {
		if err != nil {
			return fmt.Errorf("read the inbox: %w", err)
		}
		k, err := session.ParseWorkflowID(e.Key)
		if err != nil {
			return fmt.Errorf("read the inbox: %w", err)
		}
		f := waiting
		if !e.DeadAt.IsZero() {
			f, a.aside = deadLetter, true
		}
		a.sessions.mark(k, f)
	}
	return nil
}

// readRuns reads Temporal's list of runs. The list lags behind, and repeats a run that closes between two pages.
func (a *audit) readRuns(ctx context.Context) error {
	// Until is no filter here, because later runs account for their bills.
	for run, err := range a.list(ctx, a.since(fmt.Sprintf("WorkflowId STARTS_WITH '%s'", session.WorkflowIDPrefix))) {
		if err != nil {
			return fmt.Errorf("list runs: %w", err)
		}
		k, err := session.ParseWorkflowID(run.id)
		if err != nil {
			a.report.Foreign++
			continue
		}
		r := a.sessions[k]
		r.set(severally, r.has(listed))
		r.set(listed, true)
		r.set(outside, a.late(run.start))
		r.set(run.flags, !a.late(run.start))
		r.stated = run.stated.sum()
		a.sessions[k] = r
	}
	return nil
}

// since adds Since to a List Filter.
func (a *audit) since(query string) string {
	if a.Since.IsZero() {
		return query
	}
	return query + fmt.Sprintf(" AND StartTime >= '%s'", a.Since.UTC().Format(time.RFC3339Nano))
}

// readBills reads the bills since Since. A bill is younger than the start of its run.
func (a *audit) readBills(ctx context.Context) error {
	for b, err := range a.Ledger.Bills(ctx, a.Since) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		k := b.Session.ID
		r := a.sessions[k]
		r.set(billed, true)
		r.set(old, a.gone(b.MadeAt))
		r.set(young, b.MadeAt.After(a.began.Add(-a.Grace)))
		r.set(differs, r.stated != 0 && r.stated != billDetails(b.Bill).sum())
		a.sessions[k] = r
		if a.unaccountedFor(r) {
			a.unaccounted = true
		}
	}
	losses, err := a.Ledger.Losses(ctx)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	a.lossy, a.report.Losses = a.Lossy || len(losses) > 0, losses
	if a.report.Refused, err = a.Ledger.UnreadableSince(ctx, a.Since, MaxFaults); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	// Ignore Since here: Temporal may have deleted these runs, and no other place has the sessions.
	for s, err := range a.Ledger.ClosedUnbilled(ctx) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		a.sessions.mark(s.ID, closed)
	}
	return nil
}

// readContradictions reports sessions with a contradicting room_close: one of the two callbacks belongs to another session,
// which has no run. Only the ledger stores these.
func (a *audit) readContradictions(ctx context.Context) error {
	for c, err := range a.Ledger.Contradictions(ctx, a.Since) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if a.late(c.SeenAt) {
			continue
		}
		a.report.add(c.ID, Fault{Kind: Contradicted,
			Problem: fmt.Sprintf("It was closed twice: another room_close says that room %q closed at %s. That one has no run.", c.RoomID, c.RoomCloseTime.Format(time.RFC3339Nano)),
			Remedy: "See that nothing between ZEGO and the webhook rounds room_session_id, and find out whose the other room_close is. If it is another session's, close that out by its own number: " +
				sendCommand(c.AppID, "SESSION")})
	}
	return nil
}

// readAgain reads two places again that may have changed since: the journal, whose entry may be written after the bill, and
// the inbox, where an operator may have retried a dead letter.
func (a *audit) readAgain(ctx context.Context) error {
	if a.unaccounted {
		for e, err := range a.Journal {
			if err != nil {
				return fmt.Errorf("read the journal again: %w", err)
			}
			if _, known := a.sessions[e.ID]; known {
				a.sessions.mark(e.ID, e.flags())
			}
		}
	}
	if a.aside {
		for e, err := range a.Inbox(ctx) {
			if err != nil {
				return fmt.Errorf("read the inbox again: %w", err)
			}
			k, err := session.ParseWorkflowID(e.Key)
			switch {
			case err != nil:
				return fmt.Errorf("read the inbox again: %w", err)
			case e.DeadAt.IsZero():
				a.sessions.mark(k, waiting)
				continue
			}
			a.sessions.mark(k, deadLetter|stillDead)
			if len(a.reasons) < MaxFaults {
				a.reasons[k] = e.Reason
			}
		}
	}
	return nil
}
