package inbox_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// all returns the keys of all entries, with a star after the key of a dead letter.
func all(t *testing.T, s *inbox.Store) (keys []string) {
	t.Helper()
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.DeadAt.IsZero() {
			e.Key += "*"
		}
		keys = append(keys, e.Key)
	}
	return keys
}

// An inbox without a process can be read and changed, and the process can start at any time.
func TestInboxCanBeReadWithoutItsProcess(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a", "b", "c")
	if err := errors.Join(b.DeadLetter(t.Context(), "b", "no"), b.Close()); err != nil {
		t.Fatal(err)
	}
	s := attach(t, dir)
	other := attach(t, dir) // neither locks the folder between requests
	if got := all(t, s); !slices.Equal(got, []string{"a", "b*", "c"}) {
		t.Errorf("%v", got)
	}
	if st, err := other.Stats(t.Context()); err != nil || st.Waiting != 2 || st.DeadLetters != 1 || st.Oldest.IsZero() {
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

// The inbox finds another path for its socket if the folder's path is too long for one.
func TestSocketWorksForLongPaths(t *testing.T) {
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

func TestSocketOfAKilledProcessIsReplaced(t *testing.T) {
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
