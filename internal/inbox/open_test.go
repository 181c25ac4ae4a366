package inbox

import (
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lateFault is a file system on which the sync of Pebble's options file fails. Pebble creates
// that file last when it opens a store.
type lateFault struct {
	vfs.FS
	fails atomic.Int64 // number of failed syncs
	on    atomic.Bool
}

func (f *lateFault) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err == nil && strings.HasSuffix(name, ".dbtmp") {
		file = lateFile{file, f}
	}
	return file, err
}

type lateFile struct {
	vfs.File
	of *lateFault
}

func (f lateFile) Sync() error {
	if f.of.on.Load() {
		f.of.fails.Add(1)
		return syscall.EIO
	}
	return f.File.Sync()
}

// The inbox tries to open its store again and again, so a failed attempt must leave nothing
// behind.
func TestAnInboxThatCannotBeOpenedLeavesNoGoroutines(t *testing.T) {
	disk := &lateFault{FS: vfs.Default}
	disk.on.Store(true)
	before := runtime.NumGoroutine()
	b, err := OpenFS(t.Context(), disk, filepath.Join(t.TempDir(), "inbox"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for deadline := time.Now().Add(20 * time.Second); disk.fails.Load() < 8; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the store was opened %d times", disk.fails.Load())
		}
	}
	if n := runtime.NumGoroutine() - before; n > 5 {
		t.Errorf("%d goroutines are left after %d attempts", n, disk.fails.Load())
	}
	disk.on.Store(false)
	for deadline := time.Now().Add(20 * time.Second); put(b, "a") != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is taken although the disk works")
		}
	}
}
