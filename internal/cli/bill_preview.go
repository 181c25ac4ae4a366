package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
)

// previewed is what a session was billed, and what it would be.
type previewed struct {
	AppID         uint32    `json:"appid"`
	RoomID        string    `json:"room_id"`
	RoomSessionID uint64    `json:"room_session_id,string"`
	RoomCloseTime time.Time `json:"room_close_time"`
	Billed        amount    `json:"billed"`
	Due           amount    `json:"due"`
	Lines         int64     `json:"lines"`
	// Failure is why the session can't be priced.
	Failure string `json:"failure,omitempty"`
}

// amount is a sum of money.
type amount struct {
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
	Text     string `json:"amount_text"`
}

func amountOf(currency string, minor int64) amount {
	return amount{currency, minor, pricing.Format(currency, minor)}
}

// preview are the sessions, and the sums by currency.
type preview struct {
	Sessions []previewed `json:"sessions"`
	Billed   []string    `json:"billed"`
	Due      []string    `json:"due"`
	// Difference is what is due beyond what was billed.
	Difference []string `json:"difference"`
	Failures   int      `json:"failures"`
}

func checkPrices(extension service.Extension) func(context.Context, *operation) error {
	return func(_ context.Context, op *operation) error { return extension.CheckPrices(op.config) }
}

func previewBills(ctx context.Context, op *operation) error {
	all, billed, due, difference := preview{Sessions: []previewed{}}, amounts{}, amounts{}, amounts{}
	for e, err := range op.ledger.Entries(ctx, op.bills) {
		if err != nil {
			return err
		}
		p := previewed{AppID: e.AppID, RoomID: e.RoomID, RoomSessionID: e.RoomSessionID, RoomCloseTime: e.RoomCloseTime}
		last := e.Bill
		for _, a := range e.Adjustments {
			last = a.Bill
		}
		p.Billed = amountOf(last.Charge.Currency, last.Charge.Amount)
		now, _, err := op.ledger.Reprice(ctx, e.Bill, op.config.Prices.Of(e.AppID))
		unpriced := new(ledger.PriceError)
		switch {
		case errors.As(err, &unpriced):
			p.Failure, all.Failures = unpriced.Error(), all.Failures+1
		case err != nil:
			return err
		default:
			p.Due, p.Lines = amountOf(now.Charge.Currency, now.Charge.Amount), now.Charge.Lines
			if c := p.Billed.Currency; c != "" {
				billed.add(c, p.Billed.Amount)
				difference.subtract(c, p.Billed.Amount)
			}
			if c := p.Due.Currency; c != "" {
				due.add(c, p.Due.Amount)
				difference.add(c, p.Due.Amount)
			}
		}
		all.Sessions = append(all.Sessions, p)
	}
	all.Billed, all.Due, all.Difference = billed.texts(), due.texts(), difference.texts()
	err := op.print(all, all.print)
	if all.Failures > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d sessions could not be priced", all.Failures, len(all.Sessions)))
	}
	return err
}

func (p preview) print(out io.Writer) error {
	t := newTable(out, "CLOSED", "SESSION", "BILLED", "DUE", "LINES", "ROOM", "APP", "REMARKS")
	for _, s := range p.Sessions {
		t.row(moment(s.RoomCloseTime), s.RoomSessionID, dash(s.Billed.Text), dash(s.Due.Text), s.Lines, s.RoomID, s.AppID, s.Failure)
	}
	if err := t.print(); err != nil {
		return err
	}
	sum := func(texts []string) string { return dash(strings.Join(texts, ", ")) }
	fmt.Fprintf(out, "billed %s, due %s, difference %s; nothing was written\n", sum(p.Billed), sum(p.Due), sum(p.Difference))
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
