package webhook_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// signedLogout returns a genuine room_logout.
func signedLogout() string {
	return strings.TrimSuffix(signedOther(zego.EventRoomLogout), "}") +
		`,"room_id":"r","room_seq":"858012925204410417","user_account":"u","session_id":"1","login_time":"1499676989909","logout_time":"1499676999909","reason":"0"}`
}

func TestSessionCallbacksAreReceived(t *testing.T) {
	tests := []struct {
		name     string
		receipt  webhook.Receipt
		err      error
		status   int
		contains string
		outcome  string
	}{
		{"stored", webhook.Receipt{Status: webhook.Stored}, nil, 200, `{"status":"stored"}`, "room_logout:stored"},
		{"queued", webhook.Receipt{Status: webhook.Queued}, nil, 200, `{"status":"queued"}`, "room_logout:queued"},
		{"neither", webhook.Receipt{}, errors.New("disk full"), 503, "Try again", "room_logout:unavailable"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got zego.Event
			b := newBundle(t, started, func(o *webhook.Options) {
				o.Receiver = receiver(func(_ context.Context, event zego.Event) (webhook.Receipt, error) {
					got = event
					return test.receipt, test.err
				})
			})
			w := b.post(signedLogout())
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.contains) {
				t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, test.status, test.contains)
			}
			if logout, ok := got.(*zego.RoomLogout); !ok || logout.RoomSessionID != 858012925204410417 {
				t.Errorf("received %+v, want the room_logout", got)
			}
			if outcomes := strings.Join(b.outcomes, ","); outcomes != test.outcome {
				t.Errorf("observed %q, want %q", outcomes, test.outcome)
			}
		})
	}
}

func TestIgnoredCallbackIsAnsweredIgnored(t *testing.T) {
	b := newBundle(t, started)
	if w := b.post(signedLogout()); w.Code != 200 || !strings.Contains(w.Body.String(), `"ignored"`) {
		t.Errorf("got %d %s, want it ignored", w.Code, w.Body)
	}
	if outcomes := strings.Join(b.outcomes, ","); outcomes != "room_logout:ignored" {
		t.Errorf("observed %q", outcomes)
	}
}

func TestRecordingCallbackIsReceived(t *testing.T) {
	var got zego.Event
	b := newBundle(t, started, func(o *webhook.Options) {
		o.Receiver = receiver(func(_ context.Context, event zego.Event) (webhook.Receipt, error) {
			got = event
			return webhook.Receipt{Status: webhook.Stored}, nil
		})
	})
	body := `{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":5,"timestamp":"1499676989","nonce":"1","sequence":2,"detail":{},"signature":"`
	if w := b.post(body + zego.Sign("another", now.Unix(), "1") + `"}`); w.Code != 401 || got != nil {
		t.Errorf("one that isn't genuine: %d %s, received %+v", w.Code, w.Body, got)
	}
	if w := b.post(body + zego.Sign("secret", now.Unix(), "1") + `"}`); w.Code != 200 || !strings.Contains(w.Body.String(), `{"status":"stored"}`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if r, ok := got.(*zego.Recording); !ok || r.TaskID != "YZ4joOE4IwmFAAAT" {
		t.Errorf("received %+v", got)
	}
	if outcomes := strings.Join(b.outcomes, ","); outcomes != ":bad_signature,recording:stored" {
		t.Errorf("observed %q", outcomes)
	}
	if log := b.log.String(); !strings.Contains(log, `"task_id":"YZ4joOE4IwmFAAAT","event_type":5`) {
		t.Errorf("logged %s", log)
	}
}

// A genuine callback that can't be read is passed to the receiver, which records it. A
// forged one isn't.
func TestUnreadableGenuineCallbackIsReceived(t *testing.T) {
	var got []zego.Event
	b := newBundle(t, started, func(o *webhook.Options) {
		o.Receiver = receiver(func(_ context.Context, event zego.Event) (webhook.Receipt, error) {
			got = append(got, event)
			return webhook.Receipt{}, errors.New("disk full")
		})
	})
	body := func(secret string) string {
		return `{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":1,"timestamp":"1499676989","nonce":"1","detail":{"file_info":[{}]},"signature":"` +
			zego.Sign(secret, now.Unix(), "1") + `"}`
	}
	if w := b.post(body("guess")); w.Code != 401 || len(got) != 0 {
		t.Errorf("forged: %d, %v", w.Code, got)
	}
	if w := b.post(body("secret")); w.Code != 400 || len(got) != 1 {
		t.Fatalf("genuine: %d, %v", w.Code, got)
	}
	u, ok := got[0].(*zego.Unreadable)
	if !ok || u.Event != zego.EventRecording || u.AppID != 1 || u.RoomID != "r" || u.TaskID != "YZ4joOE4IwmFAAAT" || u.Fault.Field != "detail.file_info[0].file_id" {
		t.Errorf("received %+v", got[0])
	}
	if !strings.Contains(b.log.String(), "disk full") {
		t.Errorf("that it wasn't kept isn't logged: %s", b.log.String())
	}
}
