// Package repair puts right what the audit finds and nobody has to decide: it finds in
// Temporal what a ledger has lost, restores it, and starts or resets runs.
package repair

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Kind is a kind of repair.
type Kind string

// The kinds.
const (
	// RestoreBill puts back the bill that the run made.
	RestoreBill Kind = "restore the bill"
	// RestoreAdjustment puts back the adjustment that its run made.
	RestoreAdjustment Kind = "restore the adjustment"
	// StartRun starts a run for a session that the ledger has and Temporal hasn't.
	StartRun Kind = "start the run"
	// ResetRun resets the run to its first Workflow Task. Its effects aren't repeated.
	ResetRun Kind = "reset the run"
)

// Kinds returns all kinds, in the order in which repairs are to be made: a run that is
// reset finds the bill that was restored.
func Kinds() []Kind { return []Kind{RestoreBill, RestoreAdjustment, StartRun, ResetRun} }

// A Repair is one repair of a session.
type Repair struct {
	Kind
	session.ID
	WorkflowID, RunID string
}

// Repairer makes repairs.
type Repairer struct {
	// Temporal, Data and Ledger are those of the audit.
	Temporal client.Client
	Data     converter.DataConverter
	Ledger   *ledger.Ledger
	// Start starts the run of a session, and Reset resets one to its first Workflow Task.
	Start func(context.Context, session.Session) error
	Reset func(ctx context.Context, workflowID string) error
}

// errNotKept means that what a run made can't be found any more.
var errNotKept = errors.New("the run's history isn't kept any more")

// Do makes a repair. It looks again at what there is, so that it may be made twice, and
// while the system is running.
func (r *Repairer) Do(ctx context.Context, of Repair) error {
	switch of.Kind {
	case RestoreBill:
		made, err := Bill(ctx, r.Temporal, r.Data, of.WorkflowID, of.RunID)
		if err == nil && made == nil {
			err = errNotKept
		}
		if err == nil {
			_, err = r.Ledger.RestoreBill(ctx, *made)
		}
		return err
	case RestoreAdjustment:
		made, err := Adjustment(ctx, r.Temporal, r.Data, of.WorkflowID, of.RunID)
		if err == nil && made == nil {
			err = errNotKept
		}
		if err == nil {
			_, err = r.Ledger.RestoreAdjustment(ctx, *made)
		}
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("%w; restore its bill first", err)
		}
		return err
	case StartRun:
		session, err := r.session(ctx, of)
		if err != nil {
			return err
		}
		return r.Start(ctx, session)
	case ResetRun:
		return r.Reset(ctx, of.WorkflowID)
	}
	return fmt.Errorf("%s: an operator has to decide", of.WorkflowID)
}

// session returns the session as its bill has it, or else as its events do.
func (r *Repairer) session(ctx context.Context, of Repair) (s session.Session, err error) {
	s = session.Session{ID: of.ID}
	bill, err := r.Ledger.Bill(ctx, of.AppID, of.RoomSessionID)
	if err == nil {
		s.RoomID, s.CloseReason, s.RoomCloseTime, s.Reconciled = bill.RoomID, bill.CloseReason, bill.RoomCloseTime, bill.Reconciled
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return s, err
	}
	known, err := r.Ledger.Session(ctx, of.AppID, of.RoomSessionID)
	if err != nil {
		return s, err
	}
	s.RoomID, s.Reconciled = known.RoomID, true
	if s.RoomCloseTime, err = r.Ledger.LastTime(ctx, of.AppID, of.RoomSessionID); err == nil && s.RoomCloseTime.IsZero() {
		err = errors.New("no callback has its time; send it with what is known of it elsewhere, by closeout send --only room_close")
	}
	return s, err
}
