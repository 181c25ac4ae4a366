package session_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

func TestParseID(t *testing.T) {
	id := session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}
	if got, err := session.ParseID(id.String()); got != id || err != nil {
		t.Errorf("ParseID(%q) = %v, %v", id.String(), got, err)
	}
	if got, err := session.ParseWorkflowID(id.WorkflowID()); got != id || err != nil {
		t.Errorf("ParseWorkflowID(%q) = %v, %v", id.WorkflowID(), got, err)
	}
	if got := (session.ID{AppID: 1, RoomSessionID: 2}).WorkflowID(); got != "room-close-1-2" {
		t.Errorf("WorkflowID() = %q", got)
	}
	for _, bad := range []string{"", "1", "1-", "-1", "01-2", "1-02", "+1-2", "1-2-3", " 1-2", "4294967296-1", "1-18446744073709551616", "1-x"} {
		if got, err := session.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", bad, got)
		}
		if got, err := session.ParseWorkflowID(session.WorkflowIDPrefix + bad); err == nil {
			t.Errorf("ParseWorkflowID of %q = %v, want an error", bad, got)
		}
	}
	if _, err := session.ParseWorkflowID("1-2"); err == nil {
		t.Error("a Workflow ID without its prefix was parsed")
	}
}

func TestIdempotencyKeysNeverChange(t *testing.T) {
	id := session.ID{AppID: 1, RoomSessionID: math.MaxUint64}
	if got := id.IdempotencyKey("billing").String(); got != "0b0bc6c3-74e8-53a2-b0d9-c03f1b0c6859" {
		t.Errorf("the key of billing is %s", got)
	}
	if id.IdempotencyKey("billing") == (session.ID{AppID: 1, RoomSessionID: 1}).IdempotencyKey("billing") {
		t.Error("two sessions have one key")
	}
}

func TestSessionJSONIsFlatAndExact(t *testing.T) {
	at := time.UnixMilli(1499676989909).UTC()
	s := session.Session{ID: session.ID{AppID: 1, RoomSessionID: math.MaxUint64}, RoomID: "a", CloseReason: "1", RoomCloseTime: at, Settling: session.Duration(90 * time.Second)}
	text, err := json.Marshal(s)
	if want := `{"appid":1,"room_session_id":"18446744073709551615","room_id":"a","close_reason":1,"room_close_time":"2017-07-10T08:56:29.909Z","settling":"1m30s"}`; string(text) != want || err != nil {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	var back session.Session
	if err := json.Unmarshal(text, &back); back != s || err != nil {
		t.Errorf("got %+v back, %v", back, err)
	}
}

func TestCloseReasonInWordsIsKept(t *testing.T) {
	body := `{"event":"room_close","appid":1,"timestamp":1,"nonce":"1","signature":"s","room_id":"r","room_session_id":7,"close_reason":"kicked","room_close_time":"1"}`
	event, err := zego.Parse("", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if s := session.Of(event.(*zego.RoomClose)); s.CloseReason != "kicked" {
		t.Errorf("got %q", s.CloseReason)
	}
}

func TestCloseTimeAfterItsCallbackIsReplaced(t *testing.T) {
	sent := time.Unix(1700000000, 0).UTC()
	close := func(at time.Time) *zego.RoomClose {
		c := &zego.RoomClose{RoomCloseTime: at}
		c.Timestamp = 1700000000
		return c
	}
	for _, tt := range []struct {
		at, want, told time.Time
	}{
		{sent.Add(-time.Hour), sent.Add(-time.Hour), time.Time{}},
		{sent.Add(session.ClockTolerance), sent.Add(session.ClockTolerance), time.Time{}},
		{sent.Add(session.ClockTolerance + time.Millisecond), sent, sent.Add(session.ClockTolerance + time.Millisecond)},
	} {
		if s := session.Of(close(tt.at)); !s.RoomCloseTime.Equal(tt.want) || !s.ReportedCloseTime.Equal(tt.told) {
			t.Errorf("a close at %v: RoomCloseTime %v, ReportedCloseTime %v", tt.at, s.RoomCloseTime, s.ReportedCloseTime)
		}
	}
}
