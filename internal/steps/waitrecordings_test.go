package steps_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/testsuite"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// closed is the time at which the rooms of these tests are destroyed.
var closed = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	day    = 24 * time.Hour
	taskID = "YZ4joOE4IwmFAAAT"
	room   = "Zimmer/7 a_b é.."
)

// fileID returns the name of a recording that begins the given minutes before the room closes.
func fileID(task string, minutes int) string {
	return fmt.Sprintf("%s_%s_u_1_s_A_%s000.aac", task, room, closed.Add(-time.Duration(minutes)*time.Minute).Format("20060102150405"))
}

// world is a session with its ledger, buckets and task.
type world struct {
	t *testing.T
	*steps.Recordings
	ledger *ledger.Ledger
	task   activities.Task
	other  string // the folder of another session
}

func newWorld(t *testing.T, databaseURL string) *world {
	t.Helper()
	l := openLedger(t, databaseURL)
	prefix, err := recordings.ParsePrefix("zego/")
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: memblob.OpenBucket(nil),
		Finding: steps.Finding{Ledger: l, Prefix: prefix, Rules: recordings.Rules{Grace: 2 * time.Minute, Stable: 10 * time.Minute, Poll: 10 * time.Second, Deadline: 72 * time.Hour}}},
		l, activities.Task{Session: session.Session{ID: session.ID{AppID: 7, RoomSessionID: 858012925204410417}, RoomID: room, RoomCloseTime: closed}, IdempotencyKey: uuid.New()},
		"none"}
}

// callback records a recording callback about a task.
func (w *world) callback(task string, event zego.RecordingEvent, sequence uint64, after time.Duration, files ...zego.RecordedFile) {
	w.t.Helper()
	u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{AppID: 7, Timestamp: closed.Add(after).Unix()}, TaskID: task, RoomID: room, EventType: event, Sequence: sequence, Files: files}, time.Now())
	if err := w.ledger.Record(w.t.Context(), []ledger.Event{u}); err != nil {
		w.t.Fatal(err)
	}
}

// created records the room_create of a session that begins the given time before closed.
func (w *world) created(number uint64, before time.Duration) {
	w.t.Helper()
	if err := w.ledger.Record(w.t.Context(), []ledger.Event{{ID: session.ID{AppID: 7, RoomSessionID: number}, RoomID: room, Event: zego.EventRoomCreate, Create: closed.Add(-before), SeenAt: time.Now()}}); err != nil {
		w.t.Fatal(err)
	}
}

func file(name string, status zego.FileStatus, url string) zego.RecordedFile {
	f := zego.RecordedFile{FileID: name, URL: url, Status: status, Size: 5, Duration: time.Second, UserID: "u_1", StreamID: "s", MediaTrackType: 1}
	if parts, ok := zego.ParseFileName(name); ok {
		f.Begin = parts.Begin
	}
	return f
}

// run runs the step as if it had waited for the given time.
func (w *world) run(waited time.Duration, note ...string) (activities.Archived, error) {
	w.t.Helper()
	task := w.task
	if waited > 0 {
		task.Waited = &activities.Waited{Since: closed, Now: closed.Add(waited), Times: 3, Note: strings.Join(note, "")}
	}
	var env testsuite.WorkflowTestSuite
	e := env.NewTestActivityEnvironment()
	e.RegisterActivity(w.ArchiveRecordings)
	value, err := e.ExecuteActivity(w.ArchiveRecordings, task)
	var done activities.Archived
	if err == nil {
		err = value.Get(&done)
	}
	return done, err
}

// waits fails the test unless the step waits for something that contains the words.
func (w *world) waits(waited time.Duration, words ...string) *activities.Waiting {
	w.t.Helper()
	done, err := w.run(waited)
	if err != nil || done.Waiting == nil {
		w.t.Fatalf("after %v: %+v, %v, want it to wait", waited, done, err)
	}
	for _, word := range words {
		if !strings.Contains(done.Waiting.For, word) {
			w.t.Errorf("after %v it waits for %q, want it to name %q", waited, done.Waiting.For, word)
		}
	}
	return done.Waiting
}

// blocks fails the test unless the step is blocked by something that contains the words.
func (w *world) blocks(waited time.Duration, words ...string) {
	w.t.Helper()
	done, err := w.run(waited)
	if !activities.IsBlocked(err) {
		w.t.Fatalf("after %v: %+v, %v, want it blocked", waited, done, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.t.Errorf("after %v: %v, want it to name %q", waited, err, word)
		}
	}
}

// archives fails the test unless the step archives exactly the named files, and nothing outside the
// session's folder.
func (w *world) archives(waited time.Duration, names ...string) activities.Archived {
	w.t.Helper()
	done, err := w.run(waited)
	if err != nil || done.Waiting != nil {
		w.t.Fatalf("after %v: %+v, %+v, %v, want it done", waited, done, done.Waiting, err)
	}
	var m steps.Manifest
	if err := json.Unmarshal(get(w.t, w.Archive, done.Manifest), &m); err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, f := range m.Files {
		got = append(got, strings.TrimPrefix(f.Name, w.task.Session.Folder()+"recordings/"))
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		w.t.Errorf("archived %q, want %q", got, names)
	}
	for list := w.Archive.List(nil); ; {
		object, err := list.Next(w.t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if !strings.HasPrefix(object.Key, w.task.Session.Folder()) && !strings.HasPrefix(object.Key, w.other) {
			w.t.Errorf("%s is outside of the session's folder", object.Key)
		}
	}
	return done
}

func each(t *testing.T, test func(t *testing.T, w *world)) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) { test(t, newWorld(t, databaseURL)) })
}

func TestSessionWithoutRecordingsIsDoneAfterTheGrace(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if pause := w.waits(0, "recordings that begin to show").Pause; pause != 2*time.Minute {
			t.Errorf("it pauses for %v", pause)
		}
		w.callback(taskID, zego.RecordingUploaded, 0, time.Second) // nobody published
		w.archives(2 * time.Minute)
		w.Finding.Ledger = nil // not configured
		w.other = w.task.Session.Folder()
		w.task.Session.RoomSessionID++
		w.archives(0)
	})
}

// A refused recording callback differs from no recording.
func TestRefusedRecordingCallbackBlocksTheStep(t *testing.T) {
	refused := func(w *world, room, task string, after time.Duration) {
		u, ok := ledger.EventOf(&zego.Unreadable{Common: zego.Common{Event: zego.EventRecording, AppID: 7, Timestamp: closed.Add(after).Unix()},
			RoomID: room, TaskID: task, Fault: zego.FieldError{Field: "detail.file_info[0].file_id", Problem: "found a number, want a string"}}, time.Now())
		if err := w.ledger.Record(t.Context(), []ledger.Event{u, u}); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	each(t, func(_ *testing.T, w *world) {
		refused(w, room, taskID, time.Minute)
		w.blocks(3*time.Minute, taskID, "detail.file_info[0].file_id: found a number")
	})
	each(t, func(_ *testing.T, w *world) {
		refused(w, "", "", time.Minute) // in an unknown room
		w.blocks(3*time.Minute, "was refused")
	})
	each(t, func(_ *testing.T, w *world) {
		refused(w, "another room", taskID, time.Minute)
		w.archives(3 * time.Minute)
	})
	each(t, func(_ *testing.T, w *world) {
		w.created(w.task.Session.RoomSessionID, time.Hour)
		refused(w, room, taskID, -2*time.Hour) // before the session began
		w.archives(3 * time.Minute)
	})
}

func TestEarlyRecordingsAreArchivedAfterTheGrace(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/"+name, []byte("sound"))
		put(t, w.Source, "zego/"+strings.TrimSuffix(name, "aac")+"sw", []byte("waves"))
		for range 2 {
			w.callback(taskID, zego.RecordingUploaded, 1, -time.Minute, file(name, zego.FileUploaded, "https://b.s3.example/zego/"+name))
		}
		w.waits(0)
		done := w.archives(2*time.Minute, name, strings.TrimSuffix(name, "aac")+"sw")
		if again := w.archives(day, name, strings.TrimSuffix(name, "aac")+"sw"); again.Bytes != done.Bytes {
			t.Errorf("again %+v", again)
		}
		if left, err := w.ledger.LeftRecordings(t.Context(), closed.Add(day), 9); err != nil || len(left) != 0 {
			t.Errorf("left: %+v, %v", left, err)
		}
		var m steps.Manifest
		if err := json.Unmarshal(get(t, w.Archive, done.Manifest), &m); err != nil {
			t.Fatal(err)
		}
		if f := m.Files[0]; f.TaskID != taskID || f.UserID != "u_1" || f.StreamID != "s" || f.DurationMS != 1000 || f.TrackType != "audio" || !f.BeginTime.Equal(closed.Add(-10*time.Minute)) {
			t.Errorf("manifest %+v", f)
		}
	})
}

func TestLateRecordingsAreWaitedFor(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.created(w.task.Session.RoomSessionID, time.Hour)
		w.callback(taskID, zego.RecordingNoStream, 0, 10*time.Second)
		w.waits(time.Hour, taskID, "may be of this session")
		name := fileID(taskID, 10)
		w.callback(taskID, zego.RecordingUploaded, 2, 2*time.Hour, file(name, zego.FileUploaded, ""))
		if pause := w.waits(3*time.Hour, name, "isn't in the bucket").Pause; pause != 80*time.Second {
			t.Errorf("it pauses for %v", pause)
		}
		put(t, w.Source, "zego/"+name, []byte("soun"))
		w.waits(4*time.Hour, name, "has 4 bytes in the bucket and 5 by ZEGO's word")
		put(t, w.Source, "zego/"+name, []byte("sound"))
		w.archives(5*time.Hour, name)
	})
}

func TestMissingRecordingsBlockTheStep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		other := "ZZZZZZZZZZZZZZZZ"
		w.callback(taskID, zego.RecordingUploading, 0, 10*time.Second)
		w.callback(other, zego.RecordingUploaded, 0, time.Minute, file(fileID(other, 5), zego.FileUploaded, ""), file(fileID(other, 4), 9, ""))
		w.waits(71 * time.Hour)
		w.blocks(72*time.Hour, "after 72h0m0s", taskID, fileID(other, 5), fileID(other, 4)+", which has the unknown status 9")
		// An operator may assign a task to another session, or to none.
		for _, id := range []string{taskID, other} {
			if err := w.ledger.AssignRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: 0}, id); err != nil {
				t.Fatal(err)
			}
		}
		w.archives(72 * time.Hour)
	})
}

// The app that started a task announces its session before any callback. The announcement counts,
// whatever room the callbacks name.
func TestAnnouncedRecordingIsWaitedFor(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if err := w.ledger.AnnounceRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: w.task.Session.RoomSessionID}, taskID); err != nil {
			t.Fatal(err)
		}
		w.waits(3*time.Minute, taskID)
		w.callback(taskID, zego.RecordingNoStream, 0, 10*time.Second)
		w.waits(time.Hour, taskID)
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/"+name, []byte("sound"))
		w.callback(taskID, zego.RecordingUploaded, 1, time.Hour, file(name, zego.FileUploaded, ""))
		w.archives(2*time.Hour, name)
	})
}

func TestAmbiguousRecordingWaitsForAnOperator(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.created(1, 2*time.Hour) // its end is unknown
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/"+name, []byte("sound"))
		w.callback(taskID, zego.RecordingUploaded, 0, time.Minute, file(name, zego.FileUploaded, ""))
		w.waits(time.Minute)
		w.blocks(2*time.Minute, taskID, "1 or 858012925204410417")
		if err := w.ledger.AssignRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: w.task.Session.RoomSessionID}, taskID); err != nil {
			t.Fatal(err)
		}
		w.archives(3*time.Minute, name)
	})
}

func TestEachSessionOfARoomGetsItsOwnRecordings(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		earlier := *w
		earlier.task.Session.RoomSessionID, earlier.task.Session.RoomCloseTime = 1, closed.Add(-time.Hour)
		for i, minutes := range []int{90, 10} {
			id := strings.Repeat(string(rune('A'+i)), 16)
			put(t, w.Source, "zego/"+fileID(id, minutes), []byte("sound"))
			w.callback(id, zego.RecordingUploaded, 0, time.Minute, file(fileID(id, minutes), zego.FileUploaded, ""))
		}
		earlier.other = w.task.Session.Folder()
		earlier.waits(0) // records the end of the earlier session
		w.archives(2*time.Minute, fileID("BBBBBBBBBBBBBBBB", 10))
		earlier.archives(2*time.Minute, fileID("AAAAAAAAAAAAAAAA", 90))
	})
}

func TestExpiringFilesAreSavedFirst(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		gone := false
		backup := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if gone || r.URL.Query().Get("key") != "hunter2" {
				http.Error(rw, "gone", http.StatusNotFound)
				return
			}
			http.ServeContent(rw, r, "", closed, strings.NewReader("sound"))
		}))
		defer backup.Close()
		w.Options = archive.Options{Client: backup.Client()}
		saved, late, never := fileID(taskID, 10), fileID("ZZZZZZZZZZZZZZZZ", 9), fileID(taskID, 8)
		w.callback("ZZZZZZZZZZZZZZZZ", zego.RecordingUploading, 0, 10*time.Second)
		w.callback(taskID, zego.RecordingUploaded, 0, 0, file(saved, zego.FileInBackup, backup.URL+"/x?key=wrong"), file(never, zego.FileFailed, ""))
		if what := w.waits(60*time.Hour, saved, "not saved yet", "1 in ZEGO's backup storage, for 12 h more").For; strings.Contains(what, "wrong") {
			t.Errorf("it shows a secret: %s", what)
		}
		w.callback(taskID, zego.RecordingUploaded, 1, time.Hour, file(saved, zego.FileInBackup, backup.URL+"/x?key=hunter2"), file(never, zego.FileFailed, ""))
		if what := w.waits(61*time.Hour, "ZZZZZZZZZZZZZZZZ").For; strings.Contains(what, "backup") {
			t.Errorf("after it was saved: %s", what)
		}
		gone = true
		put(t, w.Source, "zego/"+late, []byte("sound"))
		w.callback("ZZZZZZZZZZZZZZZZ", zego.RecordingUploaded, 1, 70*time.Hour, file(late, zego.FileUploaded, ""))
		done := w.archives(70*time.Hour, saved, late)
		if !slices.Equal(done.Lost, []string{never}) || !strings.Contains(done.String(), "1 lost ("+never+")") {
			t.Errorf("result %v, lost %v", done, done.Lost)
		}
	})
}

func TestExpiredFilesBlockTheStep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		backup := httptest.NewTLSServer(http.NotFoundHandler())
		defer backup.Close()
		w.Options = archive.Options{Client: backup.Client()}
		w.Finding.Deadline = 200 * time.Hour
		w.callback(taskID, zego.RecordingUploaded, 0, 0, file(fileID(taskID, 1), zego.FileInBackup, backup.URL+"/x"))
		w.waits(71*time.Hour, "for 1 h more")
		w.blocks(73*time.Hour, fileID(taskID, 1), "2026-11-26T12:00:00Z", "404")
	})
}

// keeping starts a fake of ZEGO's backup storage. It has a file at /x, and not found at all other
// paths.
func (w *world) keeping() *httptest.Server {
	backup := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x" {
			http.NotFound(rw, r)
			return
		}
		http.ServeContent(rw, r, "", closed, strings.NewReader("sound"))
	}))
	w.t.Cleanup(backup.Close)
	w.Options = archive.Options{Client: backup.Client(), Transfers: 1}
	return backup
}

// saved fails the test unless that many files of a task are saved.
func (w *world) saved(task string, want int) {
	w.t.Helper()
	t, err := w.ledger.RecordingTask(w.t.Context(), 7, task)
	if err != nil {
		w.t.Fatal(err)
	}
	got := 0
	for _, f := range t.Files {
		if f.Saved != "" {
			got++
		}
	}
	if got != want {
		w.t.Errorf("%d files of task %s are saved, want %d", got, task, want)
	}
}

// The fault that keeps ZEGO from uploading may also keep the step from reading the bucket, for
// longer than ZEGO keeps the files.
func TestExpiringFilesAreSavedWhileTheBucketIsUnavailable(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		backup := w.keeping()
		w.callback(taskID, zego.RecordingUploaded, 0, 0, file(fileID(taskID, 1), zego.FileInBackup, backup.URL+"/x"))
		_ = w.Source.Close()
		if done, err := w.run(time.Hour); err == nil {
			t.Fatalf("%+v, want an error of the bucket", done)
		}
		w.saved(taskID, 1)
		w.Source = memblob.OpenBucket(nil)
		w.archives(80*time.Hour, fileID(taskID, 1))
	})
}

// Any number of files may fail to be saved, for any reason.
func TestFailedSaveDelaysNoOther(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		backup := w.keeping()
		var files []zego.RecordedFile
		for i := range 8 {
			files = append(files, file(fileID(taskID, 30-i), zego.FileInBackup, backup.URL+"/gone"))
		}
		bad, good := fileID(taskID, 20), fileID(taskID, 1)
		files = append(files, file(bad, zego.FileInBackup, "http://example.com/x"), file(good, zego.FileInBackup, backup.URL+"/x"))
		w.callback(taskID, zego.RecordingUploaded, 0, 0, files...)

		// A blocked step doesn't try again, so this one waits. Each file reports only its own
		// fault.
		what := w.waits(time.Hour, bad, "not a URL with the scheme https", "404", "9 in ZEGO's backup storage, for 71 h more").For
		if strings.Count(what, "example.com") != 1 {
			t.Errorf("it waits for %s", what)
		}
		w.saved(taskID, 1)
		w.blocks(72*time.Hour, "until 2026-11-26T12:00:00Z", "404")
	})
}

func TestBlockedStepSaysHowLongZEGOKeepsFiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.created(1, 2*time.Hour) // its end is unknown
		w.callback(taskID, zego.RecordingUploaded, 0, 0, file(fileID(taskID, 10), zego.FileInBackup, w.keeping().URL+"/x"))
		w.blocks(2*time.Minute, "1 or 858012925204410417", "1 in ZEGO's backup storage, for 71 h more")
	})
}

// A file in a session's folder is the session's, unless its task is assigned to another.
func TestAssignmentOutranksFolder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const other = 5
		w.created(other, 2*time.Hour)
		folder := w.task.Session.Folder()
		var names []string
		for i, by := range []string{"PPPPPPPPPPPPPPPP", "NNNNNNNNNNNNNNNN"} {
			names = append(names, fileID(by, 10+i))
			put(t, w.Source, folder+names[i], []byte("sound"))
			u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{AppID: 7, Timestamp: closed.Unix()}, TaskID: by, RoomID: room, EventType: zego.RecordingUploaded,
				Files: []zego.RecordedFile{file(names[i], zego.FileUploaded, "https://b.example/"+folder+names[i])}}, time.Now())
			if err := w.ledger.Record(t.Context(), []ledger.Event{u}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.ledger.AssignRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: other}, "PPPPPPPPPPPPPPPP"); err != nil {
			t.Fatal(err)
		}
		w.archives(2*time.Minute, names[1])
		w.other = folder
		w.task.Session.RoomSessionID, w.task.Session.RoomCloseTime = other, closed.Add(-time.Hour)
		w.archives(2*time.Minute, names[0])
	})
}

// The step doesn't wait for a task that is assigned to no session, but it still archives the task's
// files in the session's folder.
func TestTaskAssignedToNoSessionLeavesNoFiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		name := fileID(taskID, 10)
		put(t, w.Source, w.task.Session.Folder()+name, []byte("sound"))
		w.callback(taskID, zego.RecordingUploaded, 0, 0, file(name, zego.FileUploaded, ""))
		if err := w.ledger.AssignRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: 0}, taskID); err != nil {
			t.Fatal(err)
		}
		first := w.waits(2*time.Minute, "files in the bucket to stay unchanged: 1")
		done, err := w.run(12*time.Minute, first.Note)
		if err != nil || done.Waiting != nil || done.Files != 1 {
			t.Fatalf("got %+v, %v", done, err)
		}
		if n := w.left(); n != 0 {
			t.Errorf("%d tasks are left, although their files are archived", n)
		}
	})
}

func TestFilesAreFoundInFoldersBelowThePrefix(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.created(5, 2*time.Hour)
		if err := w.ledger.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 7, RoomSessionID: w.task.Session.RoomSessionID}, RoomID: room, Event: zego.EventRoomCreate, Create: closed.Add(-time.Hour), SeenAt: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		var err error
		if w.Finding.Prefix, err = recordings.ParsePrefix("/"); err != nil {
			t.Fatal(err)
		}
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/2026-11/"+name, []byte("sound"))
		put(t, w.Source, "zego/7/5/"+fileID("ZZZZZZZZZZZZZZZZ", 9), []byte("of another session, by its folder"))
		put(t, w.Source, "kept/7/858012925204410417/recordings/"+name, []byte("an archive's"))
		first := w.waits(2*time.Minute, "files in the bucket to stay unchanged: 1")
		done, err := w.run(12*time.Minute, first.Note)
		if err != nil || done.Waiting != nil || done.Files != 1 {
			t.Fatalf("got %+v, %v", done, err)
		}
		var m steps.Manifest
		if err := json.Unmarshal(get(t, w.Archive, done.Manifest), &m); err != nil {
			t.Fatal(err)
		}
		if f := m.Files[0]; f.Source != "zego/2026-11/"+name || f.TaskID != taskID || !f.BeginTime.Equal(closed.Add(-10*time.Minute)) {
			t.Errorf("manifest %+v", f)
		}
	})
}

func TestBucketIsWatchedWithoutCallbacks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/"+name, []byte("sound"))
		put(t, w.Source, "7/858012925204410417/by/hand.mp4", []byte("sound"))
		put(t, w.Source, "zego/"+strings.Replace(name, room, "Zimmer", 1), []byte("of another room"))
		put(t, w.Source, "zego/"+fileID("ZZZZZZZZZZZZZZZZ", -5), []byte("of the next session"))
		put(t, w.Source, "zego/notes.txt", []byte("whatever"))
		first := w.waits(2*time.Minute, "files in the bucket to stay unchanged: 2")
		if first.Pause != 10*time.Minute {
			t.Errorf("it pauses for %v", first.Pause)
		}
		put(t, w.Source, "zego/"+fileID(taskID, 9), []byte("sound"))
		if done, err := w.run(12*time.Minute, first.Note); err != nil || done.Waiting == nil || done.Waiting.Note == first.Note {
			t.Fatalf("with another file: %+v, %v", done.Waiting, err)
		}
		second := w.waits(12 * time.Minute)
		if done, err := w.run(22*time.Minute, second.Note); err != nil || done.Waiting != nil || done.Files != 3 {
			t.Errorf("got %+v, %v", done, err)
		}
	})
}

// The name fits the room "a_b", and the room "a" with the user "b".
func TestNameOfTwoRoomsBlocksTheStep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		name := fileID(taskID, 10)
		put(t, w.Source, "zego/"+name, []byte("sound"))
		other := strings.TrimSuffix(room, "_b é..") // the part before "_b"
		if err := w.ledger.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 7, RoomSessionID: 5}, RoomID: other, Event: zego.EventRoomCreate, Create: closed.Add(-time.Hour), SeenAt: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		w.blocks(2*time.Minute, "zego/"+name, "5 or 858012925204410417")
	})
}
