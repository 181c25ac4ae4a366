package reconcile_test

import (
	"cmp"
	"errors"
	"net/url"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// A difference between ZEGO's counts and the ledger is recorded per app if it lasts. A room whose
// callbacks came late, or that closed or began meanwhile, is no difference. Nor is a ledger that
// has more.
func TestRoomsThatTheLedgerLacksAreCounted(t *testing.T) {
	const lasting = 6 * time.Minute
	for name, tt := range map[string]struct {
		rooms, users int // counted by ZEGO
		peak         int // more rooms in one minute
		every        time.Duration
		known        func(w *world)
		want         [2]int64
	}{
		"no callback at all":           {rooms: 3, users: 9, want: [2]int64{3, 9}},
		"as many":                      {rooms: 1, users: 1, known: func(w *world) { w.record(1, "a", 1, w.ago(time.Hour), stay("u", w.ago(time.Hour), time.Time{})) }},
		"more here":                    {known: func(w *world) { w.record(1, "a", 1, w.ago(time.Hour), stay("u", w.ago(time.Hour), time.Time{})) }},
		"a user is lacking":            {rooms: 1, users: 2, known: func(w *world) { w.record(1, "a", 1, w.ago(time.Hour), stay("u", w.ago(time.Hour), time.Time{})) }, want: [2]int64{0, 1}},
		"another app's":                {rooms: 1, users: 1, known: func(w *world) { w.record(2, "a", 1, w.ago(time.Hour), stay("u", w.ago(time.Hour), time.Time{})) }, want: [2]int64{1, 1}},
		"one minute only":              {peak: 5},
		"minutes that ZEGO leaves out": {rooms: 1, users: 1, every: 2 * time.Minute},
		"no room_create, and no login": {rooms: 1, users: 1, known: func(w *world) { w.record(1, "a", 1, time.Time{}, stay("u", time.Time{}, w.ago(time.Second))) }},
		"billed since":                 {rooms: 1, users: 1, known: func(w *world) { w.billed(1, w.ago(time.Hour), w.ago(time.Minute)) }},
		"billed before":                {rooms: 1, users: 1, known: func(w *world) { w.billed(1, w.ago(time.Hour), w.ago(30*time.Minute)) }, want: [2]int64{1, 1}},
		"the user left before":         {rooms: 1, users: 1, known: func(w *world) { w.record(1, "a", 1, w.ago(time.Hour), stay("u", w.ago(time.Hour), w.ago(time.Hour/2))) }, want: [2]int64{0, 1}},
		"known since some minutes only": {rooms: 1, users: 1, known: func(w *world) {
			w.record(1, "a", 1, w.ago(8*time.Minute), stay("u", w.ago(8*time.Minute), time.Time{}))
		}},
		"begun after what is compared": {rooms: 1, users: 1, known: func(w *world) { w.record(1, "a", 1, w.ago(time.Minute), stay("u", w.ago(time.Minute), time.Time{})) }, want: [2]int64{1, 1}},
		"begun half a minute after it": {rooms: 1, users: 1, known: func(w *world) {
			begin := w.ago(serverapi.RealtimeDelay + 2*time.Minute - 30*time.Second)
			w.record(1, "a", 1, begin, stay("u", begin, time.Time{}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, w *world) {
				w.now = time.Now()
				if tt.known != nil {
					tt.known(w)
				}
				var counted []zegofake.Usage
				for ago := 3 * time.Minute; ago < time.Hour; ago += cmp.Or(tt.every, time.Minute) {
					u := zegofake.Usage{At: w.ago(ago), Rooms: tt.rooms, Users: tt.users}
					if ago == 3*time.Minute+lasting {
						u.Rooms += tt.peak
					}
					counted = append(counted, u)
				}
				w.api.Realtime(1, counted...)
				if _, err := w.comparing().Compare(t.Context()); err != nil {
					t.Fatal(err)
				}
				all, err := w.Ledger.Comparisons(t.Context(), w.ago(time.Minute))
				if err != nil || len(all) != 1 {
					t.Fatal(all, err)
				}
				if got := [2]int64{all[0].UnknownRooms, all[0].UnknownUsers}; got != tt.want || all[0].Since.IsZero() != (tt.want == [2]int64{}) {
					t.Errorf("%+v, want %d rooms and users", all[0], tt.want)
				}
			})
		})
	}
}

// Since stays the same until the difference ends. An app that can't be asked keeps its last answer,
// and doesn't delay the other apps.
func TestComparisonRecordsItsFirstDifference(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.now = time.Now().Truncate(time.Millisecond).UTC()
		watch := w.comparing(1, 3) // app 3 has no secret
		var failed, done atomic.Int64
		w.Swept = func(of string, err error) {
			if of != "usage" {
				t.Errorf("%s is swept", of)
			} else if err != nil {
				failed.Add(1)
			} else {
				done.Add(1)
			}
		}
		count := func(rooms int) {
			var usage []zegofake.Usage
			for ago := 3 * time.Minute; ago < time.Hour; ago += time.Minute {
				usage = append(usage, zegofake.Usage{At: w.ago(ago), Rooms: rooms})
			}
			w.api.Realtime(1, usage...)
			if _, err := watch.Compare(t.Context()); !errors.Is(err, serverapi.ErrNoSecret) {
				t.Error(err)
			}
		}
		since := func() map[uint32]time.Time {
			all, err := w.Ledger.Comparisons(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			got := map[uint32]time.Time{}
			for _, c := range all {
				got[c.AppID] = c.Since
			}
			return got
		}
		began := w.now
		count(2)
		w.pass(time.Second)
		count(1)
		w.api.Fail(func(q url.Values) *zegofake.Failure {
			if q.Get("AppId") == "1" {
				return &zegofake.Failure{Code: 10002, Message: "no"}
			}
			return nil
		})
		count(0)
		if got, want := since(), (map[uint32]time.Time{1: began}); !reflect.DeepEqual(got, want) {
			t.Errorf("since %v, want %v", got, want)
		}
		w.api.Fail(nil)
		count(0)
		if got, want := since(), (map[uint32]time.Time{1: {}}); !reflect.DeepEqual(got, want) {
			t.Errorf("since %v, want %v", got, want)
		}
		if done.Load() != 3 || failed.Load() != 5 {
			t.Errorf("%d done and %d failed, want 3 and 5", done.Load(), failed.Load())
		}
	})
}

// With any number of workers, ZEGO is asked about an app once an interval.
func TestOneWorkerCompares(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.now = time.Now()
		for range 5 {
			watch := w.comparing()
			watch.CompareEvery = time.Hour
			if _, err := watch.Compare(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if calls := w.api.Calls("GetRealtimeUsage"); len(calls) != 1 {
			t.Errorf("%d calls", len(calls))
		}
		without := w.comparing()
		without.Apps = nil
		if _, err := without.Compare(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func (w *world) ago(d time.Duration) time.Time { return w.clock().Add(-d) }

// billed stores a session with one user, and its bill.
func (w *world) billed(number uint64, from, to time.Time) {
	w.t.Helper()
	w.record(1, "lobby", number, from, stay("u", from, to))
	if _, _, err := w.Ledger.Finalize(w.t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", RoomCloseTime: to}}); err != nil {
		w.t.Fatal(err)
	}
}

// comparing returns a watch that compares at every call.
func (w *world) comparing(apps ...uint32) *reconcile.Watch {
	if len(apps) == 0 {
		apps = []uint32{1}
	}
	return &reconcile.Watch{Reconciler: w.Reconciler, Apps: apps, CompareEvery: time.Nanosecond}
}
