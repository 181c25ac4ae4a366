package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// PriceError means that a session cannot be priced, and that a retry is useless.
type PriceError struct{ reason error }

// Error implements error.
func (e *PriceError) Error() string { return "price the session: " + e.reason.Error() }

// Unwrap returns the reason.
func (e *PriceError) Unwrap() error { return e.reason }

// priceOf returns the function that prices entries with this charge, or nil without a price.
func (l *Ledger) priceOf(c pricing.Charge) (pricing.Func, error) {
	switch {
	case c.Function && l.Price == nil:
		return nil, &PriceError{errors.New("the session was priced by a program's own function, and this program has none: run the program that has it")}
	case c.Function:
		return l.Price, nil
	case c.Currency != "":
		return pricing.PerMinute(c.Currency, c.PerMinute), nil
	}
	return nil, nil
}

// price returns the charge and the lines of a bill with these figures.
func (l *Ledger) price(b Bill, participants iter.Seq2[session.Participant, error]) (charge pricing.Charge, lines []pricing.Line, err error) {
	charge = b.Charge
	price, err := l.priceOf(charge)
	if err != nil || price == nil {
		return charge, nil, err
	}
	var unread error
	lines, err = pricing.Apply(price, pricing.Session{
		Session: b.Session,
		Usage:   b.Usage,
		Participants: func(yield func(session.Participant) bool) {
			for p, err := range participants {
				if err != nil {
					unread = err
					return
				}
				p.Before = session.Billed{} // an adjustment prices the session as the bill did
				if p.Excluded == "" && !yield(p) {
					return
				}
			}
		},
	})
	if unread != nil {
		return charge, nil, unread
	}
	if err == nil && len(lines) > 0 {
		if charge.Currency != "" && charge.Currency != lines[0].Currency {
			err = fmt.Errorf("found Currency %s, want %s, in which the session is billed", lines[0].Currency, charge.Currency)
		}
		charge.Currency = lines[0].Currency
	}
	if err == nil {
		charge.Amount, err = pricing.Sum(lines)
	}
	if err != nil {
		return charge, nil, &PriceError{err}
	}
	charge.Lines = int64(len(lines))
	return charge, lines, nil
}

const lineColumns = "payer, payee, description, quantity, unit, unit_price, amount, currency"

var lineTypes = columns("line, " + lineColumns)

// insertLines stores the lines of an entry and checks that they add up to its amount.
func (l *Ledger) insertLines(ctx context.Context, tx transaction, k key, entry int, lines []pricing.Line, amount int64) error {
	number := int64(0)
	for chunk := range slices.Chunk(lines, 1000) {
		from, args := l.table(lineTypes, len(chunk), func(i int) []any {
			number++
			c := chunk[i]
			return []any{number, c.Payer, c.Payee, c.Description, c.Quantity, c.Unit, c.UnitPrice, c.Amount, c.Currency}
		})
		n := len(args)
		if _, err := tx.exec(ctx, fmt.Sprintf("INSERT INTO lines (appid, room_session_id, entry, line, %s) SELECT CAST($%d AS BIGINT), CAST($%d AS TEXT), CAST($%d AS BIGINT), line, %[1]s FROM %[5]s",
			lineColumns, n+1, n+2, n+3, from), append(args, k.app, k.session, entry)...); err != nil {
			return fmt.Errorf("insert lines: %w", err)
		}
	}
	var sum, count int64
	if _, err := one(ctx, tx, func(r row) (struct{}, error) { return struct{}{}, r.Scan(&sum, &count) },
		"SELECT CAST(coalesce(sum(amount), 0) AS BIGINT), count(*) FROM lines WHERE appid = $1 AND room_session_id = $2 AND entry = $3", k.app, k.session, entry); err != nil {
		return fmt.Errorf("add up the lines: %w", err)
	}
	if sum != amount || count != int64(len(lines)) {
		return &PriceError{fmt.Errorf("found %d stored lines that add up to %d, want %d lines and %d", count, sum, len(lines), amount)}
	}
	return nil
}

// soFar returns the sums of the lines of the session's entries, by position.
func soFar(ctx context.Context, tx transaction, k key) ([]pricing.Line, error) {
	lines, err := list(ctx, tx, scanLine, `
		SELECT payer, payee, description, CAST(sum(quantity) AS BIGINT), unit, unit_price, CAST(sum(amount) AS BIGINT), currency
		FROM lines WHERE appid = $1 AND room_session_id = $2
		GROUP BY payer, payee, description, unit, unit_price, currency ORDER BY min(entry), min(line)`, k.app, k.session)
	return lines, wrap(err, "read the lines")
}

func scanLine(r row) (l pricing.Line, err error) {
	err = r.Scan(&l.Payer, &l.Payee, &l.Description, &l.Quantity, &l.Unit, &l.UnitPrice, &l.Amount, &l.Currency)
	return l, err
}

// Lines lists the lines of an entry: 0 for the session's bill, or the number of an adjustment.
func (l *Ledger) Lines(ctx context.Context, id session.ID, entry int) iter.Seq2[pricing.Line, error] {
	type numbered struct {
		number int64
		pricing.Line
	}
	k := keyOf(id)
	all := pages("read lines", numbered{}, func(last numbered) ([]numbered, error) {
		return list(ctx, l, func(r row) (n numbered, err error) {
			err = r.Scan(&n.number, &n.Payer, &n.Payee, &n.Description, &n.Quantity, &n.Unit, &n.UnitPrice, &n.Amount, &n.Currency)
			return n, err
		}, "SELECT line, "+lineColumns+` FROM lines WHERE appid = $1 AND room_session_id = $2 AND entry = $3 AND line > $4
			ORDER BY line LIMIT $5`, k.app, k.session, entry, last.number, pageSize)
	})
	return func(yield func(pricing.Line, error) bool) {
		for n, err := range all {
			if !yield(n.Line, err) {
				return
			}
		}
	}
}

// Reprice returns the bill and the lines of a session at today's prices: those of the ledger's
// function, or else price. It stores nothing.
func (l *Ledger) Reprice(ctx context.Context, b Bill, price pricing.Price) (due Bill, lines []pricing.Line, err error) {
	k := keyOf(b.Session.ID)
	var result computed
	known, err := one(ctx, l, scanLocked, "SELECT "+lockedColumns+" FROM sessions WHERE appid = $1 AND room_session_id = $2", k.app, k.session)
	if err == nil {
		b.Charge = pricing.Charge{Price: price}
		if l.Price != nil {
			b.Charge = pricing.Charge{Function: true}
		}
		result, err = l.compute(ctx, l, basis{b, known.room, b.Usage.Estimated & lasting, 0})
	}
	return result.bill, result.lines, wrap(err, "price session %s", k)
}
