package inbox_test

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
)

func attach(t *testing.T, dir string) *inbox.Store {
	t.Helper()
	s, err := inbox.Attach(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// all lists the keys, with a star where an entry is set aside.
func all(t *testing.T, s *inbox.Store) (keys []string) {
	t.Helper()
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.SetAsideAt.IsZero() {
			e.Key += "*"
		}
		keys = append(keys, e.Key)
	}
	return keys
}

// Where no process has the inbox, it can be looked into all the same, and the
// process can begin at any moment.
func TestAnInboxCanBeLookedIntoWithoutAProcess(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a", "b", "c")
	if err := errors.Join(b.Shelve(t.Context(), "b", "no"), b.Close()); err != nil {
		t.Fatal(err)
	}
	s := attach(t, dir)
	other := attach(t, dir) // waits until the first one has seen enough
	if got := all(t, s); !slices.Equal(got, []string{"a", "b*", "c"}) {
		t.Errorf("%v", got)
	}
	if st, err := other.Stats(t.Context()); err != nil || st.Waiting != 2 || st.SetAside != 1 || st.Oldest.IsZero() {
		t.Errorf("%+v, %v", st, err)
	}
	if err := errors.Join(s.Retry(t.Context(), "b"), other.Drop(t.Context(), "a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t.Context(), "a"); !errors.Is(err, inbox.ErrNone) {
		t.Error(err)
	}
	if e, err := s.Get(t.Context(), "b"); err != nil || string(e.Body) != "body of b" || e.Reason != "" {
		t.Errorf("%+v, %v", e, err)
	}

	b = open(t, dir)
	if got := keys(t, b); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("the process finds %v", got)
	}
	put(t, b, "d")
	if got := all(t, s); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("while it runs: %v", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := all(t, s); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("after it has ended: %v", got)
	}
}

// A path that is too long for a socket is none of the user's business.
func TestOthersAreAnsweredHoweverLongThePath(t *testing.T) {
	for _, n := range []int{1, 150} {
		dir := filepath.Join(t.TempDir(), strings.Repeat("x", n))
		b := open(t, dir)
		put(t, b, "a")
		s := attach(t, dir)
		if got := all(t, s); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%v", got)
		}
		socket := filepath.Join(dir, "inbox.sock")
		if path, err := os.ReadFile(filepath.Join(dir, "inbox.socket-path")); err == nil {
			socket = string(path)
		}
		if info, err := os.Stat(socket); err != nil || info.Mode()&(fs.ModeSocket|fs.ModePerm) != fs.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", socket, info, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is left: %v", err)
		}
	}
}

func TestWhatAKilledProcessLeavesIsInNobodysWay(t *testing.T) {
	dir := t.TempDir()
	var out acknowledged
	cmd := player(t, dir, &out)
	wait(t, "some are acknowledged", func() bool { n, _ := out.counts(); return n > 10 })
	beside := attach(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := os.Stat(filepath.Join(dir, "inbox.sock")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*inbox.Store{beside, attach(t, dir)} {
		if st, err := s.Stats(t.Context()); err != nil || st.Waiting == 0 {
			t.Errorf("%+v, %v", st, err)
		}
	}
	b := open(t, dir)
	put(t, b, "next")
	if _, err := beside.Get(t.Context(), "next"); err != nil {
		t.Error(err)
	}
}

// former makes an inbox as earlier versions did.
func former(t *testing.T, dir, more string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "inbox.db")+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`
		CREATE TABLE callbacks (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body BLOB NOT NULL, queued_at INTEGER NOT NULL, set_aside_at INTEGER, reason TEXT NOT NULL DEFAULT '') STRICT;
		CREATE TABLE probe (id INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT;
		WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1200) INSERT INTO callbacks SELECT 10 + n, 'room ' || n, x'7b7d', 1000 + n, NULL, '' FROM n;
		UPDATE callbacks SET set_aside_at = 5000, reason = 'too large' WHERE key = 'room 2';
		PRAGMA user_version = 1;` + more); err != nil {
		t.Fatal(err)
	}
}

func TestAnInboxOfAnEarlierVersionIsTakenOver(t *testing.T) {
	check := func(t *testing.T, s *inbox.Store) {
		t.Helper()
		keys := all(t, s)
		if len(keys) != 1200 || !slices.Equal(keys[:3], []string{"room 1", "room 2*", "room 3"}) || keys[1199] != "room 1200" {
			t.Errorf("%d: %v", len(keys), keys)
		}
		e, err := s.Get(t.Context(), "room 2")
		if err != nil || e.Reason != "too large" || !e.QueuedAt.Equal(time.UnixMilli(1002)) || !e.SetAsideAt.Equal(time.UnixMilli(5000)) || string(e.Body) != "{}" {
			t.Errorf("%+v, %v", e, err)
		}
		if st, err := s.Stats(t.Context()); err != nil || st.Waiting != 1199 || st.SetAside != 1 || !st.Oldest.Equal(time.UnixMilli(1001)) {
			t.Errorf("%+v, %v", st, err)
		}
	}
	t.Run("by the process", func(t *testing.T) {
		dir := t.TempDir()
		former(t, dir, "")
		b := open(t, dir)
		check(t, b.Store)
		if left, err := filepath.Glob(filepath.Join(dir, "inbox.db*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		former(t, dir, "") // as if it had been interrupted before the end
		b = open(t, dir)
		check(t, b.Store)
		put(t, b, "new")
		if got := all(t, b.Store); got[len(got)-1] != "new" {
			t.Errorf("%v", got)
		}
	})
	t.Run("by who looks into it", func(t *testing.T) {
		dir := t.TempDir()
		former(t, dir, "")
		check(t, attach(t, dir))
		check(t, open(t, dir).Store)
	})
	t.Run("but not a newer one", func(t *testing.T) {
		dir := t.TempDir()
		former(t, dir, "PRAGMA user_version = 2")
		b := open(t, dir)
		if err := b.Put(t.Context(), "b", []byte("body")); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "inbox.db")); err != nil {
			t.Error(err)
		}
	})
}
