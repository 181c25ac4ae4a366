package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// The price of a minute begun in the room, and the wage of a minute begun at the
// microphone, in cents.
const perMinute, perMicrophoneMinute = 20, 15

// price returns what a user owes for the billed time: nothing if the user is a host, who
// published.
func price(b session.Billed) int64 {
	if b.Published > 0 {
		return 0
	}
	return session.Minutes(b.InRoom) * perMinute
}

// wage returns what a user has earned in the billed time.
func wage(b session.Billed) int64 { return session.Minutes(b.Published) * perMicrophoneMinute }

// Wallet is an HTTP API that moves money between the accounts of users and the house. It
// books an order once for each Idempotency-Key.
type Wallet struct {
	// API takes posts at charges, payouts and refunds below its URL.
	API activities.Endpoint
}

// load reads the settings. Without WALLET_URL, the wallet is a fake.
func (w *Wallet) load() error {
	w.API = activities.Endpoint{Name: "the wallet", URL: strings.TrimSuffix(os.Getenv("WALLET_URL"), "/"), Token: os.Getenv("WALLET_TOKEN")}
	u, err := url.Parse(w.API.URL)
	switch {
	case w.API.URL == "" && w.API.Token == "":
		w.API.URL, w.API.Client = "http://fake", &http.Client{Transport: &fakeWallet{}}
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("WALLET_URL: want a URL as in https://wallet.example.com/v1") // without the value, which may contain a password
	}
	return nil
}

// order is the body of a post to the wallet.
type order struct {
	Session session.Session `json:"session"`
	// User is the account. Cents is the amount to take from it in a charge, or to add to
	// it in a payout; negative if a late callback lowers a figure.
	User  string `json:"user"`
	Cents int64  `json:"cents"`
	// Charge is the key of the charge to refund.
	Charge uuid.UUID `json:"charge,omitzero"`
}

// Booking is the wallet's answer to an order.
type Booking struct {
	// ID is the wallet's ID of the booking.
	ID string `json:"id"`
	// Account is the changed account, and Cents the amount.
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

// String describes it in the Web UI.
func (b Booking) String() string {
	return fmt.Sprintf("%s: %s, %s", b.Account, pricing.Format("EUR", b.Cents), b.ID)
}

// Booked sums up the bookings of a step.
type Booked struct {
	// Key is the idempotency key of the step Charge.
	Key uuid.UUID `json:"key,omitzero"`
	// Users counts the accounts, and Cents is the sum.
	Users int   `json:"users"`
	Cents int64 `json:"cents"`
	// Debts counts the users without money.
	Debts int `json:"debts,omitempty"`
}

// String describes it in the Web UI.
func (b Booked) String() string {
	text := fmt.Sprintf("%s of %d users", pricing.Format("EUR", b.Cents), b.Users)
	if b.Debts > 0 {
		text += fmt.Sprintf(", %d without money", b.Debts)
	}
	return text
}

// Charge takes the price of the time in the room from each caller. In an adjustment, it
// takes the difference.
//
// An empty account (402) does not block the step. Only the caller can fill it, and hundreds
// of such runs a day would hide those that an operator can fix. The wallet keeps the debt.
// If no caller has money, the run ends as given_up, and no host is paid.
func (w *Wallet) Charge(ctx context.Context, task activities.Task, _ activities.Bill) (charged Booked, err error) {
	charged.Key = task.IdempotencyKey
	var empty error
	err = due(ctx, task, price, func(user string, cents int64) error {
		err := giveUpOn(http.StatusPaymentRequired, w.book(ctx, task, "charges", order{User: user, Cents: cents}, &charged))
		if activities.IsGivenUp(err) {
			charged.Debts++
			empty, err = err, nil
		}
		return err
	})
	if err == nil && charged.Users == 0 {
		err = empty
	}
	return charged, err
}

// PayOut pays each host for the time at the microphone. In an adjustment, it pays the
// difference.
//
// If a host has closed the account (410), the step is given up without asking an operator,
// and the callers are refunded.
func (w *Wallet) PayOut(ctx context.Context, task activities.Task, _ Booked) (paid Booked, err error) {
	err = due(ctx, task, wage, func(user string, cents int64) error {
		return giveUpOn(http.StatusGone, w.book(ctx, task, "payouts", order{User: user, Cents: cents}, &paid))
	})
	return paid, err
}

// Refund returns the charges to the callers. The wallet refuses it if a host was paid by a
// payout that failed only on the way back. A refused refund waits for an operator, whatever
// the status, because it is a user's money.
func (w *Wallet) Refund(ctx context.Context, task activities.Task, charged Booked) (refunded Booked, err error) {
	charge := activities.Task{IdempotencyKey: charged.Key}
	err = due(ctx, task, price, func(user string, _ int64) error {
		return w.book(ctx, task, "refunds", order{User: user, Charge: charge.KeyFor(user)}, &refunded)
	})
	return refunded, err
}

// due calls do for each user with an amount due. In an adjustment, that is the difference
// to the amount billed so far.
func due(ctx context.Context, task activities.Task, of func(session.Billed) int64, do func(user string, cents int64) error) error {
	people, err := activities.Participants(ctx, task)
	if err != nil {
		return err
	}
	for p, err := range people.All {
		if err != nil {
			return err
		}
		if cents := of(p.Billed()) - of(p.Before); cents != 0 {
			if err := do(p.User, cents); err != nil {
				return err
			}
		}
	}
	return nil
}

// book posts an order under a key of its user's own, and adds the booking to the sum.
func (w *Wallet) book(ctx context.Context, task activities.Task, what string, o order, all *Booked) error {
	var b Booking
	o.Session = task.Session
	if err := w.API.At(what).Post(ctx, task.KeyFor(o.User), o, &b); err != nil {
		return err
	}
	all.Users++
	all.Cents += b.Cents
	return nil
}

// giveUpOn gives up if the wallet refused with that status. Any other refusal waits for an
// operator.
func giveUpOn(status int, err error) error {
	if refusal := new(activities.Refusal); errors.As(err, &refusal) && refusal.Status == status {
		return activities.GiveUpf("%w", refusal)
	}
	return err
}
