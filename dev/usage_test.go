package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// life returns ZEGO's callbacks about a session except its room_close: a room_create, and
// a room_login and a room_logout for each stay of 1, 2 ... seconds.
func life(closed zego.RoomClose, stays int) (events []zego.Event) {
	end := closed.RoomCloseTime
	begin := end.Add(-time.Duration(stays+1) * time.Second)
	events = append(events, &zego.RoomCreate{RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID, RoomCreateTime: begin})
	for n := 1; n <= stays; n++ {
		login := zego.RoomLogin{RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID,
			UserAccount: fmt.Sprint("user-", n), SessionID: fmt.Sprint(n), LoginTime: end.Add(-time.Duration(n) * time.Second)}
		events = append(events, &login, &zego.RoomLogout{RoomLogin: login, LogoutTime: end})
	}
	return events
}

// tell posts a callback about a session's life, signed again, and returns the status.
func tell(t *testing.T, address string, event zego.Event) webhook.Status {
	t.Helper()
	head := event.Head()
	head.AppID, head.Timestamp, head.Nonce = 1, time.Now().Unix(), fmt.Sprint(rand.Uint64())
	head.Signature = zego.Sign("secret", head.Timestamp, head.Nonce)
	a := post(t, address, event)
	if a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	return a.Status
}

// ledgerOf opens the SQLite file of a ledger.
func ledgerOf(t *testing.T, c *config.Config) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(c.DatabaseURL, "sqlite:")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// stays returns the number of a session's stays with both ends, and their seconds.
func stays(t *testing.T, db *sql.DB, closed zego.RoomClose) (n, seconds int64) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(sum(logout_time - login_time), 0) / 1000
		FROM stays WHERE appid = $1 AND room_session_id = $2 AND login_time <> 0 AND logout_time <> 0`,
		closed.AppID, fmt.Sprint(closed.RoomSessionID)).Scan(&n, &seconds)
	if err != nil {
		t.Fatal(err)
	}
	return n, seconds
}

func TestEventsAreStoredOnceInAnyOrder(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	address := start(t, c, service.Parts{Webhook: true})
	closed := newClose()
	events := life(closed, 10)
	events = append(events, events...) // everything twice
	rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for n, e := range events {
		if n == len(events)/2 {
			if a := post(t, address, closed); a.code != 200 {
				t.Fatalf("room_close: %+v", a)
			}
		}
		if status := tell(t, address, e); status != webhook.Stored && status != webhook.Queued {
			t.Errorf("%s is %q", e.Head().Event, status)
		}
	}
	db := ledgerOf(t, c)
	wait(t, "the ledger has it once", func() bool { n, seconds := stays(t, db, closed); return n == 10 && seconds == 55 })
}

func TestEventsAreIgnoredIfOff(t *testing.T) {
	t.Parallel()
	c := settings(t, map[string]string{"participants": "off"})
	address := start(t, c, service.Parts{Webhook: true})
	for _, e := range life(newClose(), 1) {
		if status := tell(t, address, e); status != webhook.Ignored {
			t.Errorf("%s is %q", e.Head().Event, status)
		}
	}
	if exists(c.EventInbox()) {
		t.Error("there is an inbox")
	}
}

// The ledger is locked while callbacks arrive, and the webhook is killed twice. Callbacks
// are queued, sessions close as usual, and the ledger has everything later.
func TestEventsSurviveALedgerOutageAndAKill(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	db := ledgerOf(t, c)
	locked, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock := func(statement string) {
		t.Helper()
		if _, err := locked.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	lock("BEGIN IMMEDIATE")
	temporalClient := dial(t, c)
	var closes []zego.RoomClose
	for round := range 2 {
		cmd, log := process(t, c, "webhook")
		address := ""
		wait(t, "callbacks are taken", func() bool {
			if m := takenAt.FindStringSubmatch(log.String()); m != nil {
				address = m[1]
			}
			return address != ""
		})
		closed := newClose()
		closes = append(closes, closed)
		for _, e := range life(closed, 10) {
			if status := tell(t, address, e); status != webhook.Queued {
				t.Errorf("round %d: %s is %q", round, e.Head().Event, status)
			}
		}
		if a := post(t, address, closed); a.code != 200 {
			t.Errorf("round %d: room_close is %+v", round, a)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	lock("ROLLBACK")
	if n, _ := stays(t, db, closes[0]); n != 0 {
		t.Fatalf("the ledger has %d stays already", n)
	}
	start(t, c, both)
	for _, closed := range closes {
		wait(t, "the ledger has it", func() bool { n, seconds := stays(t, db, closed); return n == 10 && seconds == 55 })
		if r := result(t, temporalClient, closed); r.State != workflows.StateDone {
			t.Errorf("result %+v", r)
		}
	}
}
