package metering

import (
	"encoding/json"

	"github.com/closeouthq/closeout/pricing"
)

// Price is what a participant's minute costs.
type Price struct {
	// Currency is its ISO 4217 code; empty: there is no price.
	Currency string `json:"currency"`
	// PerMinute is in the currency's minor units, such as cents.
	PerMinute int64 `json:"price_per_minute"`
}

// Charge is what a session costs: the sum of its lines.
type Charge struct {
	// Price has the currency of the lines, which is empty without any, and the price of a
	// minute; 0 if the program's own function has priced the session.
	Price
	// Function reports that the program's own function has priced the session.
	Function bool `json:"by_function,omitempty"`
	// Amount is in the currency's minor units.
	Amount int64 `json:"amount"`
	// Lines is how many there are.
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

// Prices are those of the apps.
type Prices struct {
	// Apps has the apps with a price of their own.
	Apps map[uint32]Price
	// Default is that of the others; none if it has no currency.
	Default Price
}

// Of is an app's price.
func (p Prices) Of(app uint32) Price {
	if price, ok := p.Apps[app]; ok {
		return price
	}
	return p.Default
}

// Difference is what an entry adds to those before it; in an adjustment it may be
// negative.
type Difference struct {
	// Millis, Seconds and Minutes are participants' time, as in [Figures].
	Millis  int64 `json:"participant_milliseconds"`
	Seconds int64 `json:"participant_seconds"`
	Minutes int64 `json:"participant_minutes"`
	// Amount is in the currency's minor units; 0 without a price.
	Amount int64 `json:"amount"`
	// Lines is how many lines the entry has.
	Lines int64 `json:"lines"`
}

// DifferenceOf is from what was billed in all to what is to be. Lines are those that are
// due if nothing was billed.
func DifferenceOf(before Figures, billed Charge, after Figures, due Charge) Difference {
	return Difference{
		after.Millis - before.Millis, after.Seconds - before.Seconds, after.Minutes - before.Minutes, due.Amount - billed.Amount, due.Lines - billed.Lines,
	}
}
