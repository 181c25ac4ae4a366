package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// basis is the input of an entry besides the session's stays and streams.
type basis struct {
	bill  Bill
	room  metering.Room
	known session.Reasons
	// number is the entry's number; 0 for the bill.
	number int
}

// computed is an entry with its lines and the participants that it changes. doubt says why its
// figures must be wrong; it is empty if they are plausible.
type computed struct {
	bill   Bill
	people people
	lines  []pricing.Line
	doubt  string
}

// A computation computes an entry with the program's own Price and Exclude functions, outside
// of transactions, because they may be slow.
type computation struct {
	basis
	state  [sha256.Size]byte
	done   bool
	result computed
	err    error
}

// errCompute means that the entry has to be computed before the transaction can go on.
var errCompute = errors.New("compute the entry")

// maxComputations bounds how often an entry is computed again because callbacks arrived.
const maxComputations = 5

// inComputed is like [Ledger.in] for a do that calls computed. It runs do again after each
// computation.
func (l *Ledger) inComputed(ctx context.Context, do func(transaction, *computation) error) error {
	c := &computation{}
	for range maxComputations {
		if err := l.in(ctx, func(tx transaction) error { return do(tx, c) }); !errors.Is(err, errCompute) {
			return err
		}
		if c.state, c.err = l.stateOf(ctx, l, keyOf(c.bill.Session.ID)); c.err == nil {
			c.result, c.err = l.compute(ctx, l, c.basis)
		}
		c.done = true
	}
	return fmt.Errorf("callbacks of the session arrived during each of %d computations: try again when fewer arrive", maxComputations)
}

// computed returns the entry as of the transaction, or errCompute. Without c, it computes
// the entry at once.
func (l *Ledger) computed(ctx context.Context, tx transaction, c *computation, b basis) (computed, error) {
	if c == nil || !b.bill.Charge.Function && l.Rules.Func == nil {
		return l.compute(ctx, tx, b)
	}
	if c.done && c.basis == b {
		if c.err != nil {
			return c.result, c.err
		}
		// Rows are only ever added to, so an equal digest means that nothing arrived.
		switch state, err := l.stateOf(ctx, tx, keyOf(b.bill.Session.ID)); {
		case err != nil:
			return computed{}, err
		case state == c.state:
			return c.result, nil
		}
	}
	c.basis, c.done = b, false
	return computed{}, errCompute
}

// stateOf returns a digest of a session's stays and streams.
func (l *Ledger) stateOf(ctx context.Context, from source, k key) (state [sha256.Size]byte, err error) {
	digest := sha256.New()
	for _, table := range []string{"stays", "streams"} {
		statement := selectStays
		if table == "streams" {
			statement = streamsOf.Replace(statement)
		}
		for s, err := range l.rowsOfUsers(ctx, from, k, statement) {
			if err != nil {
				return state, err
			}
			fmt.Fprintf(digest, "%q %q %q %q %d %d %t %t\n", s.User, s.ID, s.Name, s.Role, s.Login, s.Logout, s.Contradicted, s.Implausible)
		}
		numbers, _, _, err := numbersOf(ctx, from, k, table)
		if err != nil {
			return state, fmt.Errorf("read the numbers of %s: %w", table, err)
		}
		fmt.Fprintf(digest, "%+v\n", numbers)
	}
	digest.Sum(state[:0])
	return state, nil
}
