package service

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// received is a function as a webhook.Receiver.
type received func() (webhook.Receipt, error)

func (r received) Receive(context.Context, zego.Event) (webhook.Receipt, error) { return r() }

// measure returns new metrics, and a function that reads them.
func measure(t *testing.T) (*metrics, func() string) {
	t.Helper()
	m := newMetrics()
	return m, func() string {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
}

func TestClockSkewIsMeasuredOnAcceptedCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, read := measure(t)
		var fails error
		in := observed{received(func() (webhook.Receipt, error) { return webhook.Receipt{}, fails }), m.skew}
		for _, behind := range []time.Duration{3 * time.Second, -time.Minute} {
			_, _ = in.Receive(t.Context(), &zego.RoomClose{Common: zego.Common{Timestamp: time.Now().Add(-behind).Unix()}})
		}
		fails = errors.New("no room")
		if _, err := in.Receive(t.Context(), &zego.RoomClose{}); !errors.Is(err, fails) {
			t.Error(err)
		}
		text := read()
		for _, want := range []string{`_bucket{le="-300"} 0`, `_bucket{le="-60"} 1`, `_bucket{le="2"} 1`, `_bucket{le="5"} 2`, `_count 2`} {
			if !strings.Contains(text, "closeout_callback_skew_seconds"+want+"\n") {
				t.Errorf("no %s in:\n%s", want, text[:strings.Index(text, "# HELP go_")])
			}
		}
	})
}

// Counters exist from the start with the value 0. Otherwise the first event would not be seen as an
// increase.
func TestCountsBeginAtZero(t *testing.T) {
	m, read := measure(t)
	m.webhookStarts()
	m.worker(&steps.Standard{Billing: &steps.Billing{}, Recordings: &steps.Recordings{}})
	text := read()
	for _, want := range []string{
		`closeout_callbacks_total{event="room_close",outcome="unavailable"}`, `closeout_callbacks_total{event="",outcome="bad_signature"}`,
		`closeout_callbacks_total{event="other",outcome="ignored"}`, `closeout_starts_total{outcome="failed",relayed="true"}`,
		`closeout_bills_total{outcome="found"}`, `closeout_archived_files_total`, `closeout_archived_bytes_total`,
	} {
		if !strings.Contains(text, "\n"+want+" 0\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestFreeDiskSpaceIsMeasured(t *testing.T) {
	for _, test := range []struct {
		name string
		look func(context.Context) ([2]uint64, error)
		want bool
	}{
		{"a folder that is there", func(context.Context) (s [2]uint64, err error) {
			s[0], s[1], err = inbox.DiskUsage(t.TempDir())
			return s, err
		}, true},
		{"a disk that can't be asked", func(context.Context) (s [2]uint64, err error) { return s, errors.New("stale") }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, read := measure(t)
			m.disk(test.look)
			text := read()
			for _, name := range []string{"closeout_data_free_bytes", "closeout_data_size_bytes"} {
				if got := strings.Contains(text, "\n"+name+" "); got != test.want || strings.Contains(text, "\n"+name+" 0\n") {
					t.Errorf("%s is there: %v, want %v\n%s", name, got, test.want, text)
				}
			}
		})
	}
}
