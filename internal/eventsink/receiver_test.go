package eventsink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// stored is a ledger that keeps its events.
type stored struct {
	mu     sync.Mutex
	events []ledger.Event
}

func (s *stored) Record(_ context.Context, events []ledger.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	return nil
}

func (s *stored) Probe(context.Context) error { return nil }

func newReceiver(t *testing.T, s *stored, log *bytes.Buffer) *eventsink.Receiver {
	t.Helper()
	box, err := inbox.Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Close() })
	e := &eventsink.Receiver{Delivery: eventsink.New(s, box, quiet, nil), MaxRoomLife: time.Hour, Log: slog.New(slog.NewTextHandler(log, nil))}
	t.Cleanup(e.Delivery.Wait)
	return e
}

// Only the sending time is signed, so the other times must be consistent with it.
func TestImpossibleTimesAreReplaced(t *testing.T) {
	var s stored
	var log bytes.Buffer
	sent := time.Unix(1499676989, 0).UTC()
	event := &zego.RoomLogout{RoomLogin: zego.RoomLogin{Common: zego.Common{AppID: 1, Event: zego.EventRoomLogout, Timestamp: sent.Unix()},
		RoomID: "lobby", RoomSessionID: 7, UserAccount: "u", SessionID: "1", LoginTime: sent.Add(-2 * time.Hour)}, LogoutTime: sent.AddDate(10, 0, 0)}
	if got, err := newReceiver(t, &s, &log).Receive(t.Context(), event); err != nil || got.Status != webhook.Stored {
		t.Fatalf("%+v, %v", got, err)
	}
	if u := s.events[0]; !u.Login.IsZero() || !u.Logout.Equal(sent) || !u.Implausible {
		t.Errorf("stored %+v", u)
	}
	if !strings.Contains(log.String(), "callback with impossible time") || !strings.Contains(log.String(), "logout_time=2027-") {
		t.Errorf("log: %s", log.String())
	}
}

func TestLedgerStoresContradictingCloses(t *testing.T) {
	var s stored
	err := newReceiver(t, &s, new(bytes.Buffer)).Contradicted(t.Context(), session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "attic", RoomCloseTime: time.UnixMilli(5).UTC()})
	if err != nil || len(s.events) != 1 {
		t.Fatalf("stored %+v, %v", s.events, err)
	}
	if u := s.events[0]; u.Event != zego.EventRoomClose || u.RoomID != "attic" || u.RoomSessionID != 7 || !u.Close.Equal(time.UnixMilli(5)) {
		t.Errorf("stored %+v", u)
	}
}

// broken is a ledger that stores nothing.
type broken struct{ record func(context.Context) error }

func (b broken) Record(ctx context.Context, _ []ledger.Event) error { return b.record(ctx) }
func (b broken) Probe(ctx context.Context) error                    { return b.record(ctx) }

// ZEGO repeats a recording callback only if there is no response, so a 5xx would lose it.
func TestRecordingCallbackIsAcceptedWithoutLedger(t *testing.T) {
	for name, record := range map[string]func(context.Context) error{
		"refuses connections": func(context.Context) error { return errors.New("connection refused") },
		"hangs":               func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"hangs for ever":      func(context.Context) error { select {} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box, err := inbox.Open(t.Context(), t.TempDir(), quiet)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = box.Close() })
			e := &eventsink.Receiver{Delivery: eventsink.New(broken{record}, box, quiet, nil), Log: quiet}
			keyring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 0, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			router := webhook.Router(webhook.Options{Keyring: keyring, Receiver: e, Log: quiet})
			const callbacks = 200
			var group sync.WaitGroup
			for n := range callbacks {
				group.Go(func() {
					nonce := strconv.Itoa(n)
					body := fmt.Sprintf(`{"app_id":1,"task_id":"%016d","room_id":"r","event_type":1,"nonce":"%d","timestamp":"1499676989","signature":"%s","detail":{"file_info":[{"file_id":"f","status":4}]}}`,
						n, n, zego.Sign("secret", 1499676989, nonce))
					w := httptest.NewRecorder()
					router.ServeHTTP(w, httptest.NewRequest(http.MethodPost, webhook.Path, strings.NewReader(body)))
					if w.Code != http.StatusOK {
						t.Errorf("%d %s", w.Code, w.Body)
					}
				})
			}
			group.Wait()
			if stats, err := box.Stats(t.Context()); err != nil || stats.Waiting != callbacks {
				t.Errorf("%+v, %v, want %d on disk", stats, err, callbacks)
			}
		})
	}
}
