package closeout_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

func TestAssignRecordingAnnouncesATask(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	s := session.ID{AppID: 7, RoomSessionID: 1<<64 - 1}
	for range 2 {
		if err := closeout.AssignRecording(t.Context(), url, s, "YZ4joOE4IwmFAAAT"); err != nil {
			t.Fatal(err)
		}
	}
	books, err := ledger.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	got, err := books.RecordingTask(t.Context(), 7, "YZ4joOE4IwmFAAAT")
	if err != nil || got.RoomSessionID != s.RoomSessionID || !got.Announced {
		t.Errorf("%+v, %v", got, err)
	}
	if err := books.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: 7, RoomSessionID: s.RoomSessionID}}, []ledger.RecordingTask{got}); err != nil {
		t.Fatal(err)
	}
	if err := closeout.AssignRecording(t.Context(), url, session.ID{AppID: 7, RoomSessionID: 5}, "YZ4joOE4IwmFAAAT"); !errors.Is(err, ledger.ErrRecordingArchived) {
		t.Errorf("assigned to another session: %v", err)
	}
	if err := closeout.AssignRecording(t.Context(), "nowhere:", s, "YZ4joOE4IwmFAAAT"); err == nil {
		t.Error("no error for a database that can't be")
	}
}
