package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
)

// fakeWallet is a wallet in this process, which keeps its bookings in memory. The room
// decides what is wrong: in "paid-broke" callers have no money, in "paid-left" hosts have
// closed the account, and in "paid-frozen" the hosts' accounts are frozen.
type fakeWallet struct {
	mu     sync.Mutex
	booked map[string]Booking // by Idempotency-Key
	spent  map[uint64]string  // payouts or refunds, by session
}

// RoundTrip implements [http.RoundTripper] without a network.
func (f *fakeWallet) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result(), nil
}

// ServeHTTP implements [http.Handler].
func (f *fakeWallet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, what := r.Header.Get("Idempotency-Key"), path.Base(r.URL.Path)
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || len(key) < 8 {
		http.Error(w, "want an order and an Idempotency-Key", http.StatusBadRequest)
		return
	}
	if again, ok := f.booked[key]; ok {
		slog.Info("fake wallet: booked already", "what", what, "booking", again)
		_ = json.NewEncoder(w).Encode(again)
		return
	}
	booking, refused, why := f.book(what, key, o)
	if refused != 0 { // not remembered, because a later attempt may succeed
		http.Error(w, why, refused)
		return
	}
	if f.booked == nil {
		f.booked, f.spent = map[string]Booking{}, map[uint64]string{}
	}
	if f.booked[key] = booking; what != "charges" {
		f.spent[o.Session.RoomSessionID] = what
	}
	slog.Info("fake wallet: booked", "what", what, "booking", booking)
	_ = json.NewEncoder(w).Encode(booking)
}

// book returns the booking of an order, or the status and the reason of a refusal.
func (f *fakeWallet) book(what, key string, o order) (b Booking, refused int, why string) {
	room, spent := o.Session.RoomID, f.spent[o.Session.RoomSessionID]
	b = Booking{ID: what[:len(what)-1] + "-" + key[:8], Account: o.User, Cents: o.Cents}
	switch {
	case what == "refunds" && spent == "payouts":
		return b, http.StatusUnprocessableEntity, "a host of the session was paid"
	case what == "refunds":
		b.Cents = -f.booked[o.Charge.String()].Cents
	case spent == "refunds": // a late callback does not change a refund
		b.Cents = 0
	case what == "charges" && room == "paid-broke":
		return b, http.StatusPaymentRequired, "insufficient funds"
	case what == "charges":
	case room == "paid-left":
		return b, http.StatusGone, "the host has closed the account"
	case room == "paid-frozen":
		return b, http.StatusUnprocessableEntity, "the host's account is frozen"
	}
	return b, 0, ""
}
