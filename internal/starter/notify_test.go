package starter_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/mocks"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestRecordingCallbackSignalsTheRun(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l, err := ledger.Open(databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for number, closed := range map[uint64]time.Time{1: noon, 2: noon.Add(time.Hour), 3: noon.Add(2 * time.Hour)} {
			if err := l.EndRoom(t.Context(), session.Session{ID: session.ID{AppID: 7, RoomSessionID: number}, RoomID: "lobby", RoomCloseTime: closed}); err != nil {
				t.Fatal(err)
			}
		}
		temporal := &mocks.Client{}
		done := make(chan string, 9)
		temporal.On("SignalWorkflow", mock.Anything, mock.Anything, "", "recordings", nil).Return(func(_ context.Context, id, _, _ string, _ any) error {
			done <- id
			if id == "room-close-7-3" {
				return serviceerror.NewNotFound("no such run")
			}
			return errors.New("away")
		})
		var log bytes.Buffer
		c := starter.NewNotifier(l, temporal, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { c.Run(ctx); close(ended) }()
		collect := func(task string, event zego.RecordingEvent, begin time.Time) {
			t.Helper()
			r := &zego.Recording{Common: zego.Common{AppID: 7, Timestamp: noon.Unix()}, TaskID: task, RoomID: "lobby", EventType: event, Files: []zego.RecordedFile{{FileID: "f", Begin: begin, Status: zego.FileUploaded}}}
			u, _ := ledger.EventOf(r, time.Now())
			if err := l.Record(t.Context(), []ledger.Event{u}); err != nil {
				t.Fatal(err)
			}
			c.Stored(r)
		}
		collect("T", zego.RecordingNoStream, noon.Add(30*time.Minute)) // signals no run
		collect("U", zego.RecordingUploaded, noon.Add(30*time.Minute))
		collect("V", zego.RecordingUploaded, noon.Add(90*time.Minute))
		for _, want := range []string{"room-close-7-2", "room-close-7-3"} {
			select {
			case got := <-done:
				if got != want {
					t.Errorf("%s was notified, want %s", got, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s wasn't notified", want)
			}
		}
		stop()
		<-ended
		if !strings.Contains(log.String(), "late recording") || !strings.Contains(log.String(), "room_session_id=3") {
			t.Errorf("logged %s", &log)
		}
	})
}
