package metering

import (
	"encoding/json"

	"github.com/closeouthq/closeout/pricing"
)

// Price is the price of a participant's minute.
type Price struct {
	// Currency is an ISO 4217 code. Empty means no price.
	Currency string `json:"currency"`
	// PerMinute is in the currency's minor units, such as cents.
	PerMinute int64 `json:"price_per_minute"`
}

// Charge is the sum of a session's lines.
type Charge struct {
	// Price holds the currency of the lines, empty without lines, and the price of a minute,
	// which is 0 if Service.Price priced the session.
	Price
	// Function reports whether Service.Price priced the session.
	Function bool `json:"by_function,omitempty"`
	// Amount is in the currency's minor units.
	Amount int64 `json:"amount"`
	// Lines is the number of lines.
	Lines int64 `json:"lines"`
}

// MarshalJSON adds the amount for people, as amount_text.
func (c Charge) MarshalJSON() ([]byte, error) {
	type fields Charge
	return json.Marshal(struct {
		fields
		Text string `json:"amount_text,omitempty"`
	}{fields(c), pricing.Format(c.Currency, c.Amount)})
}

// Prices holds the prices of all apps.
type Prices struct {
	// Apps holds the apps with their own price.
	Apps map[uint32]Price
	// Default is the price of the other apps. Without a currency they have none.
	Default Price
}

// Of returns an app's price.
func (p Prices) Of(app uint32) Price {
	if price, ok := p.Apps[app]; ok {
		return price
	}
	return p.Default
}

// Difference is what an entry adds to the earlier entries. In an adjustment it may be
// negative.
type Difference struct {
	// Millis, Seconds and Minutes are participants' time, as in [Figures].
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Amount is in the currency's minor units; 0 without a price.
	Amount int64 `json:"amount"`
	// Lines is the number of the entry's lines.
	Lines int64 `json:"lines"`
}

// DifferenceOf returns the difference between what was billed so far and what is due. due
// counts the lines as if nothing had been billed.
func DifferenceOf(before Figures, billed Charge, after Figures, due Charge) Difference {
	return Difference{
		after.Millis - before.Millis, after.Seconds - before.Seconds, after.Minutes - before.Minutes, due.Amount - billed.Amount, due.Lines - billed.Lines,
	}
}
