package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"sync"
)

// fakeWallet is a wallet in this process, which forgets everything when that
// ends. Whether its accounts are in trouble depends on the room: in "paid-broke"
// the caller has no money, in "paid-left" the host has closed the account, and in
// "paid-frozen" a person has to look into the host's.
type fakeWallet struct {
	mu     sync.Mutex
	booked map[string]Booking // by Idempotency-Key
	spent  map[string]string  // what became of a charge, by its ID
}

// RoundTrip implements [http.RoundTripper]: nothing leaves the process.
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
	if refused != 0 { // and forgotten: what is refused today may be booked tomorrow
		http.Error(w, why, refused)
		return
	}
	if f.booked == nil {
		f.booked, f.spent = map[string]Booking{}, map[string]string{}
	}
	f.booked[key], f.spent[o.Charge] = booking, what
	slog.Info("fake wallet: booked", "what", what, "booking", booking)
	_ = json.NewEncoder(w).Encode(booking)
}

// book says what there is to book for the order, or with which status it is
// refused, and why.
func (f *fakeWallet) book(what, key string, o order) (b Booking, refused int, why string) {
	room := o.Session.RoomID
	b = Booking{ID: what[:len(what)-1] + "-" + key[:8], Account: "caller-of-" + room, Cents: 500}
	switch {
	case what != "charges" && f.spent[o.Charge] != "":
		return b, http.StatusUnprocessableEntity, o.Charge + " is among the " + f.spent[o.Charge] + " already"
	case what == "charges" && room == "paid-broke":
		return b, http.StatusPaymentRequired, "insufficient funds"
	case what == "payouts" && room == "paid-left":
		return b, http.StatusGone, "the host has closed the account"
	case what == "payouts" && room == "paid-frozen":
		return b, http.StatusUnprocessableEntity, "the host's account is frozen"
	case what == "payouts":
		b.Account, b.Cents = "host-of-"+room, 400
	}
	return b, 0, ""
}
