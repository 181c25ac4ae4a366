package activities

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Standard names the standard steps, for Workflows that start them and for tests
// that mock them.
var Standard = &Steps{}

// Steps are the standard steps. Every worker runs them; the methods here only name
// them, and fail when called.
type Steps struct{}

// FinalizeBill makes the session's bill in the ledger and posts it to the billing API, if
// one is set. A repeat returns the same bill.
func (*Steps) FinalizeBill(context.Context, Task) (bill Bill, err error) { return bill, errOnlyNamed }

// AdjustBill adjusts the bill for callbacks that arrived after billing. Adjustments of a
// session are numbered from 1. A repeat returns the same adjustment.
func (*Steps) AdjustBill(_ context.Context, _ Task, number int) (adjusted Adjusted, err error) {
	return adjusted, errOnlyNamed
}

// ArchiveRecordings copies the session's recordings to the archive, verifies each copy,
// and writes the manifest. It waits while recordings are missing.
func (*Steps) ArchiveRecordings(context.Context, Task) (archived Archived, err error) {
	return archived, errOnlyNamed
}

// AddRecordings archives recordings that were reported after the manifest was written,
// and writes the next manifest.
func (*Steps) AddRecordings(context.Context, Task) (archived Archived, err error) {
	return archived, errOnlyNamed
}

var errOnlyNamed = Blockedf("activities.Standard only names the standard steps; a worker of package closeout runs them")

// Bill is a session's bill. The billing API gets the same fields, without Posted.
type Bill struct {
	// ID is the idempotency key of the step that made the bill.
	ID uuid.UUID `json:"bill_id"`
	// AppID, RoomID and RoomSessionID identify the session.
	AppID         uint32 `json:"appid"`
	RoomID        string `json:"room_id"`
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason, RoomCloseTime and Reconciled are copied from the session.
	CloseReason   zego.Code `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`
	Reconciled    bool      `json:"reconciled,omitempty"`
	// Usage is the billed time.
	Usage session.Usage `json:"usage"`
	// Charge is the price of Usage, or zero if the app has no price.
	Charge Charge `json:"charge,omitzero"`
	// Posted reports whether the billing API has the bill.
	Posted bool `json:"posted"`
	// Waiting is set while the bill waits for missing callbacks.
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Waits implements [Waiter].
func (b Bill) Waits() *Waiting { return b.Waiting }

// Charge is the price of a session.
type Charge struct {
	// Currency is an ISO 4217 code, or empty without a price.
	Currency string `json:"currency"`
	// PerMinute is the price from CLOSEOUT_PRICES. Function reports that
	// closeout.Service.Price priced the session instead.
	PerMinute int64 `json:"price_per_minute"`
	Function  bool  `json:"by_function,omitempty"`
	// Amount is the sum of the lines in the currency's minor units, such as cents. Lines is
	// their number.
	Amount int64 `json:"amount"`
	Lines  int64 `json:"lines"`
}

// String returns the amount, such as "EUR 0.36", or "" without a price.
func (c Charge) String() string { return pricing.Format(c.Currency, c.Amount) }

// String describes the bill in a few words.
func (b Bill) String() string {
	return "bill " + b.ID.String() + ": " + b.Figures() + atAPI(b.Posted)
}

// Figures describes the billed time and amount in a few words.
func (b Bill) Figures() string {
	u := b.Usage
	participants := "participants"
	if u.Participants == 1 {
		participants = "participant"
	}
	text := fmt.Sprintf("%d %s, %d s, %d min", u.Participants, participants, u.Seconds, u.Minutes)
	if b.Charge.Currency != "" {
		text += ", " + b.Charge.String()
	}
	if len(u.Estimated) > 0 {
		text += "; estimated, because of " + strings.Join(u.Estimated, ", ")
	}
	if missing := u.Callbacks.Missing + u.StreamCallbacks.Missing; missing > 0 {
		text += fmt.Sprintf("; callbacks missing: %d", missing)
	}
	if u.Excluded != "" {
		text += "; no participants: " + u.Excluded
	}
	return text
}

func atAPI(posted bool) string {
	if posted {
		return "; also at the billing API"
	}
	return ""
}

// Adjusted is the result of [Steps.AdjustBill].
type Adjusted struct {
	// ID is the idempotency key of the step that made the adjustment.
	ID uuid.UUID `json:"adjustment_id"`
	// Number counts the session's adjustments from 1.
	Number int `json:"number"`
	// Bill has the figures after the adjustment. Its ID is the first bill's ID.
	Bill
	// Difference is the change against the bill and all earlier adjustments.
	Difference Difference `json:"difference"`
	// MadeAt is when the adjustment was made.
	MadeAt time.Time `json:"made_at"`
	// Nothing reports that there was nothing to adjust.
	Nothing bool `json:"nothing,omitempty"`
}

// Difference is the change of an adjustment.
type Difference struct {
	// Millis, Seconds and Minutes are participants' time, as in [session.Usage].
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Amount is in the currency's minor units, or 0 without a price.
	Amount int64 `json:"amount"`
	// Lines is the number of the adjustment's lines.
	Lines int64 `json:"lines"`
}

// String describes the adjustment in a few words.
func (a Adjusted) String() string {
	if a.Nothing {
		return "nothing to adjust"
	}
	amount := ""
	if a.Charge.Currency != "" {
		amount = ", " + pricing.Format(a.Charge.Currency, a.Difference.Amount)
	}
	return fmt.Sprintf("adjustment %d of bill %s, by %+d s, %+d min%s, now %s%s",
		a.Number, a.Bill.ID, a.Difference.Seconds, a.Difference.Minutes, amount, a.Figures(), atAPI(a.Posted))
}

// Archived is the result of [Steps.ArchiveRecordings] and [Steps.AddRecordings].
type Archived struct {
	// Manifest is the manifest's key in the archive.
	Manifest string `json:"manifest"`
	// Files and Bytes count the session's recordings.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Links are the addresses of the manifest and the first recordings: s3://bucket/key or
	// a file's path.
	Links []string `json:"links,omitempty"`
	// Lost names the first of the LostFiles recordings that ZEGO failed to upload.
	Lost      []string `json:"lost,omitempty"`
	LostFiles int      `json:"lost_files,omitempty"`
	// Waiting is set while recordings are missing.
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Waits implements [Waiter].
func (a Archived) Waits() *Waiting { return a.Waiting }

// String describes the archive in a few words.
func (a Archived) String() string {
	const maxNames = 5
	text := fmt.Sprintf("%d recordings of %d bytes", a.Files, a.Bytes)
	switch a.Files {
	case 0:
		text = "no recordings"
	case 1:
		text = fmt.Sprintf("1 recording of %d bytes", a.Bytes)
	}
	if len(a.Lost) > 0 {
		names := strings.Join(a.Lost[:min(len(a.Lost), maxNames)], "; ")
		if more := len(a.Lost) - maxNames; more > 0 {
			names += fmt.Sprintf("; and %d more", more)
		}
		text += fmt.Sprintf(", %d lost (%s)", a.LostFiles, names)
	}
	return text + ", see " + a.Manifest
}
