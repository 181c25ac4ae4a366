package inbox_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/closeouthq/closeout/internal/inbox"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, dir string) *inbox.Inbox {
	t.Helper()
	b, err := inbox.Open(t.Context(), dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func put(t *testing.T, b *inbox.Inbox, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: []byte("body of " + key)}); err != nil {
			t.Fatal(err)
		}
	}
}

// keys returns the keys of the waiting entries.
func keys(t *testing.T, b *inbox.Inbox) []string {
	t.Helper()
	entries, err := b.Next(t.Context(), 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func TestEntriesAreOrderedAndUnique(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	before := time.Now().Truncate(time.Millisecond)
	put(t, b, "c", "a", "b", "a")
	if got := keys(t, b); !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("%v", got)
	}
	e, err := b.Get(t.Context(), "a")
	if err != nil || string(e.Body) != "body of a" || e.QueuedAt.Before(before) || e.QueuedAt.After(time.Now()) || !e.DeadAt.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	if s, err := b.Stats(t.Context()); err != nil || s.Waiting != 3 || s.DeadLetters != 0 || s.Oldest.Before(before) {
		t.Errorf("%+v, %v", s, err)
	}
	select {
	case <-b.Wake():
	default:
		t.Error("Wake is not signaled")
	}

	if err := b.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), "a"); err != nil {
		t.Errorf("the second time: %v", err)
	}
	put(t, b, "a")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, open(t, dir)); !slices.Equal(got, []string{"c", "b", "a"}) {
		t.Errorf("after it was opened again: %v", got)
	}
}

func TestDeadLetterWaitsForAnOperator(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a", "b", "c")
	if err := b.DeadLetter(t.Context(), "a", "too large"); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a") // ZEGO repeats it
	if got := keys(t, b); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("%v wait", got)
	}

	// Use the socket, as another process does.
	s, err := inbox.Attach(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all, aside []string
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Key)
	}
	for e, err := range s.DeadLetters(t.Context()) {
		if err != nil || e.Reason != "too large" || e.DeadAt.IsZero() {
			t.Fatalf("%+v, %v", e, err)
		}
		aside = append(aside, e.Key)
	}
	if !slices.Equal(all, []string{"a", "b", "c"}) || !slices.Equal(aside, []string{"a"}) {
		t.Errorf("all %v, dead letters %v", all, aside)
	}
	if err := errors.Join(s.Retry(t.Context(), "a"), s.Drop(t.Context(), "c")); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, b); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("then %v wait", got)
	}
	for name, err := range map[string]error{"retry": s.Retry(t.Context(), "x"), "drop": s.Drop(t.Context(), "x")} {
		if !errors.Is(err, inbox.ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Get(t.Context(), "x"); !errors.Is(err, inbox.ErrNone) {
		t.Errorf("get: %v", err)
	}
}

func TestAttachWithoutAnInbox(t *testing.T) {
	if _, err := inbox.Attach(t.Context(), t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := inbox.Open(t.Context(), dir, quiet)
	if !errors.Is(err, inbox.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}

func TestStoreOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(filepath.Join(dir, inbox.Folder), &pebble.Options{FormatMajorVersion: pebble.FormatWALSyncChunks, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("v"), []byte("2"), pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir)
	if _, err := b.Put(t.Context(), inbox.Entry{Key: "b", Body: []byte("body")}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Error(err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

func TestManyWritersShareCommits(t *testing.T) {
	b := open(t, t.TempDir())
	var all sync.WaitGroup
	for w := range 200 {
		all.Go(func() {
			for n := range 20 {
				key := fmt.Sprintf("%d-%d", w, n%15) // five of the 20 repeat a key
				if _, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: []byte(key)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if s, err := b.Stats(t.Context()); err != nil || s.Waiting != 200*15 {
		t.Errorf("%+v, %v", s, err)
	}
	// All lists every entry.
	n := 0
	for e, err := range b.All(t.Context()) {
		if err != nil || string(e.Body) != e.Key {
			t.Fatalf("%+v, %v", e, err)
		}
		n++
	}
	if n != 200*15 {
		t.Errorf("%d are listed", n)
	}
}

// New entries make the inbox crowded, and removals don't.
func TestOnlyNewEntriesMakeACrowd(t *testing.T) {
	b := open(t, t.TempDir())
	var all []string
	for n := range 100 {
		all = append(all, fmt.Sprint(n))
	}
	put(t, b, all...) // one after the other
	if err := b.Remove(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	if b.Crowded() {
		t.Error("crowded by removals")
	}
	wait(t, "many at once are a crowd", func() bool {
		var at sync.WaitGroup
		for _, key := range all {
			at.Go(func() {
				if _, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: []byte("body")}); err != nil {
					t.Error(err)
				}
			})
		}
		at.Wait()
		return b.Crowded()
	})
	wait(t, "the crowd is gone", func() bool { return !b.Crowded() })
}

func TestAfterClosingNothingIsAcknowledged(t *testing.T) {
	b := open(t, t.TempDir())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), inbox.Entry{Key: "a", Body: []byte("body")}); err == nil {
		t.Error("it was")
	}
	if err := b.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestEntryWithoutABodyIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	if _, err := b.Put(t.Context(), inbox.Entry{Key: "a", Body: nil}); err == nil {
		t.Error("it wasn't")
	}
	put(t, b, "b")
}

func TestPutReturnsWhenItsContextEnds(t *testing.T) {
	b := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Put(ctx, inbox.Entry{Key: "a", Body: []byte("body")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestEmptyInboxFreesItsSpace(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	size := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(dir, inbox.Folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	const entries, body = 64, 1 << 20
	var all sync.WaitGroup
	for n := range entries {
		all.Go(func() {
			random := make([]byte, body) // can't be compressed
			_, _ = rand.Read(random)
			if _, err := b.Put(t.Context(), inbox.Entry{Key: fmt.Sprint(n), Body: random}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if size() < entries*body {
		t.Fatalf("%d bytes hold %d", size(), entries*body)
	}
	for n := range entries {
		if err := b.Remove(t.Context(), fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); size() > 24<<20; {
		if time.Now().After(deadline) {
			t.Fatalf("still %d bytes", size())
		}
		if err := b.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// roleVariable is the environment variable with the folder of an inbox. If it is set, the test
// binary calls play, as a process that can be killed or whose disk can be full.
const roleVariable = "CLOSEOUT_TEST_INBOX"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roleVariable); dir != "" {
		play(dir)
	}
	os.Exit(m.Run())
}

// play puts entries from 16 goroutines until the process is killed. It prints the key of each
// acknowledged entry, and "refused" for each other one.
func play(dir string) {
	b, err := inbox.Open(context.Background(), dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for w := range 16 {
		go func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, n)
				if _, err := b.Put(context.Background(), inbox.Entry{Key: key, Body: []byte(strings.Repeat(key, 10))}); err != nil {
					fmt.Println("refused")
					continue
				}
				fmt.Println(key) // one write call, so a line is whole or not there
			}
		}()
	}
	select {}
}

// player starts a process that calls play for dir and writes to out. out is complete after
// the process has ended.
func player(t *testing.T, dir string, out *acknowledged) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+dir)
	cmd.Stdout = out
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("stderr: %s", stderr.String())
		}
	})
	return cmd
}

// acknowledged stores the output of players and counts its lines.
type acknowledged struct {
	mu      sync.Mutex
	text    bytes.Buffer
	refused int
	lines   int
}

func (a *acknowledged) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused += bytes.Count(p, []byte("refused\n"))
	a.lines += bytes.Count(p, []byte("\n"))
	return a.text.Write(p)
}

func (a *acknowledged) counts() (acknowledged, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lines - a.refused, a.refused
}

// check fails the test unless the inbox has all acknowledged entries.
func (a *acknowledged) check(t *testing.T, b *inbox.Inbox) {
	t.Helper()
	there := map[string]bool{}
	for e, err := range b.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Body) != strings.Repeat(e.Key, 10) {
			t.Errorf("the body of %s is %q", e.Key, e.Body)
		}
		there[e.Key] = true
	}
	missing := 0
	for line := range strings.Lines(a.text.String()) {
		key, whole := strings.CutSuffix(line, "\n")
		if whole && key != "refused" && !there[key] {
			missing++
		}
	}
	if n, _ := a.counts(); missing > 0 || n == 0 {
		t.Errorf("%d of %d acknowledged entries are lost", missing, n)
	}
}

func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	dir := t.TempDir()
	var out acknowledged
	for round := range 5 {
		cmd := player(t, dir, &out)
		before, _ := out.counts()
		wait(t, "some are acknowledged", func() bool { n, _ := out.counts(); return n > before+100*(round+1) })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	out.check(t, open(t, dir))
}

// A crash of the machine may leave the end of the log half written.
func TestTornLastWriteLosesNothing(t *testing.T) {
	dir := t.TempDir()
	var out acknowledged
	cmd := player(t, dir, &out)
	wait(t, "some are acknowledged", func() bool { n, _ := out.counts(); return n > 100 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	logs, err := filepath.Glob(filepath.Join(dir, inbox.Folder, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("%v, %v", logs, err)
	}
	f, err := os.OpenFile(slices.Max(logs), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte{7}, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	out.check(t, b)
	put(t, b, "and it goes on")
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// An inbox that can't be opened at the start is opened once possible. The entries of the
// previous process must not wait for another callback.
func TestUnopenableInboxIsReadOncePossible(t *testing.T) {
	dir := t.TempDir()
	before := open(t, dir)
	if _, err := before.Put(t.Context(), inbox.Entry{Key: "a", Body: []byte("body")}); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	store, hidden := filepath.Join(dir, inbox.Folder), filepath.Join(dir, "hidden")
	if err := errors.Join(os.Rename(store, hidden), os.WriteFile(store, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if entries, err := b.Next(t.Context(), 0, 10); err == nil {
		t.Fatalf("Next returned %v", entries)
	}
	if err := errors.Join(os.Remove(store), os.Rename(hidden, store)); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is read", func() bool {
		entries, err := b.Next(t.Context(), 0, 10)
		return err == nil && len(entries) == 1 && entries[0].Key == "a"
	})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stats(t.Context()); err == nil {
		t.Error("it was opened after it was closed")
	}
}
