package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// billingAPI is an API that takes each Idempotency-Key once. It fails before or after it takes
// an entry, and hangs.
type billingAPI struct {
	w *world

	mu    sync.Mutex
	calls map[string]int    // by key
	taken map[string]string // the request, by key
}

func (a *billingAPI) endpoint() activities.Endpoint {
	return activities.Endpoint{Name: "the billing API", URL: "http://billing.test", Client: &http.Client{Transport: inProcess{a}}}
}

// ServeHTTP implements [http.Handler].
func (a *billingAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.calls[key]++
	chance := a.w.chance("billing API "+key, a.calls[key])
	fault := chance.IntN(16)
	if a.calls[key] > 4 {
		fault = -1
	}
	a.mu.Unlock()
	time.Sleep(between(chance, 0, time.Second))
	switch fault {
	case 0:
		w.WriteHeader(http.StatusBadGateway)
		return
	case 1:
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	case 2:
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	case 3:
		<-r.Context().Done()
		return
	}
	a.mu.Lock()
	before, again := a.taken[key]
	a.taken[key] = string(body)
	a.mu.Unlock()
	switch {
	case again && before != string(body):
		a.w.broken("the billing API got two requests with the key %s: %s, then %s", key, before, body)
	case fault == 4, fault == 5:
		w.WriteHeader(http.StatusInternalServerError)
	case fault == 6:
		<-r.Context().Done()
	case again && chance.IntN(2) == 0:
		w.WriteHeader(http.StatusConflict)
	}
}

// check checks that the API has an entry under its key. want is the bill or the adjustment.
func (a *billingAPI) check(key uuid.UUID, want any, lines []pricing.Line) error {
	var got struct {
		ID   uuid.UUID
		Data struct{ Lines []pricing.Line }
	}
	posted := reflect.New(reflect.TypeOf(want))
	if err := errors.Join(json.Unmarshal([]byte(a.taken[key.String()]), &got),
		json.Unmarshal([]byte(a.taken[key.String()]), &struct{ Data any }{posted.Interface()})); err != nil {
		return fmt.Errorf("the billing API lacks the entry %s: %w", key, err)
	}
	if got.ID != key || !reflect.DeepEqual(posted.Elem().Interface(), want) || !slices.Equal(got.Data.Lines, lines) {
		return fmt.Errorf("the billing API has %s, want %+v with lines %+v", a.taken[key.String()], want, lines)
	}
	return nil
}

// compare compares all entries with those of a ledger that has all events from the beginning.
func (k *worker) compare(ctx context.Context, dir string, entries map[session.ID]ledger.Entry) error {
	all, err := openLedger(dir, "all.db")
	if err != nil {
		return err
	}
	defer all.Close()
	if k.ledger.Price != nil {
		all.Price = perUser
	}
	billing := &steps.Billing{Ledger: all, Prices: k.billing.Prices}
	if err := all.Record(ctx, k.events); err != nil {
		return fmt.Errorf("record all at once: %w", err)
	}
	posted := 0
	for _, id := range slices.Sorted(maps.Keys(k.w.temporal.runs)) {
		s := k.w.temporal.runs[id][0].input
		e, ok := entries[s.ID]
		if !ok {
			return fmt.Errorf("%s has a run and no bill", id)
		}
		ledgerPage = usual.ledgerPage // small pages must make no difference
		_, err := billing.FinalizeBill(ctx, taskOf(s))
		if ledgerPage = k.w.limits.ledgerPage; err != nil {
			return err
		}
		if err := k.checkEntry(ctx, e, all); err != nil {
			return fmt.Errorf("%s: a bill and %d adjustments: %w", id, len(e.Adjustments), err)
		}
		posted += 1 + len(e.Adjustments)
	}
	if len(k.api.taken) != posted {
		return fmt.Errorf("the billing API has %d entries, want %d", len(k.api.taken), posted)
	}
	return nil
}

// checkEntry checks the bill of a session and its adjustments. all has all events.
func (k *worker) checkEntry(ctx context.Context, e ledger.Entry, all *ledger.Ledger) error {
	want, err := all.Bill(ctx, e.Session.ID)
	if err != nil {
		return err
	}
	bills := []pricing.Bill{e.Bill}
	if e.ID != e.IdempotencyKey("billing") {
		return fmt.Errorf("the bill has the ID %s, want %s", e.ID, e.IdempotencyKey("billing"))
	}
	sum := e.Since(pricing.Bill{})
	for i, a := range e.Adjustments {
		if key := e.IdempotencyKey(fmt.Sprint("adjustment-", i+1)); a.Number != i+1 || a.ID != key {
			return fmt.Errorf("adjustment %d has the number %d and the ID %s, want %s", i+1, a.Number, a.ID, key)
		}
		bills = append(bills, a.Bill)
		sum.Millis, sum.Seconds, sum.Minutes, sum.Amount = sum.Millis+a.Difference.Millis, sum.Seconds+a.Difference.Seconds, sum.Minutes+a.Difference.Minutes, sum.Amount+a.Difference.Amount
	}
	last := bills[len(bills)-1]
	if last.Usage != want.Usage || sum.Millis != want.Usage.Millis || sum.Seconds != want.Usage.Seconds || sum.Minutes != want.Usage.Minutes || sum.Amount != want.Charge.Amount {
		return fmt.Errorf("they add up to %+v and say %+v, want %+v", sum, last.Usage, want.Usage)
	}
	users := map[string]string{} // by stay: the smallest of those in contradicting callbacks
	for _, event := range k.events {
		if event.ID != e.Session.ID {
			continue
		}
		if first, found := users[event.Stay]; event.User != "" && (!found || event.User < first) {
			users[event.Stay] = event.User
		}
		if event.Event == zego.EventRoomClose && last.Usage.Estimated&session.Contradicted == 0 {
			return fmt.Errorf("they aren't marked although room_close callbacks contradict each other: %+v", last.Usage)
		}
	}
	distinct := map[string]bool{}
	for _, user := range users {
		distinct[user] = true
	}
	if last.Usage.Participants != int64(len(distinct)) {
		return fmt.Errorf("found %d participants, want %d", last.Usage.Participants, len(distinct))
	}
	return k.checkDetails(ctx, e, bills, all)
}

// checkDetails checks the participants and the lines of entries, and what the billing API has
// of them.
func (k *worker) checkDetails(ctx context.Context, e ledger.Entry, bills []pricing.Bill, all *ledger.Ledger) error {
	wantPeople, err := people(ctx, all, e.Session, 0)
	if err != nil {
		return err
	}
	before, sums := map[string]session.Billed{}, map[pricing.Line][2]int64{}
	var now []session.Participant
	for n, bill := range bills {
		if now, err = people(ctx, k.ledger, e.Session, n); err != nil {
			return err
		}
		millis, billed := int64(0), map[string]session.Billed{}
		for i, p := range now {
			if p.Before != before[p.User] {
				return fmt.Errorf("%s has %+v before entry %d, want %+v", p.User, p.Before, n, before[p.User])
			}
			millis, billed[p.User] = millis+p.Billed().InRoom, p.Billed()
			now[i].Before = session.Billed{}
		}
		// A user whose only stay has moved to another is still there, with no time.
		now = slices.DeleteFunc(now, func(p session.Participant) bool { return len(p.Stays) == 0 && p.Billed() == session.Billed{} })
		if millis != bill.Usage.Millis || int64(len(now)) != bill.Usage.Participants {
			return fmt.Errorf("entry %d has %d participants with %d ms, and says %+v", n, len(now), millis, bill.Usage)
		}
		before = billed
		lines, err := linesOf(ctx, k.ledger, e.Session.ID, n, sums)
		if err != nil {
			return err
		}
		if n == 0 {
			err = k.api.check(bill.ID, bill, lines)
		} else {
			err = k.api.check(e.Adjustments[n-1].ID, e.Adjustments[n-1], lines)
		}
		if err != nil {
			return err
		}
	}
	if !reflect.DeepEqual(now, wantPeople) {
		return fmt.Errorf("the last entry has the participants %+v, want %+v", now, wantPeople)
	}
	want := map[pricing.Line][2]int64{}
	if _, err := linesOf(ctx, all, e.Session.ID, 0, want); err != nil {
		return err
	}
	none := func(_ pricing.Line, sum [2]int64) bool { return sum == [2]int64{} }
	maps.DeleteFunc(sums, none)
	maps.DeleteFunc(want, none)
	if !maps.Equal(sums, want) {
		return fmt.Errorf("their lines add up to %+v, want %+v", sums, want)
	}
	return nil
}

// people returns the participants of an entry, without the bounds of their times: a callback that
// changes those alone needs no adjustment.
func people(ctx context.Context, l *ledger.Ledger, s session.Session, entry int) (all []session.Participant, err error) {
	of, err := l.Participants(ctx, s, entry)
	if err != nil {
		return nil, err
	}
	for p, err := range of.All {
		if err != nil {
			return nil, err
		}
		p.InRoom, p.Published = session.Span{Millis: p.InRoom.Millis}, session.Span{Millis: p.Published.Millis}
		all = append(all, p)
	}
	return all, nil
}

// linesOf returns the lines of an entry, and adds their quantities and amounts to sums.
func linesOf(ctx context.Context, l *ledger.Ledger, id session.ID, entry int, sums map[pricing.Line][2]int64) (all []pricing.Line, err error) {
	for line, err := range l.Lines(ctx, id, entry) {
		if err != nil {
			return nil, err
		}
		all = append(all, line)
		quantity, amount := line.Quantity, line.Amount
		line.Quantity, line.Amount = 0, 0
		sums[line] = [2]int64{sums[line][0] + quantity, sums[line][1] + amount}
	}
	return all, nil
}

// checkReceipts checks that a receipt was sent for the bill and for each adjustment.
func (k *worker) checkReceipts(e ledger.Entry) error {
	if workflows.Name(route(e.Session)) != workflows.Name(Approved) {
		return nil
	}
	want := map[uuid.UUID]pricing.Bill{e.IdempotencyKey("receipt"): e.Bill}
	for _, a := range e.Adjustments {
		want[e.IdempotencyKey(fmt.Sprint("receipt-adjustment-", a.Number))] = a.Bill
	}
	for key, bill := range want {
		var sent pricing.Bill
		if err := json.Unmarshal([]byte(k.receipts[key]), &sent); err != nil {
			return fmt.Errorf("a receipt is missing: %w", err)
		}
		if sent.ID != e.ID || sent.Usage != bill.Usage || sent.Charge.Amount != bill.Charge.Amount {
			return fmt.Errorf("the receipt %+v was sent for %+v", sent, bill)
		}
		k.receipted++
	}
	return nil
}
