package pricing

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/session"
)

// Bill is a session's bill, as Closeout keeps it and posts it.
type Bill struct {
	// ID is the idempotency key of the step that made it.
	ID uuid.UUID `json:"bill_id"`
	// Session is the session that is billed.
	session.Session
	// Usage is what is billed.
	Usage session.Usage `json:"usage"`
	// Charge is what it costs; zero if the app has no price.
	Charge Charge `json:"charge,omitzero"`
}

// String describes the bill in a few words.
func (b Bill) String() string { return "bill " + b.ID.String() + ": " + b.Figures() }

// Figures describes what is billed in a few words.
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

// Adjustment corrects a bill, and the adjustments before it, by what arrived after them.
type Adjustment struct {
	// ID is the idempotency key of the step that made it.
	ID uuid.UUID `json:"adjustment_id"`
	// Number counts the session's adjustments from 1.
	Number int `json:"number"`
	// Bill has the ID of the session's bill, and the figures that the bill would have now.
	Bill
	// Difference is what this entry adds to those before it. All entries add up to Usage
	// and Charge.
	Difference Change `json:"difference"`
	// MadeAt is by the clock of the worker that made it, to the millisecond and in UTC.
	MadeAt time.Time `json:"made_at"`
}

// Price is what a participant's minute costs.
type Price struct {
	// Currency is an ISO 4217 code; empty without a price.
	Currency string `json:"currency"`
	// PerMinute is in the currency's minor units, such as cents.
	PerMinute int64 `json:"price_per_minute"`
}

// Charge is what a session costs: the sum of its lines.
type Charge struct {
	// Price is that of CLOSEOUT_PRICES. If closeout.Service.Price has priced the session,
	// PerMinute is 0 and Currency that of the lines, which is empty without any.
	Price
	// Function reports that closeout.Service.Price has priced the session.
	Function bool `json:"by_function,omitempty"`
	// Amount is in the currency's minor units.
	Amount int64 `json:"amount"`
	// Lines is how many lines there are.
	Lines int64 `json:"lines"`
}

// String returns the amount for people, such as "EUR 0.36"; empty without a price.
func (c Charge) String() string { return Format(c.Currency, c.Amount) }

// MarshalJSON adds the amount for people, as amount_text.
func (c Charge) MarshalJSON() ([]byte, error) {
	type fields Charge
	return json.Marshal(struct {
		fields
		Text string `json:"amount_text,omitempty"`
	}{fields(c), c.String()})
}

// Change is what an entry adds to those before it; in an adjustment it may be negative.
type Change struct {
	// Millis, Seconds and Minutes are participants' time, as in [session.Usage].
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Amount is in the currency's minor units; 0 without a price.
	Amount int64 `json:"amount"`
	// Lines is how many lines the entry has.
	Lines int64 `json:"lines"`
}

// Since returns what b adds to an earlier state of the bill, or to the zero Bill. Lines are
// those that are due if nothing was billed.
func (b Bill) Since(before Bill) Change {
	return Change{b.Usage.Millis - before.Usage.Millis, b.Usage.Seconds - before.Usage.Seconds, b.Usage.Minutes - before.Usage.Minutes,
		b.Charge.Amount - before.Charge.Amount, b.Charge.Lines - before.Charge.Lines}
}
