package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var quiet = slog.New(slog.DiscardHandler)

// Put may return nil although the context has ended. Then the entry is on disk.
func TestReportedWriteIsOnDisk(t *testing.T) {
	b, err := Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	// With a canceled context, enqueue may fail if the queue is full.
	for b.enqueue(gone, nil, newOp(doPut, Entry{Key: "a", Body: []byte("body")})) != nil {
	}
	if err := b.Probe(t.Context()); err != nil { // is queued after the put
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

// faulty is a file system on which the sync of a log returns the error that fail has set.
type faulty struct {
	vfs.FS
	err atomic.Pointer[error]
}

func (f *faulty) fail(err error) { f.err.Store(&err) }

func (f *faulty) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err == nil && strings.HasSuffix(name, ".log") {
		file = faultyFile{file, f}
	}
	return file, err
}

type faultyFile struct {
	vfs.File
	of *faulty
}

func (f faultyFile) SyncData() error {
	if err := f.of.err.Load(); err != nil && *err != nil {
		return *err
	}
	return f.File.SyncData()
}

// After a failed sync, the disk may have dropped written data even if the next sync succeeds.
// So the inbox acknowledges no write that waited for the sync, and continues with the entries
// that are on disk.
func TestFailedSyncAcknowledgesNothing(t *testing.T) {
	disk := &faulty{FS: vfs.Default}
	b, err := OpenFS(t.Context(), disk, t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Put(t.Context(), Entry{Key: "before", Body: []byte("body")}); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		disk.fail(fault)
		var all sync.WaitGroup
		for n := range 20 {
			all.Go(func() {
				if _, err := b.Put(t.Context(), Entry{Key: fmt.Sprint(fault, n%10), Body: []byte("body")}); err == nil || !errors.Is(err, fault) && !strings.Contains(err.Error(), "failed") {
					t.Errorf("acknowledged, %v", err)
				}
			})
		}
		all.Wait()
		disk.fail(nil)
		if _, err := b.Put(t.Context(), Entry{Key: "after " + fault.Error(), Body: []byte("body")}); err != nil {
			t.Errorf("not acknowledged: %v", err)
		}
	}
	var there []string
	for e, err := range b.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		there = append(there, e.Key)
	}
	for _, key := range []string{"before", "after " + syscall.EIO.Error(), "after " + syscall.ENOSPC.Error()} {
		if !slices.Contains(there, key) {
			t.Errorf("%s isn't among %v", key, there)
		}
	}
	if s, err := b.Stats(t.Context()); err != nil || s.Waiting != int64(len(there)) {
		t.Errorf("%+v of %d, %v", s, len(there), err)
	}
}

// A reader that removes and retries entries while others are written sees every entry.
func TestReadersSeeEveryWaitingEntry(t *testing.T) {
	b, err := Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const writers, each = 8, 100
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				if _, err := b.Put(t.Context(), Entry{Key: fmt.Sprint(w, "-", n), Body: []byte("body")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	shelved := map[string]bool{}
	for seen := 0; seen < writers*each && !t.Failed(); {
		entries, err := b.Next(t.Context(), 0, 50)
		if err != nil {
			t.Fatal(err)
		}
		var done []string
		for n, e := range entries {
			if n%17 == 0 && !shelved[e.Key] { // the retry puts it back in its old place
				shelved[e.Key] = true
				if err := errors.Join(b.DeadLetter(t.Context(), e.Key, "x"), b.Retry(t.Context(), e.Key)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			done = append(done, e.Key)
		}
		if err := b.Remove(t.Context(), done...); err != nil {
			t.Fatal(err)
		}
		seen += len(done)
		if len(entries) == 0 {
			s, err := b.Stats(t.Context())
			if err != nil || s.Waiting > 0 && s.Oldest.IsZero() {
				if again, _ := b.Next(t.Context(), 0, 1); len(again) == 0 {
					t.Fatalf("unseen: %+v, %v", s, err)
				}
			}
		}
	}
	all.Wait()
	if s, err := b.Stats(t.Context()); err != nil || s != (Stats{}) {
		t.Errorf("left: %+v, %v", s, err)
	}
}

func put(b *Inbox, key string) error {
	_, err := b.Put(context.Background(), Entry{Key: key, Body: []byte("body")})
	return err
}
