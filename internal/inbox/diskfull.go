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

// Pebble ends the process when a write of its log fails. So entries are refused before the
// disk is full, and where others fill it all the same, [vfs.OnDiskFull] has Pebble's writes
// wait for space, which the callers are told instead.
//
// A sync that fails isn't tried again, as the kernel may have forgotten what it was about.
// Then the store is opened again, and has what the disk has.
const (
	// putReserve is how many bytes have to be free for an entry to be taken: enough to
	// write what is in memory and the log in order. Opening a store takes less, so that a
	// process that refuses entries can be restarted.
	putReserve, openReserve = 16 << 20, 8 << 20
	// checkEvery is how long the disk's answer is believed.
	checkEvery = 10 * time.Millisecond
	// spaceEvery is how often a write that waits for space looks for it.
	spaceEvery = 100 * time.Millisecond
)

var errFull = errors.New("the disk is full")

// diskFull knows whether a disk has space.
type diskFull struct {
	fs      vfs.FS
	dir     string
	patient atomic.Bool // writes may wait for space

	// Of the last look, by the one goroutine that looks.
	checked time.Time
	free    uint64
	err     error

	mu   sync.Mutex
	full chan struct{} // closed while writes wait
}

func newDiskFull(fs vfs.FS, dir string) *diskFull {
	return &diskFull{fs: fs, dir: dir, full: make(chan struct{})}
}

// DiskUsage returns how many bytes the folder's disk has free for us, and in all.
func DiskUsage(dir string) (free, size uint64, err error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	return usage.AvailBytes, usage.TotalBytes, err
}

// check returns an error unless so many bytes are free.
func (d *diskFull) check(reserve uint64) error {
	if now := time.Now(); now.Sub(d.checked) > checkEvery {
		dir := d.dir
		if _, err := d.fs.Stat(dir); err != nil {
			dir = d.fs.PathDir(dir) // it isn't made yet
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

// wait waits until there is space, or nobody has the patience.
func (d *diskFull) wait() {
	if !d.patient.Load() {
		return
	}
	d.mu.Lock()
	close(d.full)
	d.mu.Unlock()
	for d.patient.Load() {
		time.Sleep(spaceEvery)
		// Much, as the write is tried once more only.
		if usage, err := d.fs.GetDiskUsage(d.dir); err == nil && usage.AvailBytes >= openReserve {
			break
		}
	}
	d.mu.Lock()
	d.full = make(chan struct{})
	d.mu.Unlock()
}

// files is a file system that makes files for their owner alone, and takes it for no fault
// that folders can't be synced: some file systems need and know none of it. What a marker
// of Pebble's names is in its folder before the marker is, also after a power failure.
type files struct {
	vfs.FS
	real bool // not in memory
}

func (f files) made(file vfs.File, err error, name string) (vfs.File, error) {
	if err == nil && f.real {
		_ = os.Chmod(name, 0o600) // some file systems have no modes; the folder is the owner's anyway
	}
	return file, err
}

// Create implements [vfs.FS].
func (f files) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
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
