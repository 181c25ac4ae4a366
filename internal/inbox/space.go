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

// What Pebble does where a disk is full is to end the process: a write of its log
// or its manifest that fails is "fatal", and one of a table is tried again at
// once, and again. So entries are refused before the disk is full, and where it
// is full all the same, as others write to it, Pebble isn't told: what it writes
// waits for space. That is told to the callers instead.
//
// Only a sync that fails isn't tried again, as the kernel may have forgotten what
// it was about. Then the store is closed and opened again, and reads what the disk
// has. Should Pebble notice it first, the process ends.
const (
	// putReserve is how many bytes have to be free for an entry to be taken: enough
	// for what is in memory and the log to be written in order. To open a store it
	// takes less, and a process that was refused entries can be started anew.
	putReserve, openReserve = 16 << 20, 8 << 20
	// lookAgain is how long what the disk says of its space is believed.
	lookAgain = 10 * time.Millisecond
	// spaceAgain is how long a write waits before it is tried again.
	spaceAgain = 100 * time.Millisecond
)

// errFull means that there is no space left.
var errFull = errors.New("the disk is full")

// space is a file system that waits for space.
type space struct {
	vfs.FS
	dir     string
	reserve uint64 // for entries
	patient atomic.Bool
	tables  atomic.Bool // the last write of one found no space

	mu      sync.Mutex
	waiting int           // writes that wait
	full    chan struct{} // closed while one does
	looked  time.Time
	free    uint64
	err     error // of the last look
}

func newSpace(dir string) *space {
	return &space{FS: vfs.Default, dir: dir, reserve: putReserve, full: make(chan struct{})}
}

// DiskUsage returns how many bytes the folder's disk has free for us, and in all.
func DiskUsage(dir string) (free, size uint64, err error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	return usage.AvailBytes, usage.TotalBytes, err
}

// room gives an error unless so many bytes are free.
func (s *space) room(reserve uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 {
		return errFull
	}
	if now := time.Now(); now.Sub(s.looked) > lookAgain {
		usage, err := s.GetDiskUsage(s.dir)
		s.looked, s.free, s.err = now, usage.AvailBytes, err
	}
	switch {
	case s.err != nil:
		return fmt.Errorf("find out how much space is left: %w", s.err)
	case s.free < reserve:
		return fmt.Errorf("%w: %d MB are free, want %d", errFull, s.free>>20, reserve>>20)
	}
	return nil
}

// isFull is closed while writes wait for space.
func (s *space) isFull() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// note counts the writes that wait, and tells whether there are any.
func (s *space) note(more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.waiting += more; {
	case more > 0 && s.waiting == more:
		close(s.full)
	case more < 0 && s.waiting == 0:
		s.full = make(chan struct{})
	}
}

// retry does what takes space until there is enough of it.
func (s *space) retry(f func() error) error {
	err := f()
	if !noSpace(err) || !s.patient.Load() {
		return err
	}
	s.note(1)
	defer s.note(-1)
	for noSpace(err) && s.patient.Load() {
		time.Sleep(spaceAgain)
		err = f()
	}
	return err
}

// retryTable is retry for the tables. They are all that Pebble can do without: it
// removes what there is of one and makes it anew, which may be a smaller one. So
// that isn't waited for, only not done at once; but until one succeeds it counts
// as if it were, as commits wait for it.
func (s *space) retryTable(f func() error) error {
	err := f()
	switch {
	case err == nil:
		if s.tables.Load() && s.tables.CompareAndSwap(true, false) {
			s.note(-1)
		}
	case noSpace(err) && s.patient.Load():
		if s.tables.CompareAndSwap(false, true) {
			s.note(1)
		}
		time.Sleep(spaceAgain)
	}
	return err
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *space) wrap(name string, open func() (vfs.File, error)) (file vfs.File, err error) {
	write := s.retry
	if strings.HasSuffix(name, ".sst") {
		write = s.retryTable
	}
	if err := write(func() error { file, err = open(); return err }); err != nil {
		return nil, err
	}
	_ = os.Chmod(name, 0o600) // some file systems have no modes; the folder is the owner's anyway
	return &spaceFile{file, write}, nil
}

// Create implements [vfs.FS].
func (s *space) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.wrap(name, func() (vfs.File, error) { return s.FS.Create(name, category) })
}

// OpenReadWrite implements [vfs.FS].
func (s *space) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return s.wrap(name, func() (vfs.File, error) { return s.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite implements [vfs.FS].
func (s *space) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.wrap(to, func() (vfs.File, error) { return s.FS.ReuseForWrite(from, to, category) })
}

// Rename implements [vfs.FS].
func (s *space) Rename(from, to string) error {
	return s.retry(func() error { return s.FS.Rename(from, to) })
}

// Unwrap implements [vfs.FS].
func (s *space) Unwrap() vfs.FS { return s.FS }

// spaceFile is a file in it.
type spaceFile struct {
	vfs.File
	write func(func() error) error
}

// Write implements [vfs.File].
func (f *spaceFile) Write(p []byte) (written int, err error) {
	err = f.write(func() error {
		n, err := f.File.Write(p[written:])
		written += n
		return err
	})
	return written, err
}
