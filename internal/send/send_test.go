package send_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// sink is a webhook.Receiver that stores what it receives.
type sink struct {
	mu     sync.Mutex
	events []string
}

func (s *sink) Receive(_ context.Context, event zego.Event) (webhook.Receipt, error) {
	if c, ok := event.(*zego.RoomClose); ok {
		return s.add(c, fmt.Sprintf("%s %d %s %s", c.RoomID, c.RoomSessionID, zego.CloseReasonText(c.CloseReason), c.RoomCloseTime.Format(time.RFC3339Nano)))
	}
	return s.add(event, "")
}

func (s *sink) add(event zego.Event, what string) (webhook.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, strings.TrimSpace(event.Head().Event+" "+what))
	return webhook.Receipt{Status: webhook.Started}, nil
}

var closed = zego.RoomClose{Common: zego.Common{AppID: 7}, RoomID: "lobby", RoomSessionID: 1<<63 + 1, CloseReason: "2", RoomCloseTime: time.UnixMilli(1499676989909)}

func TestWebhookAcceptsARoom(t *testing.T) {
	ring, err := zego.NewKeyring(map[uint32][]string{7: {"secret"}}, time.Minute, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	got := &sink{}
	server := httptest.NewServer(webhook.Router(webhook.Options{Keyring: ring, Receiver: got, Log: slog.New(slog.DiscardHandler)}))
	defer server.Close()
	line := ""
	sender := &send.Sender{URL: server.URL + webhook.Path, Secret: "secret", Timeout: 5 * time.Second, Report: func(_, text string) { line = text }}
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	recording, err := send.Record(t.Context(), bucket, closed)
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range send.Events(closed, 2, recording) {
		if err := sender.Send(t.Context(), event); sender.Lost > 0 || err != nil || !strings.HasPrefix(line, "attempt 1: 200 OK") {
			t.Errorf("%s: %d lost, %v: %s", event.Head().Event, sender.Lost, err, line)
		}
	}
	want := []string{"room_create", "room_login", "room_login", "stream_create", "stream_close", "room_logout", "room_logout", "recording",
		"room_close lobby 9223372036854775809 last user went offline 2017-07-10T08:56:29.909Z"}
	if !slices.Equal(got.events, want) {
		t.Errorf("the webhook got %q", got.events)
	}
}

// Sending a room again repeats it exactly, because a difference would correct the bill.
func TestResentRoomIsUnchanged(t *testing.T) {
	say := func() string {
		bucket := memblob.OpenBucket(nil)
		defer bucket.Close()
		recording, err := send.Record(t.Context(), bucket, closed)
		if err != nil {
			t.Fatal(err)
		}
		if name := recording.Files[0].FileID; !zego.ValidTaskID(recording.TaskID) || !fileIn(t, bucket, "7/9223372036854775809/"+name, recording.Files[0].Size) {
			t.Errorf("the bucket has no %+v", recording)
		}
		text, err := json.Marshal(send.Events(closed, 3, recording))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if first, second := say(), say(); first != second {
		t.Errorf("first\n%s, then\n%s", first, second)
	}
}

func fileIn(t *testing.T, bucket *blob.Bucket, key string, size int64) bool {
	t.Helper()
	a, err := bucket.Attributes(t.Context(), key)
	return err == nil && a.Size == size
}

// Callbacks are in order of time, and their numbers increase without a gap.
func TestCallbacksCountUp(t *testing.T) {
	for _, participants := range []int{0, 1, 2, 5} {
		users, streams, in := uint64(0), uint64(0), map[string]time.Time{}
		last := time.Time{}
		for _, e := range send.Events(closed, participants, nil) {
			switch e := e.(type) {
			case *zego.RoomLogin:
				if users++; e.UserUpdateSeq.Number != users || e.LoginTime.Before(last) {
					t.Errorf("%d participants: login %+v is out of order", participants, e)
				}
				last, in[e.SessionID] = e.LoginTime, e.LoginTime
			case *zego.RoomLogout:
				if users++; e.UserUpdateSeq.Number != users || e.LogoutTime.Before(last) || !e.LoginTime.Equal(in[e.SessionID]) || !e.LogoutTime.After(e.LoginTime) {
					t.Errorf("%d participants: logout %+v is out of order", participants, e)
				}
				last = e.LogoutTime
			case *zego.StreamClose:
				streams++
				if !e.CreateTime.After(in[fmt.Sprint(closed.RoomSessionID, "-1")]) || e.CloseTime.Before(last) {
					t.Errorf("%d participants: stream %+v is out of order", participants, e)
				}
				last = e.CloseTime
			case *zego.RoomClose:
				if e.RoomCloseTime.Before(last) {
					t.Errorf("%d participants: it closes at %s, before %s", participants, e.RoomCloseTime, last)
				}
			}
		}
		if users != uint64(2*participants) || streams != min(uint64(participants), 1) || len(in) != participants {
			t.Errorf("%d participants: %d changes, %d streams, %d stays", participants, users, streams, len(in))
		}
	}
}

// Resign changes the timestamp, the nonce and the signature, and nothing else in the bodies of
// ZEGO's products.
func TestResign(t *testing.T) {
	secret := func(appID uint32) (string, error) {
		if appID != 7 {
			return "", fmt.Errorf("no app %d", appID)
		}
		return "secret", nil
	}
	for name, body := range map[string]string{
		"plain":               `{"event":"room_close","appid":7,"timestamp":1,"nonce":"1","signature":"x","room_id":"a\u002fb  ","room_session_id":858012925204410417}`,
		"strings, spaces":     " { \"timestamp\" : \"1499676989\" , \"nonce\":\"2\", \"z\": {\"nonce\":\"3\",\"signature\":[1]},\n\"appid\":\"7\",\"event\":\"room_login\",\"signature\":\"x\"}\n",
		"capitals, in millis": `{"Event":"AgentInstanceDeleted","AppId":7,"Timestamp":1764500000123,"Nonce":"9","Signature":"y","Data":{"Timestamp":5}}`,
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := send.Resign([]byte(body), secret)
			if err != nil {
				t.Fatal(err)
			}
			is, err := zego.Scan("", signed)
			if err != nil {
				t.Fatal(err)
			}
			if is.Signature != zego.Sign("secret", is.Timestamp, is.Nonce) || time.Since(is.SentAt()).Abs() > time.Minute {
				t.Errorf("badly signed: %s", signed)
			}
			was, err := zego.Scan("", []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			back := string(signed)
			for now, then := range map[string]string{fmt.Sprint(is.Timestamp): fmt.Sprint(was.Timestamp), is.Nonce: was.Nonce, `"` + is.Signature + `"`: `"` + was.Signature + `"`} {
				back = strings.Replace(back, now, then, 1)
			}
			if back != body {
				t.Errorf("found\n%s, want\n%s with another timestamp, nonce and signature", signed, body)
			}
		})
	}
	for body, want := range map[string]string{
		`{"event":"room_close","appid":8,"timestamp":1,"nonce":"1","signature":"x"}`:                                              "no app 8",
		`{"event":"room_close","appid":7,"timestamp":1,"nonce":"1"}`:                                                              "signature",
		`{"event":"room_close","timestamp":1,"nonce":"1","signature":"x"}`:                                                        "appid",
		`%7B%22event%22%3A%22e%22%2C%22appid%22%3A7%2C%22timestamp%22%3A1%2C%22nonce%22%3A%221%22%2C%22signature%22%3A%22x%22%7D`: "want a JSON object",
		`[]`: "object",
	} {
		if signed, err := send.Resign([]byte(body), secret); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, want %q", body, signed, err, want)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ZEGO's attempts start at 0, 2, 6, 14, 30 and 62 s, plus the time for which earlier ones waited
// for an answer.
func TestRetries(t *testing.T) {
	for name, tt := range map[string]struct {
		code      int // status of failed attempts; 0 for no answer
		then      int // number of the attempt that is acknowledged; 0 for none
		once, cut bool
		want      []time.Duration
		last      string
	}{
		"acknowledged":           {code: 200, then: 1, want: []time.Duration{0}, last: "attempt 1: 200 OK ok"},
		"at the third attempt":   {code: 503, then: 3, want: []time.Duration{0, 2, 6}, last: "attempt 3: 200 OK ok"},
		"never":                  {code: 503, want: []time.Duration{0, 2, 6, 14, 30, 62}, last: "attempt 6: 503 Service Unavailable ok; ZEGO would now drop it"},
		"never, without retry":   {code: 302, once: true, want: []time.Duration{0}, last: "attempt 1: 302 Found ok"},
		"each attempt times out": {want: []time.Duration{0, 7, 16, 29, 50, 87}, last: "attempt 6: no answer within 5s; ZEGO would now drop it"},
		"interrupted":            {code: 503, cut: true, want: []time.Duration{0, 2}, last: "attempt 2: 503 Service Unavailable ok; again in 4s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				stopped := errors.New("stopped")
				began, at, last := time.Now(), []time.Duration(nil), ""
				sender := &send.Sender{URL: "http://closeout.test/zego/callbacks", Secret: "s", Timeout: 5 * time.Second, Once: tt.once}
				sender.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					at = append(at, time.Since(began)/time.Second)
					code := tt.code
					if len(at) == tt.then {
						code = 200
					}
					if code == 0 {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					return &http.Response{StatusCode: code, Status: fmt.Sprint(code, " ", http.StatusText(code)), Body: io.NopCloser(strings.NewReader("ok"))}, nil
				})
				sender.Report = func(_, line string) {
					if last = line; tt.cut && len(at) == 2 {
						cancel(stopped)
					}
				}
				err := sender.Send(ctx, send.Events(closed, 0, nil)[0])
				ok := sender.Sent-sender.Lost == 1
				if ok != (tt.then > 0) || !slices.Equal(at, tt.want) || last != tt.last || tt.cut != errors.Is(err, stopped) {
					t.Errorf("%t, %v, attempts at %v, last %q", ok, err, at, last)
				}
			})
		})
	}
}

func TestSecretInAnAddressIsNotShown(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Cannot POST "+r.URL.EscapedPath(), 404)
	}))
	defer echo.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, address := range []string{echo.URL + webhook.Path + "/hunter2", gone.URL + webhook.Path + "/hunter2", echo.URL + "/a b" + webhook.Path + "/hunter2",
		echo.URL + webhook.Path + "/%68unter2?k=v", gone.URL + "/hunter2", "http://u:hunter2@127.0.0.1:1" + webhook.Path, "http://h:x/hunter2", "hunter2", "http://\x00/hunter2"} {
		var shown string
		if err := send.CheckURL(address); err != nil {
			shown = err.Error()
		} else {
			sender := &send.Sender{URL: address, Timeout: 5 * time.Second, Once: true, Report: func(_, line string) { shown += line }}
			err := sender.Send(t.Context(), send.Events(closed, 0, nil)[0])
			if sender.Lost != 1 || err != nil || shown == "" {
				t.Errorf("%s: %d, %v", address, sender.Lost, err)
			}
		}
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, "%68") {
			t.Errorf("%s: shows %s", address, shown)
		}
	}
}
