package inbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble ends the process when it cannot write its log. So the inbox refuses entries before
// the disk is full. If other programs fill the disk, [vfs.OnDiskFull] blocks Pebble's writes
// until there is space, and callers get an error.
//
// A failed sync is not retried, because the kernel may have dropped the pages. The store is
// reopened instead and reads back what is on disk.
const (
	// putReserve is the number of free bytes without which entries are refused: enough to
	// flush the memory tables and the log. openReserve is less, so that a process that
	// refuses entries can be restarted.
	putReserve, openReserve = 16 << 20, 8 << 20
	// checkEvery is how long the free space is cached.
	checkEvery = 10 * time.Millisecond
	// spaceEvery is how often a blocked write checks for space.
	spaceEvery = 100 * time.Millisecond
)

var errFull = errors.New("the disk is full")

// diskFull tracks whether the disk has space.
type diskFull struct {
	fs      vfs.FS
	dir     string
	patient atomic.Bool // whether writes wait for space

	// Result of the last check, which one goroutine makes.
	checked time.Time
	free    uint64
	err     error

	mu   sync.Mutex
	full chan struct{} // closed while writes wait
}

func newDiskFull(fs vfs.FS, dir string) *diskFull {
	return &diskFull{fs: fs, dir: dir, full: make(chan struct{})}
}

// DiskUsage returns the bytes that are free for us on the folder's disk, and its size.
func DiskUsage(dir string) (free, size uint64, err error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	return usage.AvailBytes, usage.TotalBytes, err
}

// check returns an error if fewer than reserve bytes are free.
func (d *diskFull) check(reserve uint64) error {
	if now := time.Now(); now.Sub(d.checked) > checkEvery {
		dir := d.dir
		if _, err := d.fs.Stat(dir); err != nil {
			dir = d.fs.PathDir(dir) // it does not exist yet
		}
		usage, err := d.fs.GetDiskUsage(dir)
		if errors.Is(err, vfs.ErrUnsupported) || errors.Is(err, os.ErrNotExist) {
			usage.AvailBytes, err = 1<<62, nil
		}
		d.checked, d.free, d.err = now, usage.AvailBytes, err
	}
	switch {
	case d.err != nil:
		return fmt.Errorf("find out how much space is left: %w", d.err)
	case d.free < reserve:
		return fmt.Errorf("%w: %d MB are free, want %d", errFull, d.free>>20, reserve>>20)
	}
	return nil
}

// isFull returns a channel that is closed while writes wait for space.
func (d *diskFull) isFull() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

// wait waits for space, or until patient is false.
func (d *diskFull) wait() {
	if !d.patient.Load() {
		return
	}
	d.mu.Lock()
	close(d.full)
	d.mu.Unlock()
	for d.patient.Load() {
		time.Sleep(spaceEvery)
		// The write is retried only once, so wait for enough space.
		if usage, err := d.fs.GetDiskUsage(d.dir); err == nil && usage.AvailBytes >= openReserve {
			break
		}
	}
	d.mu.Lock()
	d.full = make(chan struct{})
	d.mu.Unlock()
}

// files is a file system that creates files for their owner alone. It ignores that folders
// cannot be synced, because some file systems neither need nor support it. It syncs the
// folder before Pebble creates a marker, so that after a power failure no marker names a
// file that is missing.
type files struct {
	vfs.FS
	real bool // not in memory
	// compactionFailed delays the next table. Pebble retries without a pause.
	compactionFailed *atomic.Bool
}

func (f files) made(file vfs.File, err error, name string) (vfs.File, error) {
	if err == nil && f.real {
		_ = os.Chmod(name, 0o600) // not all file systems have modes, and the folder is private anyway
	}
	return file, err
}

// Create implements [vfs.FS].
func (f files) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") && f.compactionFailed.Swap(false) {
		time.Sleep(openEvery) // Pebble holds no lock here
	}
	if strings.HasPrefix(f.PathBase(name), "marker.") {
		if err := syncDir(f, f.PathDir(name)); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Create(name, category)
	return f.made(file, err, name)
}

// syncDir makes the names in a folder durable.
func syncDir(fs vfs.FS, name string) error {
	dir, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ReuseForWrite implements [vfs.FS].
func (f files) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(from, to, category)
	return f.made(file, err, to)
}

// OpenDir implements [vfs.FS].
func (f files) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return folder{file}, nil
}

// Unwrap implements [vfs.FS].
func (f files) Unwrap() vfs.FS { return f.FS }

type folder struct{ vfs.File }

// Sync implements [vfs.File].
func (f folder) Sync() error {
	err := f.File.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
