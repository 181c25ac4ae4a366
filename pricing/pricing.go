// Package pricing computes the price of a session. A price function of your program
// reads the settled session and returns charge lines:
//
//	func Price(s pricing.Session) ([]pricing.Line, error) {
//		var lines []pricing.Line
//		for p := range s.Participants {
//			minutes := p.InRoom.Minutes()
//			lines = append(lines, pricing.Line{Payer: p.User, Description: "time in the room",
//				Quantity: minutes, Unit: "minute", UnitPrice: 10, Amount: minutes * 10, Currency: "EUR"})
//		}
//		return lines, nil
//	}
//
// Set closeout.Service.Price to your function, and test it with closeouttest.Price.
package pricing

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/closeouthq/closeout/session"
)

// Func returns the charge lines of a session. Their sum is the amount of the bill.
//
// A Func must be pure: it must return the same lines in the same order for the same
// session. Closeout calls it again when callbacks arrive after the bill, and bills the
// difference line by line. If it returns an error, panics, or returns lines that break a
// rule of [Line], the step blocks.
type Func func(Session) ([]Line, error)

// Session is a settled session.
type Session struct {
	session.Session
	// Usage has the participants' totals.
	Usage session.Usage
	// Participants iterates over the participants, sorted by name, without excluded users.
	// It reads page by page, and can be used any number of times.
	Participants iter.Seq[session.Participant]
}

// Line is one line of a bill or an adjustment. Lines with the same Payer, Payee,
// Description, Unit, UnitPrice and Currency form one position. An adjustment has the
// difference of each position's quantity and amount, so the Description must not vary with
// the time in the room.
type Line struct {
	// Payer or Payee is the party, such as a user_account. At most one of them is set. If
	// both are empty, the line concerns the session as a whole.
	Payer string `json:"payer,omitempty"`
	Payee string `json:"payee,omitempty"`
	// Description describes the line in at most 200 bytes.
	Description string `json:"description"`
	// Quantity counts Units, such as "minute".
	Quantity int64  `json:"quantity"`
	Unit     string `json:"unit"`
	// UnitPrice is in the currency's minor units. If it isn't 0, Amount is Quantity
	// times UnitPrice.
	UnitPrice int64 `json:"unit_price"`
	// Amount is in the currency's minor units. It is positive for a payment, and negative
	// for a payout or a discount.
	Amount int64 `json:"amount"`
	// Currency is an ISO 4217 code, the same in all lines of a session.
	Currency string `json:"currency"`
}

// MarshalJSON implements [json.Marshaler]. It adds the formatted amount as amount_text.
func (l Line) MarshalJSON() ([]byte, error) {
	type fields Line
	return json.Marshal(struct {
		fields
		Text string `json:"amount_text"`
	}{fields(l), Format(l.Currency, l.Amount)})
}

// MaxLines is the maximum number of lines that a price function may return.
const MaxLines = 100_000

var errTooLarge = errors.New("more than 63 bits can hold")

// Sum returns the sum of the amounts.
func Sum(lines []Line) (amount int64, err error) {
	for _, l := range lines {
		if amount, err = plus(amount, l.Amount); err != nil {
			return 0, fmt.Errorf("the sum of the lines: %w", err)
		}
	}
	return amount, nil
}

func plus(a, b int64) (int64, error) {
	sum := a + b
	if (a^sum)&(b^sum) < 0 {
		return 0, errTooLarge
	}
	return sum, nil
}

// check returns an error if the lines can't make a bill.
func check(lines []Line) error {
	if len(lines) > MaxLines {
		return fmt.Errorf("found %d lines, want at most %d", len(lines), MaxLines)
	}
	for i, l := range lines {
		err := l.check()
		if err == nil && l.Currency != lines[0].Currency {
			err = fmt.Errorf("found Currency %s after %s, want one currency for all lines of a session", l.Currency, lines[0].Currency)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	_, err := Sum(lines)
	return err
}

func (l Line) check() error {
	for _, text := range []struct {
		name, value string
		max         int
		optional    bool
	}{{"Payer", l.Payer, 1024, true}, {"Payee", l.Payee, 1024, true}, {"Description", l.Description, 200, false}, {"Unit", l.Unit, 32, false}} {
		switch {
		case text.value == "" && !text.optional:
			return fmt.Errorf("%s is empty", text.name)
		case len(text.value) > text.max:
			return fmt.Errorf("%s has %d bytes, want at most %d", text.name, len(text.value), text.max)
		case !utf8.ValidString(text.value), strings.ContainsRune(text.value, 0), !text.optional && strings.ContainsFunc(text.value, unicode.IsControl):
			return fmt.Errorf("%s is %q, want text without control characters", text.name, text.value)
		}
	}
	if l.Payer != "" && l.Payee != "" {
		return fmt.Errorf("found Payer %q and Payee %q, want at most one of them: make a line for each", l.Payer, l.Payee)
	}
	if _, err := Decimals(l.Currency); err != nil {
		return fmt.Errorf("check Currency: %w", err)
	}
	if l.UnitPrice == 0 {
		return nil
	}
	want, err := times(l.Quantity, l.UnitPrice)
	if err == nil && want != l.Amount {
		err = fmt.Errorf("found Amount %d, want Quantity %d times UnitPrice %d, which is %d; leave UnitPrice 0 if the amount is computed otherwise",
			l.Amount, l.Quantity, l.UnitPrice, want)
	}
	return err
}

// Apply calls a price function and checks its lines. It returns a panic of the function as
// an error.
func Apply(price Func, s Session) (lines []Line, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("the price function panicked: %v", fault)
		}
	}()
	if lines, err = price(s); err != nil {
		return nil, fmt.Errorf("the price function failed: %w", err)
	}
	if err = check(lines); err != nil {
		return nil, fmt.Errorf("the price function returned %w", err)
	}
	return lines, nil
}

// position identifies the position of a line.
type position struct {
	payer, payee, description, unit, currency string
	unitPrice                                 int64
}

func (l Line) position() position {
	return position{l.Payer, l.Payee, l.Description, l.Unit, l.Currency, l.UnitPrice}
}

// Difference returns the lines to add to before so that the sum is due: a line for each
// position with a difference in quantity or amount.
func Difference(before, due []Line) (lines []Line, err error) {
	at := map[position]int{}
	add := func(l Line) {
		i, ok := at[l.position()]
		if !ok {
			i, at[l.position()] = len(lines), len(lines)
			none := l
			none.Quantity, none.Amount = 0, 0
			lines = append(lines, none)
		}
		quantity, quantityErr := plus(lines[i].Quantity, l.Quantity)
		amount, amountErr := plus(lines[i].Amount, l.Amount)
		if lines[i].Quantity, lines[i].Amount = quantity, amount; quantityErr != nil || amountErr != nil {
			err = fmt.Errorf("the difference of %q: %w", l.Description, errTooLarge)
		}
	}
	for _, l := range due {
		add(l)
	}
	for _, l := range before {
		l.Quantity, l.Amount = -l.Quantity, -l.Amount
		add(l)
	}
	return slices.DeleteFunc(lines, func(l Line) bool { return l.Quantity == 0 && l.Amount == 0 }), err
}

// ParticipantMinutes describes the only line of [PerMinute].
const ParticipantMinutes = "participant-minutes"

// PerMinute returns the price function of CLOSEOUT_PRICES: the session's
// participant-minutes at one price in the currency's minor units.
func PerMinute(currency string, price int64) Func {
	return func(s Session) ([]Line, error) {
		amount, err := times(s.Usage.Minutes, price)
		return []Line{{Description: ParticipantMinutes, Quantity: s.Usage.Minutes, Unit: "minute",
			UnitPrice: price, Amount: amount, Currency: currency}}, err
	}
}

func times(a, b int64) (int64, error) {
	high, low := bits.Mul64(magnitude(a), magnitude(b))
	if product := a * b; high == 0 && low <= 1<<63-1 {
		return product, nil
	}
	return 0, fmt.Errorf("%d times %d: %w", a, b, errTooLarge)
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// Split divides an amount in proportion to weights. The parts add up to the amount exactly.
// Parts are rounded down, and the rest goes to the largest remainders, the first of equal
// ones. Weights must not be negative. If all are 0, all parts are 0.
func Split(amount int64, weights []int64) []int64 {
	var high, sum uint64
	for _, w := range weights {
		var carry uint64
		sum, carry = bits.Add64(sum, uint64(max(w, 0)), 0)
		high += carry
	}
	parts := make([]int64, len(weights))
	if sum == 0 || high != 0 {
		return parts
	}
	left, remainders, order := magnitude(amount), make([]uint64, len(weights)), make([]int, len(weights))
	for i, w := range weights {
		hi, lo := bits.Mul64(magnitude(amount), uint64(max(w, 0)))
		part, rest := bits.Div64(hi, lo, sum)
		parts[i], remainders[i], order[i] = int64(part), rest, i
		left -= part
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, i := range order[:left] {
		parts[i]++
	}
	if amount < 0 {
		for i := range parts {
			parts[i] = -parts[i]
		}
	}
	return parts
}
