package ledger_test

import (
	"database/sql"
	"errors"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
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

func bill() ledger.Bill {
	return ledger.Bill{
		ID: uuid.New(), AppID: math.MaxUint32, RoomID: "Zimmer 7 é'\"", RoomSessionID: math.MaxUint64,
		CloseReason: math.MaxUint32, RoomCloseTime: time.UnixMilli(1499676989909).UTC(),
	}
}

func TestFinalizeKeepsTheFirst(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		first := bill()
		if got, err := l.Finalize(t.Context(), first); err != nil || got != first {
			t.Fatalf("Finalize = %+v, %v, want %+v", got, err, first)
		}
		again := first
		again.RoomID, again.RoomCloseTime = "another", time.UnixMilli(5).UTC()
		if got, err := l.Finalize(t.Context(), again); err != nil || got != first {
			t.Errorf("Finalize again = %+v, %v, want %+v", got, err, first)
		}
		// Not even under another key is there a second bill.
		again.ID = uuid.New()
		if got, err := l.Finalize(t.Context(), again); err != nil || got != first {
			t.Errorf("Finalize under another key = %+v, %v, want %+v", got, err, first)
		}
		next := first
		next.ID, next.RoomSessionID = uuid.New(), first.RoomSessionID-1
		if got, err := l.Finalize(t.Context(), next); err != nil || got != next {
			t.Errorf("Finalize of the next session = %+v, %v, want %+v", got, err, next)
		}
		if got, err := open(t, databaseURL).Bill(t.Context(), first.AppID, first.RoomSessionID); err != nil || got != first {
			t.Errorf("Bill = %+v, %v, want %+v", got, err, first)
		}
		if _, err := l.Bill(t.Context(), 1, 1); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("Bill of no session: %v", err)
		}
	})
}

// Several workers come up at once on an empty database, and finalize the same
// session at once.
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
				bills[i], errs[i] = l.Finalize(t.Context(), b)
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

// The same with processes, which share no memory: this test runs itself.
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
		if got, err := open(t, databaseURL).Finalize(t.Context(), b); err != nil || got != b {
			t.Errorf("Finalize = %+v, %v", got, err)
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
