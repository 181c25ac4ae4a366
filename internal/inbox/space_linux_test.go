package inbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/testenv"
)

// Other programs can fill the disk before the inbox notices that space is short. Then it
// refuses entries, loses none, keeps its process alive, and continues once there is space.
func TestDiskFilledByOthersIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		testenv.Skip(t, "can't mount a small file system here: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	folder, balloon := filepath.Join(dir, "inbox"), filepath.Join(dir, "balloon")
	b, err := Open(t.Context(), folder, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.reserve = 0
	body := make([]byte, 20_000)
	_, _ = rand.Read(body) // can't be compressed
	acknowledged := 0
	putMore := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := b.Put(ctx, Entry{Key: fmt.Sprint(acknowledged), Body: body})
		if err == nil {
			acknowledged++
		}
		return err
	}
	for round := range 3 {
		for range 100 { // a table whose write met the full disk may wait once more
			deadline := time.Now().Add(time.Minute)
			for err := putMore(); err != nil; err = putMore() {
				if !errors.Is(err, errFull) || time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		if err := os.WriteFile(balloon, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err := putMore()
		for ; err == nil && acknowledged < 1e6; err = putMore() { // there was room in the log
		}
		if !errors.Is(err, errFull) {
			t.Errorf("round %d: %v", round, err)
		}
		if s, err := b.Stats(t.Context()); err != nil || s.Waiting < int64(acknowledged) {
			t.Errorf("%+v of %d, %v", s, acknowledged, err)
		}
		if err := os.Remove(balloon); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); putMore() != nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it doesn't recover")
			}
		}
	}
	// Stop and start with a full disk.
	if err := os.WriteFile(balloon, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	for putMore() == nil {
	}
	closed := b.Close()
	if closed != nil && !errors.Is(closed, errFull) {
		t.Errorf("closed: %v", closed)
	}
	again, err := Open(t.Context(), folder, quiet)
	if closed != nil { // blocked writes may still happen, so the folder stays locked
		if !errors.Is(err, ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Put(t.Context(), Entry{Key: "x", Body: body}); !errors.Is(err, errFull) {
		t.Errorf("after the start: %v", err)
	}
	if err := os.Remove(balloon); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); put(again, "x") != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't recover after the start")
		}
	}
	if s, err := again.Stats(t.Context()); err != nil || s.Waiting < int64(acknowledged)+1 {
		t.Errorf("after the start %+v of %d, %v", s, acknowledged, err)
	}
}
