package main

import "github.com/closeouthq/closeout/pricing"

// Call charges the call as a whole, by its participant-minutes, with a minimum and a cap.
func Call(s pricing.Session) ([]pricing.Line, error) {
	const perMinute, minimum, most = 30, 100, 2000
	amount := s.Usage.Minutes * perMinute // rounding per call
	lines := []pricing.Line{{Description: "call", Quantity: s.Usage.Minutes, Unit: "minute", UnitPrice: perMinute, Amount: amount, Currency: "EUR"}}
	switch {
	case amount < minimum:
		lines = append(lines, pricing.Line{Description: "up to the minimum charge", Quantity: 1, Unit: "call", Amount: minimum - amount, Currency: "EUR"})
	case amount > most:
		lines = append(lines, pricing.Line{Description: "capped", Quantity: 1, Unit: "call", Amount: most - amount, Currency: "EUR"})
	}
	return lines, nil
}
