package service

import (
	"testing"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Without a ledger, readiness reports refused genuine callbacks, and so does doctor. It doesn't
// report other callbacks.
func TestRefusedCallbackIsReportedWithoutALedger(t *testing.T) {
	r := &receiver{}
	h := &health{}
	h.questions.Store(&questions{refused: r.refusals})
	if state, err := h.check(t.Context()); err != nil || state != "ok" {
		t.Fatalf("before any: %q, %v", state, err)
	}
	refused := &zego.Unreadable{Common: zego.Common{Event: zego.EventRoomClose, AppID: 7, Timestamp: 1499676989}, RoomID: "lobby\n",
		Fault: zego.FieldError{Field: "room_close_time", Problem: "missing"}}
	for _, event := range []zego.Event{&zego.RoomLogin{}, &zego.Recording{}, refused, refused} {
		if got, err := r.Receive(t.Context(), event); err != nil || got.Status != webhook.Ignored {
			t.Errorf("%T: %+v, %v", event, got, err)
		}
	}
	want := `degraded: 2 genuine callbacks refused since the start, the last at 2017-07-10T08:56:29Z: room_close of appid 7, room "lobby\n": room_close_time: missing`
	if state, err := h.check(t.Context()); err != nil || state != want {
		t.Errorf("got %q, %v, want %q", state, err, want)
	}
}
