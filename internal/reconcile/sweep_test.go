package reconcile_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// ended returns a task in the lobby that ended half an hour ago, with one file of each status.
func (w *world) ended(n int, statuses ...int) zegofake.Task {
	now := w.clock()
	task := zegofake.Task{TaskID: fmt.Sprintf("%016d", n), RoomID: "lobby", Status: 3, Begin: now.Add(-time.Hour), End: now.Add(-30 * time.Minute)}
	for i, status := range statuses {
		task.Files = append(task.Files, zegofake.File{ID: fmt.Sprint(task.TaskID, "-", i), Format: "aac", Size: 5, Begin: now.Add(-50 * time.Minute), Status: status})
	}
	return task
}

// A sweep reads the ended tasks of all rooms, whether callbacks came or not. It asks about a task
// until the task is complete.
func TestSweepStoresFilesWithoutCallbacks(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.now = time.Now()
		var late []uint64
		w.AddLate = func(_ context.Context, s session.Session) (bool, error) {
			late = append(late, s.RoomSessionID)
			return true, nil
		}
		var found []string
		w.Reconciler.Apps, w.SweepEvery = []uint32{1}, 1 // always due
		w.Found = func(_ context.Context, app uint32, task serverapi.Task) error {
			found = append(found, task.TaskID)
			return nil
		}
		sweep := func() {
			t.Helper()
			found = nil
			w.activity(w.StartLateRecordings)
		}
		w.archived(7)
		if err := w.Ledger.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 7}); err != nil {
			t.Fatal(err)
		}
		tasks := []zegofake.Task{w.ended(1, 3, 5), w.ended(2, 3, 2), w.ended(3)}
		for n := range 60 { // more than a page, without published streams
			tasks = append(tasks, w.ended(100+n))
		}
		w.api.Tasks(1, tasks...)
		sweep()
		if want := []string{tasks[0].TaskID, tasks[1].TaskID}; !slices.Equal(found, want) || !slices.Equal(late, []uint64{7}) {
			t.Errorf("found %v, want %v; late %v", found, want, late)
		}
		if calls := len(w.api.Calls("DescribeRecordStatus")); calls != len(tasks) {
			t.Errorf("%d tasks were asked about, want %d", calls, len(tasks))
		}
		// Only the task with a file that was still being uploaded is asked about again.
		tasks[1] = w.ended(2, 3, 4)
		w.api.Tasks(1, tasks...)
		sweep()
		if calls := len(w.api.Calls("DescribeRecordStatus")); calls != len(tasks)+1 || !slices.Equal(found, []string{tasks[1].TaskID}) {
			t.Errorf("%d calls, found %v", calls, found)
		}
		sweep()
		if calls := len(w.api.Calls("DescribeRecordStatus")); calls != len(tasks)+1 || len(found) != 0 {
			t.Errorf("%d calls, found %v", calls, found)
		}
		// Other runs within the interval don't sweep.
		w.SweepEvery = time.Hour
		w.activity(w.StartLateRecordings)
		lists := len(w.api.Calls("DescribeTasks"))
		w.activity(w.StartLateRecordings)
		if len(w.api.Calls("DescribeTasks")) != lists {
			t.Error("swept twice within an interval")
		}
	})
}

// A task whose answer can't be stored doesn't delay the others.
func TestFaultyTaskDelaysNoOtherOfASweep(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.now = time.Now()
		swept := ""
		w.AddLate = func(context.Context, session.Session) (bool, error) { return true, nil }
		w.Swept = func(of string, err error) { swept += fmt.Sprint(of, " ", err != nil, " ") }
		w.Reconciler.Apps, w.SweepEvery = []uint32{1}, time.Hour
		var found []string
		w.Found = func(_ context.Context, _ uint32, task serverapi.Task) error {
			found = append(found, task.TaskID)
			return nil
		}
		astray, good := w.ended(1, 3), w.ended(2, 3)
		astray.Files[0].ID = "../" + astray.Files[0].ID
		w.api.Tasks(1, astray, good)
		w.activity(w.StartLateRecordings)
		if !slices.Equal(found, []string{good.TaskID}) || swept != "recordings true " {
			t.Errorf("found %v, swept %s", found, swept)
		}
	})
}

// A failing API doesn't delay late recordings.
func TestFailedSweepLeavesLateRecordingsAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.now = time.Now()
		late, swept := 0, ""
		w.AddLate = func(context.Context, session.Session) (bool, error) { late++; return true, nil }
		w.Swept = func(of string, err error) { swept += fmt.Sprint(of, " ", err != nil, " ") }
		w.Reconciler.Apps, w.SweepEvery = []uint32{1}, time.Hour
		w.archived(7)
		if err := w.Ledger.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 7}); err != nil {
			t.Fatal(err)
		}
		w.recorded("A", 30*time.Minute)
		w.api.Fail(func(url.Values) *zegofake.Failure { return &zegofake.Failure{Status: 429, Body: "slow down"} })
		w.activity(w.StartLateRecordings)
		if late != 1 || swept != "recordings true " {
			t.Errorf("%d late recordings, swept %s", late, swept)
		}
	})
}

func TestSweepIsDueOncePerInterval(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		watches, runs := w.watches(3)
		for _, watch := range watches {
			watch.Reconciler.Apps, watch.SweepEvery = []uint32{1}, time.Hour
		}
		w.api.Tasks(1, w.ended(1, 3))
		w.looks(watches, 30*time.Minute, gap)
		if *runs != 1 {
			t.Errorf("%d runs within an interval", *runs)
		}
	})
}
