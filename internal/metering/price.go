package metering

import (
	"fmt"
	"math"
	"math/bits"
)

// Price is what a participant's minute costs.
type Price struct {
	// Currency is its ISO 4217 code; empty: there is no price.
	Currency string `json:"currency"`
	// PerMinute is in the currency's minor units, such as cents.
	PerMinute int64 `json:"price_per_minute"`
}

// Charge is what a session costs.
type Charge struct {
	Price
	// Amount is in the currency's minor units.
	Amount int64 `json:"amount"`
}

// Charge is what so many minutes cost. The error is [ErrTooLarge].
func (p Price) Charge(minutes int64) (Charge, error) {
	high, low := bits.Mul64(uint64(p.PerMinute), uint64(minutes))
	if p.PerMinute < 0 || minutes < 0 || high != 0 || low > math.MaxInt64 {
		return Charge{}, fmt.Errorf("the amount of %d minutes at %d: %w", minutes, p.PerMinute, ErrTooLarge)
	}
	return Charge{p, int64(low)}, nil
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
}

// DifferenceOf is from what was billed in all to what is to be.
func DifferenceOf(before Figures, billed Charge, after Figures, due Charge) Difference {
	return Difference{
		after.Millis - before.Millis, after.Seconds - before.Seconds, after.Minutes - before.Minutes, due.Amount - billed.Amount,
	}
}
