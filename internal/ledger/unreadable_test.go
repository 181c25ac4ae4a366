package ledger_test

import (
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/zego"
)

func TestRefusedCallbackIsStoredOnce(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		sent := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		refused := func(event, task string, after time.Duration, problem string) ledger.Event {
			u, ok := ledger.EventOf(&zego.Unreadable{Common: zego.Common{Event: event, AppID: 7, Timestamp: sent.Add(after).Unix()}, RoomID: "r", TaskID: task,
				Fault: zego.FieldError{Field: "f", Problem: problem}}, time.Now())
			if !ok {
				t.Fatal("EventOf returned no event")
			}
			return u
		}
		for range 2 {
			if err := l.Record(t.Context(), []ledger.Event{refused("recording", "T", 5*time.Second, "later"), refused("recording", "T", 0, "first"), refused("room_close", "", time.Second, "x")}); err != nil {
				t.Fatal(err)
			}
		}
		all, err := l.UnreadableSince(t.Context(), sent, 10)
		if err != nil || len(all) != 2 || all[0].Problem != "later" || all[0].TaskID != "T" || !all[0].Last.Equal(sent.Add(5*time.Second)) || all[1].Event != "room_close" {
			t.Errorf("%+v, %v", all, err)
		}
		if all, err := l.UnreadableSince(t.Context(), sent.Add(6*time.Second), 10); err != nil || len(all) != 0 {
			t.Errorf("since a later time: %+v, %v", all, err)
		}
		// A readable callback of the same task replaces the refused one.
		u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{Event: zego.EventRecording, AppID: 7, Timestamp: sent.Unix()}, TaskID: "T", RoomID: "r",
			EventType: zego.RecordingUploaded, Files: []zego.RecordedFile{{FileID: "f", Status: zego.FileUploaded}}}, time.Now())
		if all, err := l.UnreadableRecordings(t.Context(), 7, "r", sent); err != nil || len(all) != 1 {
			t.Errorf("in the room: %+v, %v", all, err)
		}
		if err := l.Record(t.Context(), []ledger.Event{u}); err != nil {
			t.Fatal(err)
		}
		if all, err := l.UnreadableRecordings(t.Context(), 7, "r", sent); err != nil || len(all) != 0 {
			t.Errorf("after another callback: %+v, %v", all, err)
		}
	})
}
