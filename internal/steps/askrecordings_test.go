package steps_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// apiTransport calls a handler without a network.
type apiTransport struct{ http.Handler }

func (p apiTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

// asking is a world whose steps ask ZEGO's API. The room closed five minutes ago.
type asking struct {
	*world
	api    *zegofake.API
	closed time.Time
}

func newAsking(t *testing.T, w *world) *asking {
	t.Helper()
	a := &asking{w, zegofake.New(7, "server secret"), time.Now().UTC().Truncate(time.Second).Add(-5 * time.Minute)}
	client, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{7: {"server secret"}})
	if err != nil {
		t.Fatal(err)
	}
	client.HTTP.Transport = apiTransport{a.api}
	w.Finding.API, w.task.Session.RoomCloseTime = client, a.closed
	return a
}

// name returns the name of a file whose recording begins the given minutes before the room closes.
func (a *asking) name(task string, minutes int) string {
	return fmt.Sprintf("%s_%s_u_1_s_A_%s000.aac", task, room, a.closed.Add(-time.Duration(minutes)*time.Minute).Format("20060102150405"))
}

func (a *asking) task(id string, status int, files ...zegofake.File) zegofake.Task {
	t := zegofake.Task{TaskID: id, RoomID: room, Status: status, Begin: a.closed.Add(-10 * time.Minute), Files: files}
	if status == 3 || status == 4 {
		t.End = a.closed
	}
	return t
}

func (a *asking) file(name string, status int) zegofake.File {
	parts, _ := zego.ParseFileName(name)
	return zegofake.File{ID: name, Format: "aac", UserID: "u_1", StreamID: "s", Size: 5, Duration: time.Second, Begin: parts.Begin, Status: status}
}

// run runs the step at the current time, as if it had waited for the given time.
func (a *asking) run(waited time.Duration) (activities.Archived, error) {
	a.t.Helper()
	task := a.world.task
	if waited > 0 {
		task.Waited = &activities.Waited{Since: time.Now().Add(-waited), Now: time.Now(), Times: 3}
	}
	var env testsuite.WorkflowTestSuite
	e := env.NewTestActivityEnvironment()
	e.RegisterActivity(a.ArchiveRecordings)
	value, err := e.ExecuteActivity(a.ArchiveRecordings, task)
	var done activities.Archived
	if err == nil {
		err = value.Get(&done)
	}
	return done, err
}

func (a *asking) waits(waited time.Duration, words string) {
	a.t.Helper()
	if done, err := a.run(waited); err != nil || done.Waiting == nil || !strings.Contains(done.Waiting.For, words) {
		a.t.Errorf("after %v: %+v, %v, want it to wait for %q", waited, done.Waiting, err, words)
	}
}

func (a *asking) archives(waited time.Duration, files int) {
	a.t.Helper()
	if done, err := a.run(waited); err != nil || done.Waiting != nil || done.Files != files {
		a.t.Errorf("after %v: %+v, %v, want %d files", waited, done, err, files)
	}
}

func TestSessionWithoutRecordingDoesNotWaitIfZEGOIsAsked(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := newAsking(t, w)
		other := a.task("OOOOOOOOOOOOOOOO", 3)
		other.RoomID = "another"
		a.api.Tasks(7, other)
		a.archives(0, 0)
	})
}

// While ZEGO returns errors, or the app has no server secret, the step behaves as if there were no
// API.
func TestCallbacksCountWithoutAnAnswer(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := newAsking(t, w)
		for name, failure := range map[string]zegofake.Failure{"limited": {Code: 300000003}, "too many": {Status: 429, Body: "slow down"}, "broken": {Status: 500, Body: "x"},
			"no recording service": {Code: 300000002}} {
			a.api.Fail(func(url.Values) *zegofake.Failure { return &failure })
			if done, err := a.run(0); err != nil || done.Waiting == nil || !strings.Contains(done.Waiting.For, "begin to show") {
				t.Errorf("%s: %+v, %v", name, done, err)
			}
		}
		calls := len(a.api.Calls(""))
		w.task.Session.AppID = 8 // this app has no server secret
		a.waits(0, "begin to show")
		a.archives(3*time.Minute, 0)
		if len(a.api.Calls("")) != calls {
			t.Error("ZEGO was asked about an app without a server secret")
		}
	})
}

func TestRecordingsAreFoundWhenAllCallbacksAreLost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := newAsking(t, w)
		first, second := a.name(taskID, 10), a.name(taskID, 5)
		a.api.Tasks(7, a.task(taskID, 2, a.file(first, 1)))
		a.waits(0, taskID)
		calls := len(a.api.Calls(""))
		a.waits(time.Minute, taskID) // callbacks may still come within the grace period
		if len(a.api.Calls("")) != calls {
			t.Error("ZEGO was asked within the grace period")
		}
		a.api.Tasks(7, a.task(taskID, 3, a.file(first, 3), a.file(second, 2)))
		a.waits(3*time.Minute, taskID)
		a.api.Tasks(7, a.task(taskID, 3, a.file(first, 3), a.file(second, 3)))
		a.waits(4*time.Minute, "isn't in the bucket")
		put(t, a.Source, "zego/"+first, []byte("sound"))
		put(t, a.Source, "zego/"+second, []byte("sound"))
		a.archives(5*time.Minute, 2)
	})
}

func TestFileLostByZEGOIsNamed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := newAsking(t, w)
		a.api.Tasks(7, a.task(taskID, 4, a.file(a.name(taskID, 10), 5)), a.task("NNNNNNNNNNNNNNNN", 3)) // nobody published in the second
		done, err := a.run(3 * time.Minute)
		if err != nil || done.LostFiles != 1 || done.Files != 0 {
			t.Errorf("%+v, %v", done, err)
		}
	})
}

// A file that ZEGO keeps for three days is saved before the step waits for missing files.
func TestFileInBackupStorageIsSavedFirst(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := newAsking(t, w)
		backup, missing := a.file(a.name(taskID, 10), 4), a.file(a.name("MMMMMMMMMMMMMMMM", 8), 3)
		storage := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("sound")) }))
		defer storage.Close()
		backup.URL, w.Options = storage.URL+"/x", archive.Options{Client: storage.Client()}
		a.api.Tasks(7, a.task("MMMMMMMMMMMMMMMM", 3, missing), a.task(taskID, 3, backup))
		a.waits(3*time.Minute, "isn't in the bucket")
		task, err := w.ledger.RecordingTask(t.Context(), 7, taskID)
		if err != nil || len(task.Files) != 1 || task.Files[0].Saved == "" {
			t.Errorf("%+v, %v, want it saved", task, err)
		}
		put(t, a.Source, "zego/"+missing.ID, []byte("sound"))
		a.archives(4*time.Minute, 2)
	})
}
