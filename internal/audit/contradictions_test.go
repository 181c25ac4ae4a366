package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// A session with contradicting room_close callbacks is a fault, even if its bill and run are in
// order. It is one fault, however many such callbacks came.
func TestContradictingCloseIsAFault(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		seen := time.Now()
		of := func(number uint64, room string) ledger.Event {
			return ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: room, Event: zego.EventRoomClose, Close: time.UnixMilli(1499676989910), SeenAt: seen}
		}
		for _, u := range []ledger.Event{of(7, "attic"), of(7, "cellar"), of(1<<63|8, "attic\nroom-close-1-9: lost")} {
			if err := w.ledger.Record(t.Context(), []ledger.Event{u, u}); err != nil {
				t.Fatal(err)
			}
		}
		run := func(change func(*audit.Options)) (found []audit.Fault) {
			o := w.options
			change(&o)
			report, err := audit.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range report.Faults {
				if f.Kind == audit.Contradicted {
					found = append(found, f)
				}
			}
			return found
		}
		found := run(func(*audit.Options) {})
		if len(found) != 2 || found[0].WorkflowID != "room-close-1-7" || !strings.Contains(found[0].Problem, `room "attic" closed at 2017-07-10T08:56:29.91Z`) ||
			found[1].WorkflowID != "room-close-1-9223372036854775816" || strings.Contains(found[1].Problem, "\n") {
			t.Errorf("faults %+v", found)
		}
		if found := run(func(o *audit.Options) { o.Since = seen.Add(time.Minute) }); len(found) != 0 {
			t.Errorf("of later: %+v", found)
		}
		if found := run(func(o *audit.Options) { o.Until = seen.Add(-time.Minute) }); len(found) != 0 {
			t.Errorf("of earlier: %+v", found)
		}
	})
}
