package pricing_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

func line(payer string, quantity, price int64) pricing.Line {
	return pricing.Line{Payer: payer, Description: "time", Quantity: quantity, Unit: "minute", UnitPrice: price, Amount: quantity * price, Currency: "EUR"}
}

func TestApplyRefusesInvalidLines(t *testing.T) {
	with := func(change func(*pricing.Line)) []pricing.Line {
		l := line("a", 2, 5)
		change(&l)
		return []pricing.Line{line("b", 1, 1), l}
	}
	for want, lines := range map[string][]pricing.Line{
		"line 2: found Amount 9, want Quantity 2 times UnitPrice 5, which is 10": with(func(l *pricing.Line) { l.Amount = 9 }),
		`line 2: found Payer "a" and Payee "b", want at most one`:                with(func(l *pricing.Line) { l.Payee = "b" }),
		"line 2: Description is empty":                                           with(func(l *pricing.Line) { l.Description = "" }),
		"line 2: Description has 201 bytes, want at most 200":                    with(func(l *pricing.Line) { l.Description = strings.Repeat("x", 201) }),
		"line 2: Unit is empty":                                                  with(func(l *pricing.Line) { l.Unit = "" }),
		`line 2: Description is "a\nb", want text without control`:               with(func(l *pricing.Line) { l.Description = "a\nb" }),
		`line 2: Payer is "a\x00", want text`:                                    with(func(l *pricing.Line) { l.Payer = "a\x00" }),
		`line 2: check Currency: found currency "eur", want`:                     with(func(l *pricing.Line) { l.Currency = "eur" }),
		`line 2: check Currency: found currency "EUX", want`:                     with(func(l *pricing.Line) { l.Currency = "EUX" }),
		"line 2: found Currency JPY after EUR, want one currency":                with(func(l *pricing.Line) { l.Currency = "JPY" }),
		"more than 63 bits can hold":                                             with(func(l *pricing.Line) { l.UnitPrice, l.Amount = 0, math.MaxInt64 }),
		"line 2: 4611686018427387904 times 5: more than 63 bits can hold":        with(func(l *pricing.Line) { l.Quantity = 1 << 62 }),
		"found 100001 lines, want at most 100000":                                slices.Repeat([]pricing.Line{line("a", 1, 1)}, pricing.MaxLines+1),
	} {
		_, err := pricing.Apply(func(pricing.Session) ([]pricing.Line, error) { return lines, nil }, pricing.Session{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	discount := with(func(l *pricing.Line) { l.UnitPrice, l.Amount = 0, -7 })
	if lines, err := pricing.Apply(func(pricing.Session) ([]pricing.Line, error) { return discount, nil }, pricing.Session{}); err != nil || len(lines) != 2 {
		t.Errorf("a discount: %v, %v", lines, err)
	}
}

func TestApplyReturnsErrorsAndPanics(t *testing.T) {
	cause := errors.New("no tariff")
	_, err := pricing.Apply(func(pricing.Session) ([]pricing.Line, error) { return nil, cause }, pricing.Session{})
	if !errors.Is(err, cause) || err.Error() != "the price function failed: no tariff" {
		t.Error(err)
	}
	_, err = pricing.Apply(func(pricing.Session) ([]pricing.Line, error) { panic("nil map") }, pricing.Session{})
	if err == nil || err.Error() != "the price function panicked: nil map" {
		t.Error(err)
	}
}

func TestPerMinute(t *testing.T) {
	s := pricing.Session{Usage: session.Usage{Minutes: 18}}
	lines, err := pricing.Apply(pricing.PerMinute("EUR", 2), s)
	if err != nil || len(lines) != 1 || lines[0].Amount != 36 || lines[0].Quantity != 18 {
		t.Errorf("%+v, %v", lines, err)
	}
	r := rand.New(rand.NewPCG(1, 0))
	any63 := func() int64 { return r.Int64() >> r.IntN(63) } // any magnitude
	for range 2000 {
		minutes, price := any63(), any63()
		want := new(big.Int).Mul(big.NewInt(minutes), big.NewInt(price))
		lines, err := pricing.Apply(pricing.PerMinute("EUR", price), pricing.Session{Usage: session.Usage{Minutes: minutes}})
		switch {
		case want.IsInt64() && (err != nil || lines[0].Amount != want.Int64()):
			t.Fatalf("%+v, %v, want %v", lines, err, want)
		case !want.IsInt64() && err == nil:
			t.Fatalf("%+v of %v", lines, want)
		}
	}
	encoded, err := json.Marshal(lines[0])
	if want := `{"description":"participant-minutes","quantity":18,"unit":"minute","unit_price":2,"amount":36,"currency":"EUR","amount_text":"EUR 0.36"}`; err != nil || string(encoded) != want {
		t.Errorf("%s, %v, want %s", encoded, err, want)
	}
}

func TestFormatUsesTheCurrencysDecimals(t *testing.T) {
	for want, amount := range map[string]struct {
		currency string
		minor    int64
	}{
		"EUR 0.36": {"EUR", 36}, "EUR 0.00": {"EUR", 0}, "EUR -0.05": {"EUR", -5}, "EUR 12345.67": {"EUR", 1234567}, "JPY 36": {"JPY", 36},
		"KWD 0.036": {"KWD", 36}, "KWD 1.000": {"KWD", 1000}, "IQD 0.036": {"IQD", 36}, "COP 0.36": {"COP", 36}, "CLF 0.0036": {"CLF", 36}, "": {"", 5},
		"USD -92233720368547758.08": {"USD", math.MinInt64},
	} {
		if got := pricing.Format(amount.currency, amount.minor); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	for currency, want := range map[string]int{"EUR": 2, "JPY": 0, "KWD": 3, "UYW": 4, "XCG": 2} {
		if n, err := pricing.Decimals(currency); err != nil || n != want {
			t.Errorf("%s: %d, %v, want %d", currency, n, err, want)
		}
	}
}

func TestSplitIsExactAndProportional(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	for range 2000 {
		amount, weights := int64(r.Uint64())>>r.IntN(63), make([]int64, 1+r.IntN(20))
		for i := range weights {
			weights[i] = r.Int64N(math.MaxInt64/20) >> r.IntN(63)
		}
		parts, sum, all := pricing.Split(amount, weights), new(big.Int), new(big.Int)
		for i, w := range weights {
			sum.Add(sum, big.NewInt(parts[i]))
			all.Add(all, big.NewInt(w))
		}
		if all.Sign() == 0 {
			if sum.Sign() != 0 {
				t.Fatalf("without weights: %v", parts)
			}
			continue
		}
		if sum.Cmp(big.NewInt(amount)) != 0 {
			t.Fatalf("%v add up to %v, want %d", parts, sum, amount)
		}
		for i, w := range weights { // |part * all - amount * w| < all: less than a unit from the exact share
			off := new(big.Int).Mul(big.NewInt(parts[i]), all)
			off.Sub(off, new(big.Int).Mul(big.NewInt(amount), big.NewInt(w)))
			if off.CmpAbs(all) >= 0 {
				t.Fatalf("part %d of %d with weights %v is %d", i, amount, weights, parts[i])
			}
		}
	}
	if parts := pricing.Split(100, []int64{1, 1, 1}); !slices.Equal(parts, []int64{34, 33, 33}) {
		t.Errorf("equal weights: %v", parts)
	}
}

func TestDifferenceAddsUpToTheNewLines(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	someLines := func() (lines []pricing.Line) {
		for range r.IntN(13) {
			lines = append(lines, line(string(rune('a'+r.IntN(3))), r.Int64N(19)-9, 1+r.Int64N(3)))
		}
		return lines
	}
	totals := func(lines []pricing.Line) map[pricing.Line][2]int64 {
		all := map[pricing.Line][2]int64{}
		for _, l := range lines {
			at := pricing.Line{Payer: l.Payer, UnitPrice: l.UnitPrice}
			n := [2]int64{all[at][0] + l.Quantity, all[at][1] + l.Amount}
			if all[at] = n; n == [2]int64{} {
				delete(all, at)
			}
		}
		return all
	}
	for range 2000 {
		before, due := someLines(), someLines()
		difference, err := pricing.Difference(before, due)
		if err != nil {
			t.Fatal(err)
		}
		got, want := totals(append(slices.Clone(before), difference...)), totals(due)
		if len(got) != len(want) {
			t.Fatalf("found %v, want %v", got, want)
		}
		for at, n := range want {
			if got[at] != n {
				t.Fatalf("%+v: found %v, want %v", at, got[at], n)
			}
		}
		if _, err := pricing.Apply(func(pricing.Session) ([]pricing.Line, error) { return difference, nil }, pricing.Session{}); err != nil {
			t.Fatal(err)
		}
	}
	one, err := pricing.Difference([]pricing.Line{line("a", 5, 2), line("b", 7, 2)}, []pricing.Line{line("a", 5, 2), line("b", 9, 2)})
	if err != nil || !slices.Equal(one, []pricing.Line{line("b", 2, 2)}) {
		t.Errorf("a change of one person: %+v, %v", one, err)
	}
}
