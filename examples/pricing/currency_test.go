package main

import (
	"testing"

	"github.com/bojanz/currency"

	"github.com/closeouthq/closeout/pricing"
)

// The table of bojanz/currency is generated from the standard's list one.
func TestCurrenciesHaveTheDecimalsOfISO4217(t *testing.T) {
	codes := currency.GetCurrencyCodes()
	if len(codes) < 150 {
		t.Fatalf("only %d currencies", len(codes))
	}
	for _, code := range codes {
		want, _ := currency.GetDigits(code)
		if n, err := pricing.Decimals(code); err != nil || n != int(want) {
			t.Errorf("%s: %d, %v, want %d", code, n, err, want)
		}
	}
}
