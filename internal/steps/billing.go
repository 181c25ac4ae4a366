package steps

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// Billing has the Activities that bill sessions.
type Billing struct {
	// Ledger stores the bills.
	Ledger *ledger.Ledger
	// API, if its URL is not empty, receives each bill as a CloudEvents 1.0 event.
	API activities.Endpoint
	// NotCollected reports that participant callbacks are switched off, so that bills have
	// no usage.
	NotCollected bool
	// MaxMinutes is the largest bill that needs no approval, in participant minutes; 0 means
	// no limit.
	MaxMinutes int64
	// MaxRoomLife is the maximum life of a room. A room_close that was sent longer than this
	// after the room closed needs approval; 0 means no limit.
	MaxRoomLife time.Duration
	// MissingWait is how long a bill waits for missing callbacks; 0 means not at all.
	MissingWait time.Duration
	// Prices are the prices of new bills, unless the ledger has a price function. Without a
	// price, a bill has no amount.
	Prices metering.Prices
	// Confirm, if set, is called before a bill. It records what a ledger restored from a
	// backup has lost.
	Confirm func(context.Context) error
	// Earlier, if set, returns a bill that an earlier run of the session made and that the
	// ledger lacks, or nil.
	Earlier func(ctx context.Context, s session.Session, runID string) (*ledger.MadeBill, error)
	// Observe, if set, is called for each bill that was "made", "restored", "found" by a
	// retry, or "posted", and for each adjustment that was "adjusted" or "posted".
	Observe func(outcome string)
}

// FinalizeBill makes the session's bill in the ledger and posts it to the billing API, if
// there is one. A retry finds the bill and posts it with the same Idempotency-Key.
func (b *Billing) FinalizeBill(ctx context.Context, task activities.Task) (activities.Bill, error) {
	s := task.Session
	due := pricing.Bill{ID: task.IdempotencyKey, Session: s, Charge: pricing.Charge{Price: b.Prices.Of(s.AppID)}}
	if b.NotCollected {
		due.Usage.Estimated = session.NotCollected
	}
	if !s.ReportedCloseTime.IsZero() {
		due.Usage.Estimated |= session.ImplausibleTime
	}
	if waiting, err := b.missing(ctx, task); waiting != nil || err != nil {
		return activities.Bill{Waiting: waiting}, err
	}
	loss, err := b.past(ctx, task)
	if err != nil {
		return activities.Bill{}, err
	}
	lost := ""
	if loss != nil {
		due.Usage.Estimated |= session.EventsLost
		lost = fmt.Sprintf("the ledger was restored from a copy and has lost the callbacks that it received %v, while the room was there", loss)
	}
	bill, made, err := b.Ledger.Finalize(ctx, due, b.approve(task, lost))
	if err != nil {
		return activities.Bill{}, failed("bill", err)
	}
	if made {
		b.observe("made")
	} else {
		b.observe("found")
	}
	posted, err := b.post(ctx, cloudEvent{ID: bill.ID, Type: "io.closeout.bill.finalized.v1", Time: bill.RoomCloseTime}, bill, 0, bill.Charge.Lines,
		func(lines []pricing.Line) any {
			return struct {
				ledger.Bill
				Lines []pricing.Line `json:"lines"`
			}{bill, lines}
		})
	return activities.Bill{Bill: bill, Posted: posted}, err
}

// failed returns a step's error for an entry that wasn't made.
func failed(entry string, err error) error {
	asked := new(temporal.ApplicationError)
	switch {
	case errors.As(err, &asked):
		return asked
	case errors.Is(err, metering.ErrTooLarge), errors.As(err, new(*ledger.PriceError)):
		return activities.Blockedf("make the %s: %w", entry, err)
	}
	return fmt.Errorf("write the %s to the ledger: %w", entry, err)
}

// missingPause is the pause before the next check for missing callbacks.
const missingPause = time.Minute

// missing returns what to wait for if numbers prove that callbacks are missing.
func (b *Billing) missing(ctx context.Context, task activities.Task) (*activities.Waiting, error) {
	left := b.MissingWait
	if task.Waited != nil {
		left -= task.Waited.Now.Sub(task.Waited.Since)
	}
	if left <= 0 || b.NotCollected || task.Retried != nil {
		return nil, nil
	}
	users, streams, err := b.Ledger.Completeness(ctx, task.Session.ID)
	n := users.Missing + streams.Missing
	if err != nil || n == 0 {
		return nil, err
	}
	switch _, err := b.Ledger.Bill(ctx, task.Session.ID); {
	case err == nil:
		return nil, nil // a retry
	case !errors.Is(err, sql.ErrNoRows):
		return nil, err
	}
	return &activities.Waiting{For: fmt.Sprintf("missing callbacks: %d", n), Pause: min(left, missingPause)}, nil
}

// approve blocks a bill that needs approval. An operator who retries the step approves the
// reason it was blocked for. lost describes what the ledger has lost.
func (b *Billing) approve(task activities.Task, lost string) ledger.Approver {
	return func(due ledger.Bill, doubt string) error {
		s := task.Session
		if doubt == "" && b.MaxRoomLife > 0 && !s.SentAt.IsZero() && s.RoomCloseTime.Before(s.SentAt.Add(-b.MaxRoomLife)) {
			doubt = fmt.Sprintf("the room closed at %s, more than CLOSEOUT_MAX_ROOM_LIFE=%v before the callback was sent at %s",
				s.RoomCloseTime.Format(time.RFC3339Nano), b.MaxRoomLife, s.SentAt.Format(time.RFC3339))
		}
		if doubt == "" && b.MaxMinutes > 0 && due.Usage.Minutes > b.MaxMinutes {
			doubt = fmt.Sprintf("more than CLOSEOUT_MAX_BILL=%d minutes", b.MaxMinutes)
		}
		if lost != "" && doubt != "" {
			doubt = "; " + doubt
		}
		if doubt = lost + doubt; doubt == "" {
			return nil
		}
		question := fmt.Sprintf("a person has to approve the bill: %s: %s", doubt, due.Figures())
		if task.Retried != nil && strings.HasPrefix(task.Retried.Failure, question) {
			return nil
		}
		return activities.Blockedf("%s; retry the step to approve exactly this, or skip it", question)
	}
}

// past protects a session from a restored ledger. If an earlier run made a bill, past puts
// it back. If callbacks may be lost, it returns the loss, which needs approval, or nil.
func (b *Billing) past(ctx context.Context, task activities.Task) (*ledger.Loss, error) {
	if b.Confirm != nil {
		if err := b.Confirm(ctx); err != nil {
			return nil, fmt.Errorf("find out whether the ledger was restored from a copy: %w", err)
		}
	}
	s := task.Session
	past, err := b.Ledger.Past(ctx, s.ID, s.RoomCloseTime)
	if err != nil || past.Billed {
		return nil, err
	}
	if b.Earlier != nil && task.Reset != "" {
		earlier, err := b.Earlier(ctx, s, task.Reset)
		if err != nil {
			return nil, fmt.Errorf("look for a bill that was made before: %w", err)
		}
		if earlier != nil {
			_, err := b.Ledger.RestoreBill(ctx, *earlier)
			if errors.As(err, new(*ledger.PriceError)) {
				return nil, activities.Blockedf("%w", err)
			}
			if err != nil {
				return nil, err
			}
			b.observe("restored")
			return nil, nil
		}
	}
	if past.Loss == nil || b.NotCollected {
		return nil, nil
	}
	return past.Loss, nil
}

// restoredQuestion is the beginning of the reason that blocks a restored bill.
const restoredQuestion = "a person has to decide about a restored bill: "

// AdjustBill makes an adjustment of the session's bill from later callbacks and posts it to
// the billing API, if there is one. A retry finds the adjustment of the number and posts it
// with the same Idempotency-Key.
func (b *Billing) AdjustBill(ctx context.Context, task activities.Task, number int) (activities.Adjusted, error) {
	s := task.Session
	if task.Retried != nil && strings.HasPrefix(task.Retried.Failure, restoredQuestion) {
		if err := b.Ledger.AdjustRestored(ctx, s.ID); err != nil {
			return activities.Adjusted{}, err
		}
	}
	made, err := b.Ledger.Adjust(ctx, task.IdempotencyKey, s.ID, number, b.approve(task, ""))
	restored := new(ledger.RestoredError)
	if errors.As(err, &restored) {
		return activities.Adjusted{}, activities.Blockedf("%s%v; have the lost callbacks sent again and retry the step, or skip it", restoredQuestion, restored)
	}
	if errors.Is(err, ledger.ErrNothingToAdjust) {
		return activities.Adjusted{Nothing: true}, nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return activities.Adjusted{}, activities.Blockedf("make the adjustment: %w", err)
	}
	if err != nil {
		return activities.Adjusted{}, failed("adjustment", err)
	}
	b.observe("adjusted")
	posted, err := b.post(ctx, cloudEvent{ID: made.ID, Type: "io.closeout.bill.adjusted.v1", Time: made.MadeAt}, made.Bill, number, made.Difference.Lines,
		func(lines []pricing.Line) any {
			return struct {
				ledger.Adjustment
				Lines []pricing.Line `json:"lines"`
			}{made, lines}
		})
	return activities.Adjusted{Adjustment: made, Posted: posted}, err
}

// maxPostedLines bounds an event to some 300 kB. With more lines the event has null instead,
// because a part would look like all of them.
const maxPostedLines = 1000

// post posts an entry with its lines to the billing API, if there is one.
func (b *Billing) post(ctx context.Context, e cloudEvent, bill ledger.Bill, entry int, lines int64, data func([]pricing.Line) any) (bool, error) {
	if b.API.URL == "" {
		return false, nil
	}
	var posted []pricing.Line
	if lines <= maxPostedLines {
		posted = []pricing.Line{}
		for line, err := range b.Ledger.Lines(ctx, bill.Session.ID, entry) {
			if err != nil {
				return false, err
			}
			posted = append(posted, line)
		}
	}
	e.Data = data(posted)
	e.SpecVersion, e.DataContentType = "1.0", "application/json"
	e.Source = "/closeout/apps/" + strconv.FormatUint(uint64(bill.AppID), 10)
	e.Subject = strconv.FormatUint(bill.RoomSessionID, 10)
	api := b.API
	api.ContentType = "application/cloudevents+json; charset=utf-8"
	if err := api.Post(ctx, e.ID, e, nil); err != nil {
		return false, err
	}
	b.observe("posted")
	activity.GetLogger(ctx).Info("bill posted", "type", e.Type, "id", e.ID)
	return true, nil
}

func (b *Billing) observe(outcome string) {
	if b.Observe != nil {
		b.Observe(outcome)
	}
}

// cloudEvent is a CloudEvents 1.0 event in its JSON format.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              uuid.UUID `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}
