package steps_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// add runs the step for late recordings.
func (w *world) add(waited time.Duration) (activities.Archived, error) {
	w.t.Helper()
	task := w.task
	if waited > 0 {
		task.Waited = &activities.Waited{Since: closed, Now: closed.Add(waited)}
	}
	e := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
	e.RegisterActivity(w.AddRecordings)
	value, err := e.ExecuteActivity(w.AddRecordings, task)
	var done activities.Archived
	if err == nil {
		err = value.Get(&done)
	}
	return done, err
}

// adds fails the test unless the step is done and the manifest of that name has that many files.
func (w *world) adds(manifest string, files int) activities.Archived {
	w.t.Helper()
	done, err := w.add(0)
	if err != nil || done.Waiting != nil || done.Manifest != w.task.Session.Folder()+manifest || done.Files != files {
		w.t.Fatalf("%+v, %+v, %v, want %d files in %s", done, done.Waiting, err, files, manifest)
	}
	return done
}

// left returns the number of tasks without a session.
func (w *world) left() int {
	w.t.Helper()
	tasks, err := w.ledger.LeftRecordings(w.t.Context(), closed.Add(90*day), 9)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(tasks)
}

func (w *world) upload(name string) {
	w.t.Helper()
	put(w.t, w.Source, "zego/"+name, []byte("sound"))
}

func TestRecordingAfterTheManifestIsAdded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.created(w.task.Session.RoomSessionID, time.Hour)
		w.archives(time.Hour)
		w.callback(taskID, zego.RecordingUploaded, 1, 2*time.Hour, file(fileID(taskID, 30), zego.FileUploaded, ""))

		// The callback may arrive before the file, and after the time limit of a step's first
		// attempt.
		if done, err := w.add(0); err != nil || done.Waiting == nil || !strings.Contains(done.Waiting.For, "isn't in the bucket") {
			t.Errorf("%+v, %v, want it to wait", done, err)
		}
		if done, err := w.add(73 * time.Hour); !activities.IsBlocked(err) {
			t.Errorf("%+v, %v, want it blocked", done, err)
		}
		w.upload(fileID(taskID, 30))
		w.adds("manifest-2.json", 1)
		if n := w.left(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
		w.adds("manifest-2.json", 1)

		// The callback reported the upload too early, and the first file is gone.
		if err := w.Source.Delete(t.Context(), "zego/"+fileID(taskID, 30)); err != nil {
			t.Fatal(err)
		}
		w.upload(fileID(taskID, 20))
		w.callback(taskID, zego.RecordingUploaded, 2, 3*time.Hour, file(fileID(taskID, 30), zego.FileUploaded, ""), file(fileID(taskID, 20), zego.FileUploaded, ""))
		if n := w.left(); n != 1 {
			t.Errorf("%d tasks are left, want the one that has another file", n)
		}
		w.adds("manifest-3.json", 2)

		// The step doesn't wait for a resumed recording, which may report more files later.
		w.callback(taskID, zego.RecordingResumed, 3, 4*time.Hour)
		w.adds("manifest-3.json", 2)

		// The session's run may be retried, and finds the archived files.
		if done, err := w.run(0); err != nil || done.Files != 2 {
			t.Errorf("%+v, %v", done, err)
		}
	})
}

// The step notes which recordings it archived after it has written the manifest.
func TestFileReportedWhileItsTaskIsArchivedIsLate(t *testing.T) {
	for name, test := range map[string]func(w *world, report func()){
		"while a file is copied": func(w *world, report func()) {
			w.Observe = func(int64) { report() }
			w.archives(time.Hour, fileID(taskID, 30))
			w.Observe = nil
		},
		"before a repeated attempt finds the manifest": func(w *world, report func()) {
			w.archives(time.Hour, fileID(taskID, 30))
			report()
			if done, err := w.run(0); err != nil || done.Files != 1 {
				w.t.Errorf("%+v, %v", done, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				w.created(w.task.Session.RoomSessionID, time.Hour)
				w.upload(fileID(taskID, 30))
				w.callback(taskID, zego.RecordingUploaded, 1, time.Minute, file(fileID(taskID, 30), zego.FileUploaded, ""))
				test(w, func() {
					w.upload(fileID(taskID, 20))
					w.callback(taskID, zego.RecordingUploaded, 2, time.Minute, file(fileID(taskID, 20), zego.FileUploaded, ""))
				})
				if n := w.left(); n != 1 {
					t.Errorf("%d tasks are left, want the one that has another file", n)
				}
				w.adds("manifest-2.json", 2)
				if n := w.left(); n != 0 {
					t.Errorf("%d tasks are left after that", n)
				}
			})
		})
	}
}

func TestLostRecordingThatArrivesIsNoLongerLost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		found, lost := fileID(taskID, 30), fileID(taskID, 20)
		w.callback(taskID, zego.RecordingUploaded, 1, 0, file(found, zego.FileFailed, ""), file(lost, zego.FileFailed, ""))
		if done := w.archives(time.Hour); len(done.Lost) != 2 {
			t.Errorf("lost %q", done.Lost)
		}
		w.upload(found)
		w.callback(taskID, zego.RecordingUploaded, 2, 2*time.Hour, file(found, zego.FileUploaded, ""), file(lost, zego.FileFailed, ""))
		if done := w.adds("manifest-2.json", 1); !slices.Equal(done.Lost, []string{lost}) {
			t.Errorf("lost %q", done.Lost)
		}
	})
}

// The archived "xa.mp4" ends in "a.mp4", but is another file.
func TestLateFileDiffersFromOneWithItsNameAsSuffix(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		named := func(name string) zego.RecordedFile {
			w.upload(name)
			f := file(name, zego.FileUploaded, "")
			f.Begin = closed.Add(-time.Minute)
			return f
		}
		first := named("xa.mp4")
		w.callback(taskID, zego.RecordingUploaded, 1, 0, first)
		w.archives(time.Hour, "xa.mp4")
		w.callback(taskID, zego.RecordingUploaded, 2, time.Hour, first, named("a.mp4"))
		w.adds("manifest-2.json", 2)
	})
}

func TestAmbiguousLateRecordingBlocksTheStep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const before = 1 // without a room_close
		w.created(before, time.Hour)
		w.archives(time.Hour)
		w.callback(taskID, zego.RecordingUploaded, 1, 2*time.Hour, file(fileID(taskID, 30), zego.FileUploaded, ""))
		w.upload(fileID(taskID, 30))
		if done, err := w.add(0); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "assign it to one") {
			t.Fatalf("%+v, %v, want it blocked", done, err)
		}
		if err := w.ledger.AssignRecording(t.Context(), session.ID{AppID: 7, RoomSessionID: before}, taskID); err != nil {
			t.Fatal(err)
		}
		w.adds("manifest.json", 0)
		if n := w.left(); n != 1 {
			t.Errorf("%d tasks are left, want the other session's", n)
		}
	})
}

func TestLateFileInBackupStorageIsSaved(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.upload(fileID(taskID, 30))
		w.created(w.task.Session.RoomSessionID, time.Hour)
		w.callback(taskID, zego.RecordingUploaded, 1, 0, file(fileID(taskID, 30), zego.FileUploaded, ""))
		w.archives(time.Hour, fileID(taskID, 30))
		backup := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			http.ServeContent(rw, r, "", closed, strings.NewReader("sound"))
		}))
		defer backup.Close()
		late := &steps.Recordings{Source: w.Source, Archive: w.Archive, Finding: w.Finding, Options: archive.Options{Client: backup.Client()}}
		const other = "YZ4joOE4IwmFBBBT"
		w.callback(other, zego.RecordingUploaded, 1, time.Hour, file(fileID(other, 10), zego.FileInBackup, backup.URL+"/x"), file(fileID(other, 5), zego.FileFailed, ""))
		w.Recordings = late // as another worker
		done := w.adds("manifest-2.json", 2)
		if len(done.Lost) != 1 {
			t.Errorf("lost %q", done.Lost)
		}
	})
}

func TestRecordingsAreAddedOnlyToAnExistingArchive(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if done, err := w.add(0); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "manifest.json") {
			t.Errorf("%+v, %v, want it blocked", done, err)
		}
		w.Finding.Ledger = nil
		if done, err := w.add(0); !activities.IsBlocked(err) || !strings.Contains(err.Error(), "CLOSEOUT_RECORDINGS") {
			t.Errorf("%+v, %v, want it blocked", done, err)
		}
	})
}
