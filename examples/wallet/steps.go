package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// Wallet is an HTTP API that moves money between the accounts of callers, hosts
// and the house. It knows who called whom in a session, for how long and at what
// price, which ZEGO does not know. Whatever is posted to it under one
// Idempotency-Key it books once.
type Wallet struct {
	// API is where it is: charges, payouts and refunds are posted below its URL.
	API activities.Endpoint
}

// load reads the settings. Where there are none, the wallet is a fake one.
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

// Booking is what the wallet has booked.
type Booking struct {
	// ID is the wallet's name for it.
	ID string `json:"id"`
	// Account is whose balance it changed.
	Account string `json:"account"`
	// Cents is by how much.
	Cents int64 `json:"cents"`
}

// String says it in a few words, for people.
func (b Booking) String() string {
	return fmt.Sprintf("%s: %d.%02d, %s", b.Account, b.Cents/100, b.Cents%100, b.ID)
}

// Charge takes the session's price from the caller.
//
// An empty wallet, 402, isn't blocked. Only the caller can fill it, so nobody who
// looks after blocked runs could mend it, and hundreds a day would hide those that
// somebody can. The wallet keeps the debt; the run ends as given_up, where
// whoever collects debts finds it, and the host isn't paid.
func (w *Wallet) Charge(ctx context.Context, task activities.Task) (Booking, error) {
	charge, err := w.book(ctx, task, "charges", "")
	return charge, giveUpOn(http.StatusPaymentRequired, err)
}

// PayOut gives the host the share of what was charged. How much that is, is left
// to the wallet: if it were computed here, the next version could compute another
// amount for the same Idempotency-Key.
//
// Where the host has closed the account, 410, nobody is asked either: the caller
// gets the money back.
func (w *Wallet) PayOut(ctx context.Context, task activities.Task, charge Booking) (Booking, error) {
	payout, err := w.book(ctx, task, "payouts", charge.ID)
	return payout, giveUpOn(http.StatusGone, err)
}

// Refund gives the caller back what was charged. The wallet refuses it where the
// host was paid after all, by a payout of which we never heard, and a refund that
// can't be is a person's affair, whatever the status: it is somebody's money.
func (w *Wallet) Refund(ctx context.Context, task activities.Task, charge Booking) (Booking, error) {
	return w.book(ctx, task, "refunds", charge.ID)
}

// order is what the wallet is asked to book.
type order struct {
	Session session.Session `json:"session"`
	// Charge is the ID of the charge to pay out or refund.
	Charge string `json:"charge,omitempty"`
}

func (w *Wallet) book(ctx context.Context, task activities.Task, what, charge string) (booked Booking, err error) {
	err = w.API.At(what).Post(ctx, task.IdempotencyKey, order{task.Session, charge}, &booked)
	return booked, err
}

// giveUpOn gives up what the wallet has refused with that status. Any other
// refusal is left to a person.
func giveUpOn(status int, err error) error {
	if refusal := new(activities.Refusal); errors.As(err, &refusal) && refusal.Status == status {
		return activities.GiveUpf("%w", refusal)
	}
	return err
}
