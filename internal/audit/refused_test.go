package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego"
)

func TestReportListsRefusedCallbacks(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		sent := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		u, ok := ledger.EventOf(&zego.Unreadable{Common: zego.Common{Event: zego.EventRoomClose, AppID: 7, Timestamp: sent.Unix()}, RoomID: "lobby\nNo faults.",
			Fault: zego.FieldError{Field: "room_session_id", Problem: "want an id, not 0"}}, time.Now())
		if !ok {
			t.Fatal("it says nothing")
		}
		if err := w.ledger.Record(t.Context(), []ledger.Event{u}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{"all": 1, "later": 0} {
			o := w.options
			if name == "later" {
				o.Since = sent.Add(time.Hour)
			}
			report, err := audit.Run(t.Context(), o)
			if err != nil || len(report.Refused) != want {
				t.Fatalf("%s: %+v, %v", name, report, err)
			}
			var text strings.Builder
			if err := report.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			line := "A genuine callback of app 7 was refused, the last at 2026-11-23T12:00:00Z: room_close of room lobby\\u000aNo faults.: room_session_id: want an id, not 0\n"
			if got := strings.Count(text.String(), line); got != want {
				t.Errorf("%s: %d of %q in\n%s", name, got, line, &text)
			}
		}
	})
}
