package ledger_test

import (
	"database/sql"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
)

func open(t *testing.T, databaseURL string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// bill returns the bill of a session without events.
func bill() ledger.Bill {
	closed := time.UnixMilli(1499676989909).UTC()
	return ledger.Bill{
		ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}, RoomID: "Zimmer 7 é'\"", CloseReason: "kicked", RoomCloseTime: closed},
		Usage: session.Usage{End: closed, EndFrom: "room_close", Estimated: session.NoUsage | session.NoRoomCreate},
	}
}

func TestFinalizeKeepsTheFirst(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		first := bill()
		if got, _, err := l.Finalize(t.Context(), first); err != nil || got != first {
			t.Fatalf("Finalize = %+v, %v, want %+v", got, err, first)
		}
		again := first
		again.RoomID, again.RoomCloseTime = "another", time.UnixMilli(5).UTC()
		if got, _, err := l.Finalize(t.Context(), again); err != nil || got != first {
			t.Errorf("Finalize again = %+v, %v, want %+v", got, err, first)
		}
		// A session has one bill, even under another key.
		again.ID = uuid.New()
		if got, _, err := l.Finalize(t.Context(), again); err != nil || got != first {
			t.Errorf("Finalize under another key = %+v, %v, want %+v", got, err, first)
		}
		next := first
		next.ID, next.RoomSessionID = uuid.New(), first.RoomSessionID-1
		if got, _, err := l.Finalize(t.Context(), next); err != nil || got != next {
			t.Errorf("Finalize of the next session = %+v, %v, want %+v", got, err, next)
		}
		if got, err := open(t, databaseURL).Bill(t.Context(), first.Session.ID); err != nil || got != first {
			t.Errorf("Bill = %+v, %v, want %+v", got, err, first)
		}
		if _, err := l.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("Bill of no session: %v", err)
		}
	})
}

// Several workers start at once on an empty database, and finalize the same session at once.
func TestFinalizeAtOnce(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		const workers = 8
		bills := make([]ledger.Bill, workers)
		errs := make([]error, workers)
		var all sync.WaitGroup
		for i := range workers {
			l := open(t, databaseURL)
			all.Go(func() {
				b := bill()
				b.RoomID = strings.Repeat("r", i+1)
				bills[i], _, errs[i] = l.Finalize(t.Context(), b)
			})
		}
		all.Wait()
		for i := range workers {
			if errs[i] != nil || bills[i] != bills[0] {
				t.Errorf("worker %d got %+v, %v; worker 0 got %+v", i, bills[i], errs[i], bills[0])
			}
		}
	})
}

// Separate processes, which share no memory, migrate at once. The test runs itself as each of them.
func TestMigrateByProcesses(t *testing.T) {
	if databaseURL := os.Getenv("LEDGER_TEST_MIGRATE"); databaseURL != "" {
		if err := open(t, databaseURL).Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		return
	}
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				cmd := exec.Command(os.Args[0], "-test.run=^TestMigrateByProcesses$")
				cmd.Env = append(os.Environ(), "LEDGER_TEST_MIGRATE="+databaseURL)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		all.Wait()
		b := bill()
		if got, _, err := open(t, databaseURL).Finalize(t.Context(), b); err != nil || got != b {
			t.Errorf("Finalize = %+v, %v", got, err)
		}
	})
}

// Every bill is listed once, whatever the page size, even if bills are made meanwhile.
func TestBillsAreListedOnce(t *testing.T) {
	ledger.SmallPages(t, 3)
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for b, err := range l.Bills(t.Context(), time.Time{}) {
			t.Fatalf("an empty ledger lists %+v, %v", b, err)
		}
		began := time.Now().Truncate(time.Millisecond)
		want := map[ledger.Bill]bool{}
		finalize := func(app uint32, number uint64) {
			t.Helper()
			b := bill()
			b.AppID, b.RoomSessionID = app, number
			if _, _, err := l.Finalize(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			want[b] = true
		}
		// As text, 9 sorts after 10. Both apps have the same session IDs. The 12 bills fill whole
		// pages.
		for _, number := range []uint64{0, 9, 10, math.MaxUint64, 858012925204410417, 1 << 63} {
			finalize(1, number)
			finalize(math.MaxUint32, number)
		}
		old := len(want)
		seen := map[ledger.Bill]int{}
		for b, err := range l.Bills(t.Context(), time.Time{}) {
			if err != nil {
				t.Fatal(err)
			}
			if len(seen) == 0 { // one sorts before all bills, one after
				finalize(0, 5)
				finalize(math.MaxUint32, math.MaxUint64-1)
			}
			if b.MadeAt.Before(began) || b.MadeAt.After(time.Now()) {
				t.Errorf("%+v: made at %v, after %v", b.Bill, b.MadeAt, began)
			}
			seen[b.Bill]++
		}
		for b, n := range seen {
			if n != 1 || !want[b] {
				t.Errorf("%+v was listed %d times, and made: %v", b, n, want[b])
			}
		}
		if len(seen) < old {
			t.Errorf("%d bills were listed of %d", len(seen), old)
		}
		// The caller may stop early.
		for range l.Bills(t.Context(), time.Time{}) {
			break
		}
	})
}

func TestBillsSince(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		if _, _, err := l.Finalize(t.Context(), bill()); err != nil {
			t.Fatal(err)
		}
		made, err := l.MadeBill(t.Context(), session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64})
		if err != nil {
			t.Fatal(err)
		}
		for since, want := range map[time.Time]int{{}: 1, made.MadeAt: 1, made.MadeAt.Add(time.Millisecond): 0} {
			n := 0
			for b, err := range l.Bills(t.Context(), since) {
				if n++; err != nil || b != made {
					t.Errorf("since %v: %+v, %v, want %+v", since, b, err, made)
				}
			}
			if n != want {
				t.Errorf("since %v: %d bills, want %d", since, n, want)
			}
		}
	})
}

// A list that breaks off ends with an error.
func TestInterruptedListOfBillsIsAnError(t *testing.T) {
	ledger.SmallPages(t, 1)
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for range 3 {
			b := bill()
			b.RoomSessionID = rand.Uint64()
			if _, _, err := l.Finalize(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		listed, failed := 0, error(nil)
		for _, err := range l.Bills(t.Context(), time.Time{}) {
			if err != nil {
				failed = err
				continue
			}
			listed++
			_ = l.Close()
		}
		if listed != 1 || failed == nil || !strings.HasPrefix(failed.Error(), "list bills: ") {
			t.Errorf("listed %d, then %v", listed, failed)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for _, databaseURL := range []string{
		"", "mysql://u:hunter2@h/db", "sqlite:", "sqlite://",
		"postgres://u:hunter2@h:port/db", "postgres://u:hunter2@h/db?sslmode=hunter2",
	} {
		_, err := ledger.Open(databaseURL)
		if err == nil {
			t.Errorf("Open(%q) took it", databaseURL)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
