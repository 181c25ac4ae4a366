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

// What callers pay for each minute begun in the room, and hosts get for each minute begun
// at the microphone, in cents.
const perMinute, perMicrophoneMinute = 20, 15

// price returns what a user owes for the time billed: nothing if the user is a host, who
// published.
func price(b session.Billed) int64 {
	if b.Published > 0 {
		return 0
	}
	return session.Minutes(b.InRoom) * perMinute
}

// wage returns what a user has earned in the time billed.
func wage(b session.Billed) int64 { return session.Minutes(b.Published) * perMicrophoneMinute }

// Wallet is an HTTP API that moves money between the accounts of users and the house. It
// books what is posted under an Idempotency-Key once.
type Wallet struct {
	// API is its address: charges, payouts and refunds are posted below the URL.
	API activities.Endpoint
}

// load reads the settings. Without any, the wallet is a fake one.
func (w *Wallet) load() error {
	w.API = activities.Endpoint{Name: "the wallet", URL: strings.TrimSuffix(os.Getenv("WALLET_URL"), "/"), Token: os.Getenv("WALLET_TOKEN")}
	u, err := url.Parse(w.API.URL)
	switch {
	case w.API.URL == "" && w.API.Token == "":
		w.API.URL, w.API.Client = "http://fake", &http.Client{Transport: &fakeWallet{}}
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("WALLET_URL: want a URL as in https://wallet.example.com/v1") // what was found may hold a password
	}
	return nil
}

// order is what the wallet is asked to book.
type order struct {
	Session session.Session `json:"session"`
	// User is the account, and Cents what to take from it in a charge, or to add in a
	// payout. Both are negative if a late callback shows that it was too much.
	User  string `json:"user"`
	Cents int64  `json:"cents"`
	// Charge is the key of the charge to refund.
	Charge uuid.UUID `json:"charge,omitzero"`
}

// Booking is what the wallet has booked.
type Booking struct {
	// ID is the wallet's name for it.
	ID string `json:"id"`
	// Account is the account that it changed, and Cents by how much.
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

// String returns a few words for people.
func (b Booking) String() string {
	return fmt.Sprintf("%s: %s, %s", b.Account, pricing.Format("EUR", b.Cents), b.ID)
}

// Booked sums up what a step had booked.
type Booked struct {
	// Key is the idempotency key of the step Charge.
	Key uuid.UUID `json:"key,omitzero"`
	// Users counts the accounts, and Cents is the sum.
	Users int   `json:"users"`
	Cents int64 `json:"cents"`
	// Debts counts the users without money.
	Debts int `json:"debts,omitempty"`
}

// String returns a few words for people.
func (b Booked) String() string {
	text := fmt.Sprintf("%s of %d users", pricing.Format("EUR", b.Cents), b.Users)
	if b.Debts > 0 {
		text += fmt.Sprintf(", %d without money", b.Debts)
	}
	return text
}

// Charge takes from each caller the price of the time in the room. In an adjustment, it
// takes the difference.
//
// An empty account, 402, doesn't block the step. Only the caller can fill it, and hundreds
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
// If a host has closed the account, 410, nobody is asked: the callers get their money back.
func (w *Wallet) PayOut(ctx context.Context, task activities.Task, _ Booked) (paid Booked, err error) {
	err = due(ctx, task, wage, func(user string, cents int64) error {
		return giveUpOn(http.StatusGone, w.book(ctx, task, "payouts", order{User: user, Cents: cents}, &paid))
	})
	return paid, err
}

// Refund returns to the callers what was charged. The wallet refuses it if a host was paid
// after all, by a payout that failed on the way back. A refund that is refused waits for an
// operator, whatever the status: it is somebody's money.
func (w *Wallet) Refund(ctx context.Context, task activities.Task, charged Booked) (refunded Booked, err error) {
	charge := activities.Task{IdempotencyKey: charged.Key}
	err = due(ctx, task, price, func(user string, _ int64) error {
		return w.book(ctx, task, "refunds", order{User: user, Charge: charge.KeyFor(user)}, &refunded)
	})
	return refunded, err
}

// due calls do for each user of whom something is due, with how much that is: since the
// bill, if the run is an adjustment's.
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

// book has the wallet book an order under a key of its user's own, and adds it up.
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

// giveUpOn gives up what the wallet has refused with that status. Any other refusal waits
// for an operator.
func giveUpOn(status int, err error) error {
	if refusal := new(activities.Refusal); errors.As(err, &refusal) && refusal.Status == status {
		return activities.GiveUpf("%w", refusal)
	}
	return err
}
