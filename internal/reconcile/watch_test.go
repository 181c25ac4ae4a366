package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/session"
)

// watches returns n workers' watches on one ledger, and a counter of the runs they start.
func (w *world) watches(n int) (all []*reconcile.Watch, runs *int) {
	runs = new(int)
	w.now = time.Now().Add(time.Hour) // the ledger archives at the real time, which is in the past then
	w.Adjust = func(context.Context, ledger.BilledSession) error { return nil }
	w.AddLate = func(context.Context, session.Session) (bool, error) { return true, nil }
	for range n {
		all = append(all, &reconcile.Watch{Reconciler: w.Reconciler, Interval: gap, Apps: []uint32{1}, Run: func(context.Context) error { *runs++; return nil }})
	}
	return all, runs
}

// looks advances the clock in steps. At each step, one of the workers may look.
func (w *world) looks(watches []*reconcile.Watch, during, step time.Duration) {
	w.t.Helper()
	for passed := time.Duration(0); passed < during; passed += step {
		if err := watches[rand.IntN(len(watches))].Look(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.pass(step)
	}
}

// On a day without work, no run starts, and any number of workers take one look a minute. Sessions
// of an app without a server secret, and recordings of open sessions, are no work.
func TestIdleDayStartsNoRun(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		watches, runs := w.watches(3)
		w.Reconciler.Apps, w.SweepEvery = []uint32{1}, time.Minute // ZEGO has no recordings
		w.archived(1)
		w.pass(time.Hour)
		w.recorded("A", 10*time.Minute) // in an open session
		w.record(2, "lobby", 2, w.now, stay("a", w.now, w.now.Add(time.Minute)))
		if err := w.Ledger.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}); err != nil {
			t.Fatal(err)
		}
		w.looks(watches, 24*time.Hour, 20*time.Second)
		last, err := w.Ledger.LastLook(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if *runs != 0 || last.Number != 24*60 {
			t.Errorf("%d runs and %d looks in a day, want 0 and %d", *runs, last.Number, 24*60)
		}
	})
}

// A worker whose clock is an hour ahead may look, and doesn't keep the others from looking.
func TestWrongClockPreventsNoLook(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for n, look := range []struct {
			at   time.Time
			want bool
		}{{w.now, true}, {w.now.Add(time.Hour), true}, {w.now, true}, {w.now.Add(gap / 2), false}, {w.now.Add(gap), true}} {
			if got, err := w.Ledger.TakeLook(t.Context(), look.at, gap); err != nil || got != look.want {
				t.Errorf("look %d at %v: %v, want %v, error %v", n, look.at, got, look.want, err)
			}
		}
	})
}

// Due work starts a run at the next look, and no further run once it is done.
func TestRunStartsWhenSomethingIsDue(t *testing.T) {
	for name, tt := range map[string]struct{ happens, done func(w *world) }{
		"an overdue session": {
			func(w *world) {
				w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now.Add(time.Minute)))
				w.pass(overdueAfter + time.Minute)
			},
			func(w *world) { w.until(1, 5) },
		},
		"an event after the bill": {
			func(w *world) {
				w.record(1, "lobby", 7, w.now)
				if _, _, err := w.Ledger.Finalize(w.t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", RoomCloseTime: w.now.Add(time.Hour)}}); err != nil {
					w.t.Fatal(err)
				}
				w.record(1, "lobby", 7, time.Time{}, stay("a", w.now, w.now.Add(time.Minute)))
			},
			func(w *world) { w.activity(w.StartAdjustments) },
		},
		"a recording after the archive": {
			func(w *world) {
				w.archived(7)
				if err := w.Ledger.Closed(w.t.Context(), session.ID{AppID: 1, RoomSessionID: 7}); err != nil {
					w.t.Fatal(err)
				}
				w.recorded("A", 30*time.Minute)
			},
			func(w *world) { w.activity(w.StartLateRecordings) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, w *world) {
				watches, runs := w.watches(2)
				w.looks(watches, gap, gap)
				if *runs != 0 {
					t.Fatalf("%d runs before anything is due, want 0", *runs)
				}
				tt.happens(w)
				w.looks(watches, gap, gap)
				if *runs != 1 {
					t.Errorf("%d runs when it is due, want 1", *runs)
				}
				tt.done(w)
				w.looks(watches, time.Hour, gap)
				if *runs != 1 {
					t.Errorf("%d runs in all, want 1", *runs)
				}
			})
		})
	}
}

// Recordings of a room's open session become late when another session of the room has
// been archived without them.
func TestRecordingIsCheckedAgainAfterItsRoomIsArchived(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		watches, runs := w.watches(1)
		w.archived(1)
		if err := w.Ledger.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		w.recorded("A", 30*time.Minute)
		w.looks(watches, 20*time.Minute, gap)
		if tasks, err := w.Ledger.LateRecordings(t.Context(), w.now, w.now.Add(-time.Hour), ledger.RecordingTask{}, 10); *runs != 0 || len(tasks) != 0 || err != nil {
			t.Fatalf("%d runs while the session is open, late recordings %+v, %v", *runs, tasks, err)
		}
		w.archived(2) // it began an hour ago, and its archive lacks the recording
		w.looks(watches, gap, gap)
		if *runs != 1 {
			t.Errorf("%d runs when the recording is late, want 1", *runs)
		}
	})
}

// If the ledger isn't confirmed or Temporal is unavailable, no run starts, and the next look tries
// again.
func TestFailedLookIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+t.TempDir()+"/ledger.db")
	watches, _ := w.watches(1)
	watch := watches[0]
	w.record(1, "lobby", 7, w.now, stay("a", w.now, w.now.Add(time.Minute)))
	w.pass(overdueAfter + time.Minute)
	away := errors.New("away")
	started := make(chan struct{}, 1)
	watch.Confirm = func(context.Context) error { err := away; away = nil; return err }
	failed := false
	watch.Run = func(context.Context) error {
		if !failed {
			failed = true
			return errors.New("Temporal is away")
		}
		select {
		case started <- struct{}{}:
		default:
		}
		return nil
	}
	watch.Interval, watch.Now = time.Millisecond, func() time.Time { w.pass(time.Second); return w.clock() }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); watch.Loop(ctx, slog.New(slog.DiscardHandler)) }()
	<-started
	stop()
	<-ended
}
