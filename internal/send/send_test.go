package send_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"context"

	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// The callbacks that are sent are those that the webhook takes.
func TestWebhookTakesThem(t *testing.T) {
	ring, err := zego.NewKeyring(map[uint32][]string{7: {"secret"}}, time.Minute, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	got := &intake{sessions: map[uint64]string{}}
	server := httptest.NewServer(webhook.Router(webhook.Options{Keyring: ring, Intake: got, Log: slog.New(slog.DiscardHandler)}))
	defer server.Close()
	var out strings.Builder
	report, err := send.Run(t.Context(), send.Options{
		URL: server.URL + webhook.Path, AppID: 7, Secret: "secret", RoomID: "lobby", RoomSessionID: 1<<63 + 1, CloseReason: 2,
		RoomCloseTime: time.UnixMilli(1499676989909), Count: 5, Parallel: 3, Timeout: 10 * time.Second,
	}, &out)
	if err != nil || report != (send.Report{Acknowledged: 5}) {
		t.Fatalf("report %+v, %v:\n%s", report, err, out.String())
	}
	if len(got.sessions) != 5 || got.sessions[1<<63+5] != "lobby last user went offline 2017-07-10T08:56:29.909Z" {
		t.Errorf("got %v", got.sessions)
	}
	if !strings.Contains(out.String(), `room_session_id 9223372036854775809, attempt 1: 200 OK {"status":"started"`) {
		t.Errorf("output:\n%s", out.String())
	}
}

type intake struct {
	mu       sync.Mutex
	sessions map[uint64]string
}

func (i *intake) RoomClose(_ context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sessions[c.RoomSessionID] = c.RoomID + " " + c.CloseReason.String() + " " + c.RoomCloseTime.Format(time.RFC3339Nano)
	return webhook.Receipt{Status: webhook.Started}, nil
}

// ZEGO's attempts fall at 0, 2, 6, 14, 30 and 62 s, and then it forgets.
func TestLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []int
		transport := roundTripper(func(*http.Request) *http.Response {
			at = append(at, int(time.Since(began)/time.Second))
			return &http.Response{StatusCode: 503, Status: "503", Body: io.NopCloser(strings.NewReader(""))}
		})
		var out strings.Builder
		report, err := send.Run(t.Context(), send.Options{URL: "http://closeout.test", Count: 1, Parallel: 1, Timeout: time.Second, Transport: transport}, &out)
		if err != nil || report.Lost != 1 {
			t.Errorf("report %+v, %v", report, err)
		}
		want := []int{0, 2, 6, 14, 30, 62}
		if len(at) != len(want) {
			t.Fatalf("attempts at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Fatalf("attempts at %v, want %v", at, want)
			}
		}
		if !strings.Contains(out.String(), "ZEGO would now forget it") {
			t.Errorf("output:\n%s", out.String())
		}
	})
}

type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }
