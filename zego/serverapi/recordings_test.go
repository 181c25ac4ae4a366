package serverapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

func taskID(n int) string { return fmt.Sprintf("%016d", n) }

// All pages are read, with at most ten calls a second.
func TestDescribeTasksReadsAllPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := zegofake.New(apiApp, serverSecret)
		c := apiClient(t, api, serverSecret)
		now := time.Now().UTC().Truncate(time.Millisecond)
		var tasks []zegofake.Task
		for n := range 1234 {
			tasks = append(tasks, zegofake.Task{TaskID: taskID(n), RoomID: fmt.Sprint("room ", n%2), Status: 3 + n%2, Begin: now.Add(-time.Duration(n) * time.Minute)})
		}
		tasks = append(tasks, zegofake.Task{TaskID: taskID(5000), RoomID: "room 0", Status: 2, Begin: now.Add(-time.Minute)},
			zegofake.Task{TaskID: taskID(5001), RoomID: "room 0", Status: 5, Begin: now.Add(-time.Minute)})
		api.Tasks(apiApp, tasks...)
		for _, test := range []struct {
			room  string
			ended bool
			from  time.Duration
			want  int
		}{
			{"", true, 72*time.Hour - time.Minute, 1234}, {"room 1", true, 72*time.Hour - time.Minute, 617}, {"", true, 90*time.Minute + time.Second, 91},
			{"room 0", false, time.Hour, 2}, {"", false, time.Second, 0}, {"room 3", true, time.Hour, 0},
		} {
			seen := map[string]serverapi.Task{}
			err := c.DescribeTasks(t.Context(), apiApp, test.room, test.ended, now.Add(-test.from), now, func(task serverapi.Task) error {
				seen[task.TaskID] = task
				return nil
			})
			if err != nil || len(seen) != test.want {
				t.Errorf("%+v: %d tasks, %v", test, len(seen), err)
			}
			if first, ok := seen[taskID(1)]; ok && !reflect.DeepEqual(first, serverapi.Task{TaskID: taskID(1), RoomID: "room 1", Status: serverapi.TaskAborted, Begin: now.Add(-time.Minute)}) {
				t.Errorf("%+v", first)
			}
		}
		stop := errors.New("enough")
		if err := c.DescribeTasks(t.Context(), apiApp, "", true, now.Add(-time.Hour), now, func(serverapi.Task) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("stopped with %v", err)
		}
		var refused *serverapi.Error
		if err := c.DescribeTasks(t.Context(), apiApp, "", true, now.Add(-73*time.Hour), now, nil); !errors.As(err, &refused) || refused.Code != 300000004 {
			t.Errorf("older than the API knows: %v", err)
		}
	})
}

// A truncated list is an error. Otherwise the tasks that it lacks would seem not to exist.
func TestTruncatedListIsAnError(t *testing.T) {
	for _, body := range []string{
		`{"Code":0,"Data":{"TaskidList":[]}}`,
		`{"Code":0,"Data":{"TotalCount":2,"TaskidList":[]}}`,
		`{"Code":0,"Data":{"TotalCount":1,"TaskidList":[{"TaskId":"short","RecordBeginTimestamp":1628565227899}]}}`,
		`{"Code":0,"Data":{"TotalCount":1,"TaskidList":[{"TaskId":"YRHu6-E4IyvEAAAD"}]}}`,
		`{"Code":0}`, `<html>`,
	} {
		api := zegofake.New(apiApp, serverSecret)
		api.Fail(func(url.Values) *zegofake.Failure { return &zegofake.Failure{Body: body} })
		err := apiClient(t, api, serverSecret).DescribeTasks(t.Context(), apiApp, "", true, time.Now().Add(-time.Hour), time.Now(), func(serverapi.Task) error { return nil })
		if err == nil {
			t.Errorf("%s: no error", body)
		}
	}
}

func TestDescribeRecordStatusReturnsFilesInEveryState(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	begin := now.Add(-time.Hour)
	name := taskID(1) + "_room_u_s_A_20261129120000123.aac"
	for status := 1; status <= 5; status++ {
		api := zegofake.New(apiApp, serverSecret)
		api.Tasks(apiApp, zegofake.Task{TaskID: taskID(1), RoomID: "room", Status: 3, Begin: begin, End: now, Files: []zegofake.File{
			{ID: name, URL: "https://bucket.example.com/" + name, Format: "aac", UserID: "u", StreamID: "s", Size: 5, Duration: 33874 * time.Millisecond, Begin: begin, Status: status},
			{ID: name, Status: 3}}})
		got, err := apiClient(t, api, serverSecret).DescribeRecordStatus(t.Context(), apiApp, taskID(1))
		want := serverapi.Task{TaskID: taskID(1), RoomID: "room", Status: serverapi.TaskEnded, Begin: begin, End: now, Files: []zego.RecordedFile{
			{FileID: name, URL: "https://bucket.example.com/" + name, Format: "aac", UserID: "u", StreamID: "s", Size: 5, Duration: 33874 * time.Millisecond, Begin: begin, MediaTrackType: 1, Status: zego.FileStatus(status)},
			{FileID: name, MediaTrackType: 1, Status: 3, Begin: time.Date(2026, 11, 29, 12, 0, 0, 123e6, time.UTC)}}}
		if err != nil || !reflect.DeepEqual(got, want) || got.Complete() != (status >= 3) {
			t.Errorf("status %d: %+v, %v\nwant %+v", status, got, err, want)
		}
	}
	api := zegofake.New(apiApp, serverSecret)
	api.Tasks(apiApp, zegofake.Task{TaskID: taskID(2), RoomID: "room", Status: 2, Begin: begin})
	c := apiClient(t, api, serverSecret)
	if got, err := c.DescribeRecordStatus(t.Context(), apiApp, taskID(2)); err != nil || got.Complete() || !got.End.IsZero() || got.Files != nil {
		t.Errorf("%+v, %v", got, err)
	}
	var refused *serverapi.Error
	if _, err := c.DescribeRecordStatus(t.Context(), apiApp, taskID(3)); !errors.As(err, &refused) || !refused.NoTask() {
		t.Errorf("of a task that isn't there: %v", err)
	}
}

// A task that fails or doesn't exist delays no other. Three failures in a row end the calls.
// Progress is reported for every task, so that an Activity heartbeats during failures.
func TestDescribeRecordStatusesSkipsFailedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := zegofake.New(apiApp, serverSecret)
		begin := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Hour)
		var tasks []zegofake.Task
		for n := range 6 {
			tasks = append(tasks, zegofake.Task{TaskID: taskID(n), RoomID: "lobby", Status: 3, Begin: begin})
		}
		api.Tasks(apiApp, tasks...)
		c := apiClient(t, api, serverSecret)
		failing, progress, done := errors.New("disk full"), 0, []string{}
		err := c.DescribeRecordStatuses(t.Context(), apiApp,
			[]string{taskID(9), taskID(1), taskID(3), taskID(0), taskID(2), taskID(3), taskID(8), taskID(1), taskID(0)}, func() { progress++ },
			func(task serverapi.Task) error {
				if task.TaskID == taskID(0) || task.TaskID == taskID(2) {
					done = append(done, task.TaskID)
					return nil
				}
				return failing
			})
		if !errors.Is(err, failing) || strings.Count(err.Error(), "task "+taskID(3)+": disk full") != 2 || strings.Contains(err.Error(), taskID(8)) {
			t.Errorf("error %v", err)
		}
		if !slices.Equal(done, []string{taskID(0), taskID(2), taskID(0)}) || progress != 9 {
			t.Errorf("done %q with %d reports of progress, want %q and 9", done, progress, []string{taskID(0), taskID(2), taskID(0)})
		}
		progress = 0
		ids := []string{taskID(9), taskID(1), taskID(8), taskID(3), taskID(4), taskID(0)}
		if err := c.DescribeRecordStatuses(t.Context(), apiApp, ids, func() { progress++ }, func(serverapi.Task) error { return failing }); err == nil || progress != 5 {
			t.Errorf("%d tasks were asked about, want 5: %v", progress, err)
		}
	})
}

// A file's name becomes a part of keys in the bucket, so it must be valid.
func TestInvalidFileIDIsAnError(t *testing.T) {
	for _, id := range []string{"", "../x.aac", "8/../../x.aac", "a\nb.aac"} {
		api := zegofake.New(apiApp, serverSecret)
		api.Tasks(apiApp, zegofake.Task{TaskID: taskID(1), RoomID: "room", Status: 3, Begin: time.Now().Add(-time.Hour), Files: []zegofake.File{{ID: id, Status: 3}}})
		if task, err := apiClient(t, api, serverSecret).DescribeRecordStatus(t.Context(), apiApp, taskID(1)); err == nil {
			t.Errorf("%q: %+v", id, task)
		}
	}
}

func TestRateLimited(t *testing.T) {
	for _, failure := range []zegofake.Failure{{Code: 300000003}, {Code: 30002}, {Code: 206}, {Status: 429, Body: "slow down"}, {Status: 429, Code: 1}} {
		api := zegofake.New(apiApp, serverSecret)
		api.Fail(func(url.Values) *zegofake.Failure { return &failure })
		_, err := apiClient(t, api, serverSecret).DescribeRecordStatus(t.Context(), apiApp, taskID(1))
		if refused := new(serverapi.Error); !errors.As(err, &refused) || !refused.RateLimited() {
			t.Errorf("%+v: %v", failure, err)
		}
	}
}

// Clients with a shared Turn make at most ten calls a second together.
func TestTurnPrecedesEachCall(t *testing.T) {
	api := zegofake.New(apiApp, serverSecret)
	api.Tasks(apiApp, zegofake.Task{TaskID: taskID(1), RoomID: "room", Status: 2, Begin: time.Now().Add(-time.Hour)})
	c := apiClient(t, api, serverSecret)
	var turns []string
	busy := error(nil)
	c.Turn = func(_ context.Context, budget string, pause time.Duration) error {
		turns = append(turns, fmt.Sprint(budget, " ", pause))
		return busy
	}
	if _, err := c.DescribeRecordStatus(t.Context(), apiApp, taskID(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DescribeUserNum(t.Context(), apiApp, []string{"room"}); err != nil {
		t.Fatal(err)
	}
	busy = errors.New("busy")
	if _, err := c.DescribeRecordStatus(t.Context(), apiApp, taskID(1)); !errors.Is(err, busy) {
		t.Errorf("without a turn: %v", err)
	}
	busy = nil
	replaced := apiClient(t, api, "old", serverSecret)
	replaced.Turn = c.Turn
	if _, err := replaced.GetRealtimeUsage(t.Context(), apiApp, time.Now().Add(-time.Hour), time.Now()); err != nil {
		t.Fatal(err)
	}
	if calls := len(api.Calls("DescribeRecordStatus")); calls != 1 || !reflect.DeepEqual(turns, []string{"12345 recording 110ms", "12345 recording 110ms", "12345 realtime 6m40s"}) {
		t.Errorf("%d calls, turns %q", calls, turns)
	}
}

func TestTestEnvironmentIsRequested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := zegofake.New(apiApp, serverSecret)
		c := apiClient(t, api, serverSecret)
		c.Test = []uint32{apiApp}
		began := time.Now()
		for range 3 {
			if _, err := c.DescribeUserNum(t.Context(), apiApp, []string{"room"}); err != nil {
				t.Fatal(err)
			}
		}
		if calls := api.Calls(""); calls[0].Get("IsTest") != "true" || time.Since(began) < 2*time.Second {
			t.Errorf("%v within %v", calls[0], time.Since(began))
		}
	})
}

func TestGetRealtimeUsageCountsByMinute(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Minute)
	api := zegofake.New(apiApp, serverSecret)
	api.Realtime(apiApp, zegofake.Usage{At: now.Add(-5 * time.Minute), Rooms: 3, Users: 40}, zegofake.Usage{At: now.Add(-4 * time.Minute), Rooms: 4, Users: 41}, zegofake.Usage{At: now, Rooms: 9, Users: 9})
	c := apiClient(t, api, serverSecret)
	got, err := c.GetRealtimeUsage(t.Context(), apiApp, now.Add(-time.Hour), now)
	if want := []serverapi.RealtimeUsage{{At: now.Add(-5 * time.Minute), Rooms: 3, Users: 40}, {At: now.Add(-4 * time.Minute), Rooms: 4, Users: 41}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}
