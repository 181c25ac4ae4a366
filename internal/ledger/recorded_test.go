package ledger_test

import (
	"math"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// An answer of ZEGO's API replaces lost callbacks. A callback that arrives later overrides it.
func TestAnswerReplacesLostCallbacks(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		const app = math.MaxUint32
		answer := func(status serverapi.TaskStatus, wantFound bool, files ...zego.RecordedFile) {
			t.Helper()
			found, err := l.RecordAnswer(t.Context(), app, serverapi.Task{TaskID: "T", RoomID: "lobby", Status: status, Begin: noon.Add(-time.Hour), End: noon.Add(-time.Minute), Files: files})
			if err != nil || found != wantFound {
				t.Errorf("found %v, %v, want %v", found, err, wantFound)
			}
		}
		task := func() ledger.RecordingTask {
			t.Helper()
			task, err := l.RecordingTask(t.Context(), app, "T")
			if err != nil {
				t.Fatal(err)
			}
			return task
		}
		answer(serverapi.TaskRecording, false, file("a", 1), file("b", 2))
		if got := task(); got.Uploaded || len(got.Files) != 0 || !got.First.Equal(noon.Add(-time.Hour)) || got.RoomID != "lobby" {
			t.Errorf("while it records: %+v", got)
		}
		answer(serverapi.TaskEnded, true, file("a", zego.FileInBackup), file("b", 2))
		if got := task(); got.Uploaded || len(got.Files) != 1 || got.Files[0].Status != zego.FileInBackup || !got.Files[0].ReportedAt.Equal(noon.Add(-time.Minute)) {
			t.Errorf("while it is uploaded: %+v", got)
		}
		all := []zego.RecordedFile{file("a", zego.FileInBackup), file("b", zego.FileUploaded)}
		answer(serverapi.TaskEnded, true, all...)
		answer(serverapi.TaskEnded, false, all...)
		if got := task(); !got.Uploaded || !got.Answered || len(got.Files) != 2 {
			t.Errorf("complete: %+v", got)
		}
		if answered, err := l.AnsweredRecordings(t.Context(), app, []string{"S", "T"}); err != nil || len(answered) != 1 || !answered["T"] {
			t.Errorf("answered %v, %v", answered, err)
		}
		if err := l.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: app, RoomSessionID: 1}, RoomID: "lobby", RoomCloseTime: noon}, read(t, l, "T")); err != nil {
			t.Fatal(err)
		}
		answer(serverapi.TaskEnded, false, all...)
		if task().ArchivedAt.IsZero() {
			t.Error("late after a repeated answer")
		}
		// The recorder crashed, and ZEGO reports its second file late.
		answer(serverapi.TaskEnded, true, append(all, file("c", zego.FileUploaded))...)
		late, err := l.LateRecordings(t.Context(), noon, noon.Add(-24*time.Hour), ledger.RecordingTask{}, 10)
		if err != nil || len(late) != 1 || len(late[0].Files) != 3 {
			t.Errorf("late %+v, %v", late, err)
		}
		// An answer doesn't mark an uploaded file as lost. A callback overrides it.
		answer(serverapi.TaskEnded, false, file("b", zego.FileFailed))
		changed := file("b", zego.FileUploaded)
		changed.Size = 77
		if err := l.Record(t.Context(), []ledger.Event{recordingEvent(t, "T", zego.RecordingUploaded, 3, 0, changed)}); err != nil {
			t.Fatal(err)
		}
		if got := task(); got.Files[1].Status != zego.FileUploaded || got.Files[1].Size != 77 || len(got.Files) != 3 {
			t.Errorf("after the callback: %+v", got)
		}
	})
}

func TestTurnsAreApartForAllProcesses(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		one, other := open(t, databaseURL), open(t, databaseURL)
		const pause = 10 * time.Second
		var waits []time.Duration
		for n := range 6 {
			l := one
			if n%2 == 1 {
				l = other
			}
			wait, ok, err := l.Turn(t.Context(), "b", pause, 35*time.Second)
			if err != nil || ok != (n < 4) {
				t.Fatalf("turn %d: %v, %v, %v", n, wait, ok, err)
			}
			if ok {
				waits = append(waits, wait)
			}
		}
		for n, wait := range waits {
			if longest := time.Duration(n) * pause; wait > longest || wait < longest-pause {
				t.Errorf("turn %d waits %v, want about %v", n, wait, longest)
			}
		}
		if _, ok, err := one.Turn(t.Context(), "another", pause, 0); !ok || err != nil {
			t.Errorf("another budget: %v, %v", ok, err)
		}
		if _, ok, err := other.Turn(t.Context(), "another", pause, 0); ok || err != nil {
			t.Errorf("a turn that was taken: %v, %v", ok, err)
		}
		// A clock that was a day ahead has been set back.
		one.Exec(t, "UPDATE turns SET next_at = next_at + 86400000")
		if wait, ok, err := one.Turn(t.Context(), "another", pause, 0); !ok || wait != 0 || err != nil {
			t.Errorf("after a wrong clock: %v, %v, %v", wait, ok, err)
		}
	})
}
