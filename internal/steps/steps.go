// Package steps runs the standard steps, which package activities names.
package steps

import (
	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Standard has an Activity for each method of [activities.Steps].
type Standard struct {
	*Billing
	*Recordings
}

// AdjustmentOf returns the next adjustment of a session with events after its last
// entry in the ledger.
func AdjustmentOf(b ledger.BilledSession) activities.Adjustment {
	return activities.Adjustment{Number: b.Number, Session: session.Session{
		ID: session.ID{AppID: b.AppID, RoomSessionID: b.RoomSessionID}, RoomID: b.RoomID,
		CloseReason: b.CloseReason, RoomCloseTime: b.RoomCloseTime, Reconciled: b.Reconciled,
	}}
}

// SessionOfArchived returns an archived session.
func SessionOfArchived(s ledger.ArchivedSession) session.Session {
	return session.Session{ID: session.ID{AppID: s.AppID, RoomSessionID: s.RoomSessionID}, RoomID: s.RoomID,
		CloseReason: s.CloseReason, RoomCloseTime: s.RoomCloseTime, Reconciled: s.Reconciled}
}

// billOf returns a bill of the ledger as the step's result.
func billOf(b ledger.Bill, posted bool) activities.Bill {
	return activities.Bill{
		ID: b.ID, AppID: b.AppID, RoomID: b.RoomID, RoomSessionID: b.RoomSessionID,
		CloseReason: b.CloseReason, RoomCloseTime: b.RoomCloseTime, Reconciled: b.Reconciled,
		Usage:  b.Usage.Usage(),
		Charge: activities.Charge{Currency: b.Charge.Currency, PerMinute: b.Charge.PerMinute, Function: b.Charge.Function, Amount: b.Charge.Amount, Lines: b.Charge.Lines},
		Posted: posted,
	}
}

// adjustedOf returns an adjustment of the ledger as the step's result.
func adjustedOf(a ledger.Adjustment, posted bool) activities.Adjusted {
	d := a.Difference
	return activities.Adjusted{
		ID: a.ID, Number: a.Number, Bill: billOf(a.Bill, posted), MadeAt: a.MadeAt,
		Difference: activities.Difference{Millis: d.Millis, Seconds: d.Seconds, Minutes: d.Minutes, Amount: d.Amount, Lines: d.Lines},
	}
}
