package pricing

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/session"
)

// Bill is a session's bill, as Closeout stores and posts it.
type Bill struct {
	// ID is the idempotency key of the step that made the bill.
	ID uuid.UUID `json:"bill_id"`
	// Session is the billed session.
	session.Session
	// Usage is the billed time.
	Usage session.Usage `json:"usage"`
	// Charge is the price of Usage, or zero if the app has no price.
	Charge Charge `json:"charge,omitzero"`
}

// String describes the bill in a few words.
func (b Bill) String() string { return "bill " + b.ID.String() + ": " + b.Figures() }

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
	if u.Estimated != 0 {
		text += "; estimated, because of " + strings.Join(u.Estimated.Names(), ", ")
	}
	if missing := u.Callbacks.Missing + u.StreamCallbacks.Missing; missing > 0 {
		text += fmt.Sprintf("; callbacks missing: %d", missing)
	}
	if u.Excluded != "" {
		text += "; no participants: " + u.Excluded
	}
	return text
}

// Adjustment corrects a bill and its earlier adjustments for callbacks that arrived after
// them.
type Adjustment struct {
	// ID is the idempotency key of the step that made the adjustment.
	ID uuid.UUID `json:"adjustment_id"`
	// Number counts the session's adjustments from 1.
	Number int `json:"number"`
	// Bill has the ID of the session's bill, and the figures after the adjustment.
	Bill
	// Difference is the change against the bill and all earlier adjustments. All of them
	// add up to Usage and Charge.
	Difference Change `json:"difference"`
	// MadeAt is when the adjustment was made, by the worker's clock, to the millisecond and
	// in UTC.
	MadeAt time.Time `json:"made_at"`
}

// Price is the price of a participant-minute.
type Price struct {
	// Currency is an ISO 4217 code, or empty without a price.
	Currency string `json:"currency"`
	// PerMinute is in the currency's minor units, such as cents.
	PerMinute int64 `json:"price_per_minute"`
}

// Charge is the price of a session: the sum of its lines.
type Charge struct {
	// Price is the price from CLOSEOUT_PRICES. If closeout.Service.Price has priced the
	// session, PerMinute is 0 and Currency is the currency of the lines, or empty without
	// lines.
	Price
	// Function reports that closeout.Service.Price has priced the session.
	Function bool `json:"by_function,omitempty"`
	// Amount is in the currency's minor units.
	Amount int64 `json:"amount"`
	// Lines is the number of lines.
	Lines int64 `json:"lines"`
}

// String returns the amount, such as "EUR 0.36", or "" without a price.
func (c Charge) String() string { return Format(c.Currency, c.Amount) }

// MarshalJSON implements [json.Marshaler]. It adds the formatted amount as amount_text.
func (c Charge) MarshalJSON() ([]byte, error) {
	type fields Charge
	return json.Marshal(struct {
		fields
		Text string `json:"amount_text,omitempty"`
	}{fields(c), c.String()})
}

// Change is the change that a bill or an adjustment adds. In an adjustment it may be
// negative.
type Change struct {
	// Millis, Seconds and Minutes are participants' time, as in [session.Usage].
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Amount is in the currency's minor units, or 0 without a price.
	Amount int64 `json:"amount"`
	// Lines is the number of lines of the bill or adjustment.
	Lines int64 `json:"lines"`
}

// Since returns the change from an earlier state of the bill, or from the zero Bill, to b.
// Its Lines is valid only for the zero Bill: an adjustment counts its own lines.
func (b Bill) Since(before Bill) Change {
	return Change{b.Usage.Millis - before.Usage.Millis, b.Usage.Seconds - before.Usage.Seconds, b.Usage.Minutes - before.Usage.Minutes,
		b.Charge.Amount - before.Charge.Amount, b.Charge.Lines - before.Charge.Lines}
}
