package ledger_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// Lost entries are restored unchanged. They aren't adjusted from the events that are left unless an
// operator allows it.
func TestLostEntriesAreRestoredUnchanged(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		books, err := ledger.Open(databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer books.Close()
		closed := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		was := ledger.MadeBill{Bill: ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, RoomID: "lobby", RoomCloseTime: closed},
			Usage:  session.Usage{Start: closed.Add(-time.Hour), StartFrom: "room_create", End: closed, EndFrom: "room_close", Participants: 2, Stays: 2, Millis: 90_000, Seconds: 90, Minutes: 2},
			Charge: pricing.Charge{Price: pricing.Price{Currency: "EUR", PerMinute: 2}, Amount: 4, Lines: 1}}, MadeAt: closed.Add(time.Minute)}
		for _, want := range []bool{true, false} { // once
			if restored, err := books.RestoreBill(t.Context(), was); err != nil || restored != want {
				t.Fatalf("restored %v, %v", restored, err)
			}
			if b, err := books.MadeBill(t.Context(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}); err != nil || b != was {
				t.Fatalf("found %+v, %v\nwant  %+v", b, err, was)
			}
		}
		adjusted := ledger.Adjustment{ID: uuid.New(), Number: 1, Bill: was.Bill, Difference: pricing.Change{Millis: 1000, Seconds: 1}, MadeAt: closed.Add(time.Hour)}
		adjusted.Usage.Millis, adjusted.Usage.Seconds, adjusted.Usage.Stays = 91_000, 91, 3
		for _, want := range []bool{true, false} {
			if restored, err := books.RestoreAdjustment(t.Context(), adjusted); err != nil || restored != want {
				t.Fatalf("restored %v, %v", restored, err)
			}
		}
		if all, err := books.Adjustments(t.Context(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}); err != nil || len(all) != 1 || all[0] != adjusted {
			t.Fatalf("found %+v, %v\nwant  %+v", all, err, adjusted)
		}

		// ZEGO sends one of the three stays again.
		if err := books.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, RoomID: "lobby", Event: "room_logout", Stay: "a", User: "a",
			Login: closed.Add(-time.Minute), Logout: closed, SeenAt: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		refused := new(ledger.RestoredError)
		if a, err := books.Adjust(t.Context(), uuid.New(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, 2); !errors.As(err, &refused) || refused.Last.Usage.Stays != 3 || refused.Due.Usage.Stays != 1 {
			t.Errorf("adjusted %+v, %v", a, err)
		}
		if err := books.AdjustRestored(t.Context(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}); err != nil {
			t.Fatal(err)
		}
		if a, err := books.Adjust(t.Context(), uuid.New(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, 2); err != nil || a.Difference.Seconds != 60-91 {
			t.Errorf("adjusted %+v, %v", a, err)
		}
		adjusted.RoomSessionID = 5
		if _, err := books.RestoreAdjustment(t.Context(), adjusted); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("an adjustment is restored without its bill: %v", err)
		}
	})
}

// NoteLoss stores a loss once. Past reports it for the sessions that may have lost events in it.
func TestRestoredLedgerKnowsItsLoss(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		books, err := ledger.Open(databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer books.Close()
		if taken, err := books.TakeLook(t.Context(), time.Now(), time.Minute); err != nil || !taken {
			t.Fatalf("TakeLook = %v, %v", taken, err)
		}
		last, err := books.LastLook(t.Context())
		if err != nil || last.Number != 1 {
			t.Fatalf("%+v, %v", last, err)
		}
		loss, err := books.NoteLoss(t.Context(), last, last.At, 40)
		if err != nil || loss == nil || !loss.From.Equal(last.At) {
			t.Fatalf("%v, %v", loss, err)
		}
		if again, err := books.NoteLoss(t.Context(), last, last.At, 40); err != nil || again != nil {
			t.Errorf("stored twice: %v, %v", again, err)
		}
		if next, err := books.LastLook(t.Context()); err != nil || next.Number != 41 {
			t.Errorf("%+v, %v", next, err)
		}
		if all, err := books.Losses(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("losses %v, %v", all, err)
		}
		if err := books.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 1, RoomSessionID: 2}, RoomID: "lobby", Event: "room_create", Create: loss.To.Add(time.Second), SeenAt: loss.To}}); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			session uint64
			closed  time.Time
			lost    bool
		}{
			{1, loss.To.Add(time.Hour), true},       // its start is unknown
			{1, loss.To.Add(48 * time.Hour), false}, // too long after the loss
			{1, loss.From.Add(-time.Hour), false},   // closed before the loss
			{1, loss.From.Add(-time.Minute), true},  // its last callbacks may have come during the loss
			{2, loss.To.Add(time.Hour), false},      // began after the loss
		} {
			if p, err := books.Past(t.Context(), session.ID{AppID: 1, RoomSessionID: tt.session}, tt.closed); err != nil || (p.Loss != nil) != tt.lost || p.Billed {
				t.Errorf("session %d that closed at %v: %+v, %v", tt.session, tt.closed, p, err)
			}
		}
	})
}
