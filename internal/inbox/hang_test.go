package inbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hanging is a file system on which MkdirAll and GetDiskUsage wait until their channel is
// closed. They don't wait if it is nil.
type hanging struct {
	vfs.FS
	mu     sync.Mutex
	mkdir  chan struct{}
	usage  chan struct{}
	dirErr error // returned by the sync of a folder
}

func (h *hanging) wait(c *chan struct{}) {
	h.mu.Lock()
	until := *c
	h.mu.Unlock()
	if until != nil {
		<-until
	}
}

func (h *hanging) MkdirAll(dir string, perm os.FileMode) error {
	h.wait(&h.mkdir)
	return h.FS.MkdirAll(dir, perm)
}

func (h *hanging) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	h.wait(&h.usage)
	return h.FS.GetDiskUsage(path)
}

func (h *hanging) OpenDir(name string) (vfs.File, error) {
	f, err := h.FS.OpenDir(name)
	return dir{f, h}, err
}

type dir struct {
	vfs.File
	of *hanging
}

func (d dir) Sync() error { return errors.Join(d.of.dirErr, d.File.Sync()) }

// soon returns a context for calls that must return within 20 seconds.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A disk that hangs at the start doesn't block OpenFS. The inbox uses the disk once it
// answers.
func TestHangingDiskAtTheStartDelaysNobody(t *testing.T) {
	fs := &hanging{FS: vfs.Default, mkdir: make(chan struct{})}
	b, err := OpenFS(soon(t), fs, filepath.Join(t.TempDir(), "inbox"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Put(short, Entry{Key: "a", Body: []byte("body")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put: %v", err)
	}
	if _, err := b.Stats(t.Context()); err == nil {
		t.Error("stats of what isn't open")
	}
	close(fs.mkdir)
	if _, err := b.Put(soon(t), Entry{Key: "b", Body: []byte("body")}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}

// If the disk hangs when it is asked for its free space, writes wait, and reads don't.
func TestHangingDiskDelaysOnlyWrites(t *testing.T) {
	fs := &hanging{FS: vfs.Default}
	b, err := OpenFS(t.Context(), fs, t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := put(b, "a"); err != nil {
		t.Fatal(err)
	}
	fs.mu.Lock()
	fs.usage = make(chan struct{})
	fs.mu.Unlock()
	defer close(fs.usage)
	time.Sleep(2 * checkEvery) // until the cached free space expires
	for range 3 {
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := b.Put(short, Entry{Key: "b", Body: []byte("body")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put: %v", err)
		}
	}
	entries, err := b.Next(t.Context(), 0, 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if s, err := b.Stats(t.Context()); err != nil || s.Waiting != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// While the disk hangs, bodies whose callers have given up take a bounded part of the memory.
func TestUnwrittenBodiesAreBounded(t *testing.T) {
	fs := &hanging{FS: vfs.Default, mkdir: make(chan struct{})}
	b, err := OpenFS(soon(t), fs, filepath.Join(t.TempDir(), "inbox"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	defer close(fs.mkdir)
	for range 200 {
		short, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := b.Put(short, Entry{Key: "a", Body: make([]byte, 1<<20)})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	runtime.GC()
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > 64<<20 {
		t.Errorf("%d MB are in memory", m.HeapAlloc>>20)
	}
}

// Some file systems don't support the sync of folders.
func TestUnsyncableFolderIsNoError(t *testing.T) {
	for err, ok := range map[error]bool{syscall.EINVAL: true, syscall.ENOTSUP: true, syscall.EIO: false} {
		b, openErr := OpenFS(t.Context(), &hanging{FS: vfs.Default, dirErr: err}, t.TempDir(), quiet)
		if openErr != nil {
			t.Fatal(openErr)
		}
		if putErr := put(b, "a"); (putErr == nil) != ok {
			t.Errorf("%v: %v", err, putErr)
		}
		_ = b.Close()
	}
}

// Every acknowledged entry survives a crash, no matter which part of the unsynced data
// does.
func TestCrashLosesNothingAcknowledged(t *testing.T) {
	fs := vfs.NewCrashableMem()
	if err := fs.MkdirAll("/data", 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := fs.OpenDir("/")
	if err == nil {
		err = errors.Join(root.Sync(), root.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]bool{}
	for round := range 20 {
		b, err := OpenFS(t.Context(), fs, "/data/inbox", quiet)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for e, err := range b.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			there[e.Key] = true
		}
		for key := range want {
			if !there[key] {
				t.Errorf("round %d: %s was lost", round, key)
			}
		}
		for n := range 10 {
			key := string(rune('a'+round)) + string(rune('a'+n))
			if err := put(b, key); err != nil {
				t.Fatal(err)
			}
			want[key] = true
			if n%3 == 0 { // remove some; a crash may undo that
				if err := b.Remove(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				delete(want, key)
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: round * 5, RNG: random})
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		fs = crashed
	}
}

// Lists have only the beginning of a large body, which contains the room.
func TestListsTruncateBodies(t *testing.T) {
	b, err := Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	body := append([]byte(`{"room_id":"lobby","x":"`), make([]byte, 1<<20)...)
	if _, err := b.Put(t.Context(), Entry{Key: "a", Body: body}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for e, err := range b.All(t.Context()) {
		if n++; err != nil || !e.Truncated || string(e.Body) != string(body[:maxListedBody]) {
			t.Errorf("%v, truncated %v, %d bytes", err, e.Truncated, len(e.Body))
		}
	}
	if n != 1 {
		t.Errorf("%d entries are listed, want 1", n)
	}
}
