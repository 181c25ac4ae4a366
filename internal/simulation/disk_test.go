package simulation

import (
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system of one process. It counts the operations that change it.
type disk struct {
	vfs.FS
	mem *vfs.MemFS
	// changed is called after each operation that changes the disk.
	changed func(op int)
	// full and slow report the state of the disk. Only syncs of open logs are slow, because
	// Pebble waits for them without a lock.
	full func() bool
	slow func(op int) time.Duration
	// fails returns the error of the next operation, a write or a sync.
	fails func(op int, what string) error
	ends  func() // ends the process

	mu     sync.Mutex
	ops    int
	synced map[string]int64 // synced bytes, by file
	// forgot holds the files with a failed sync. A kernel may treat their data as written,
	// so later syncs succeed and store nothing. Syncs of folders can be repeated.
	forgot map[string]bool
}

func newDisk(mem *vfs.MemFS) *disk {
	d := &disk{FS: mem, mem: mem, synced: map[string]int64{}, forgot: map[string]bool{}}
	var add func(dir string)
	add = func(dir string) { // all files that exist when a process begins are synced
		names, _ := mem.List(dir)
		for _, name := range names {
			path := mem.PathJoin(dir, name)
			if info, err := mem.Stat(path); err == nil && info.IsDir() {
				add(path)
			} else if err == nil {
				d.synced[path] = info.Size()
			}
		}
	}
	add("")
	return d
}

func (d *disk) op() int {
	d.mu.Lock()
	d.ops++
	op := d.ops
	d.mu.Unlock()
	d.changed(op)
	return op
}

func (d *disk) file(f vfs.File, err error, name string, fresh bool) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	if fresh {
		d.synced[name] = 0
		delete(d.forgot, name)
	}
	d.mu.Unlock()
	return &diskFile{f, d, name}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	defer d.op()
	return d.file(f, err, name, true)
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return d.file(f, err, name, false)
}

func (d *disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(from, to, c)
	defer d.op()
	return d.file(f, err, to, true)
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.file(f, err, name, false)
}

func (d *disk) Link(from, to string) error { defer d.op(); return d.FS.Link(from, to) }

func (d *disk) Remove(name string) error { defer d.op(); return d.FS.Remove(name) }

func (d *disk) RemoveAll(name string) error { defer d.op(); return d.FS.RemoveAll(name) }

func (d *disk) Rename(from, to string) error {
	defer d.op()
	d.mu.Lock()
	d.synced[to], d.forgot[to] = d.synced[from], d.forgot[from]
	d.mu.Unlock()
	return d.FS.Rename(from, to)
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	defer d.op()
	return d.FS.MkdirAll(dir, perm)
}

func (d *disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.full() {
		return vfs.DiskUsage{AvailBytes: 1 << 20, TotalBytes: 1 << 30}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 29, TotalBytes: 1 << 30}, nil
}

// after returns the disk after a crash.
func (d *disk) after(s survival, chance int, h history) *vfs.MemFS {
	r := h.chance("survives", chance)
	switch s {
	case nothing:
		return d.mem.CrashClone(vfs.CrashCloneCfg{})
	case randomPart:
		return d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 1 + r.IntN(99), RNG: r})
	}
	all := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r})
	if s == everything {
		return all
	}
	// The last block of each log is torn: it ends anywhere, and its last part is random.
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dir := range boxes {
		names, _ := all.List(dir)
		for _, name := range names {
			if !strings.HasSuffix(name, ".log") {
				continue
			}
			path := all.PathJoin(dir, name)
			content := contentOf(all, path)
			torn := int64(len(content)) - d.synced[path]
			if torn <= 0 {
				continue
			}
			content = content[:d.synced[path]+1+r.Int64N(torn)]
			for i := max(0, len(content)-1-r.IntN(int(min(torn, 512)))); i < len(content); i++ {
				if int64(i) >= d.synced[path] && r.IntN(2) == 0 {
					content[i] = byte(r.Uint32())
				}
			}
			f, err := all.Create(path, vfs.WriteCategoryUnspecified)
			if err == nil {
				_, _ = f.Write(content)
				_, _ = f.Sync(), f.Close()
			}
		}
		if f, err := all.OpenDir(dir); err == nil {
			_, _ = f.Sync(), f.Close()
		}
	}
	return all
}

func contentOf(fs vfs.FS, path string) []byte {
	f, err := fs.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(f)
	return b
}

// diskFile is a file of a disk.
type diskFile struct {
	vfs.File
	disk *disk
	name string
}

func (f *diskFile) Write(p []byte) (int, error) {
	defer f.disk.op()
	if err := f.fault("write"); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	defer f.disk.op()
	if err := f.fault("write"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

func (f *diskFile) Sync() error {
	d := f.disk
	if slow := d.slow(d.count()); slow > 0 && strings.HasSuffix(f.name, ".log") && !calledBy(".openPebble") && !calledBy("(*LogWriter).closeInternal") {
		time.Sleep(slow)
	}
	defer d.op()
	err := f.fault("sync")
	info, statErr := f.Stat()
	d.mu.Lock()
	d.forgot[f.name] = d.forgot[f.name] || err != nil && statErr == nil && !info.IsDir()
	forgot := d.forgot[f.name]
	d.mu.Unlock()
	if err != nil || forgot {
		return err
	}
	err = f.File.Sync()
	if err == nil && statErr == nil && !info.IsDir() {
		d.mu.Lock()
		d.synced[f.name] = info.Size()
		d.mu.Unlock()
	}
	return err
}

func (f *diskFile) SyncData() error { return f.Sync() }

func (f *diskFile) SyncTo(int64) (bool, error) { return true, f.Sync() }

// fault returns the error of the next operation. It ends the process where Pebble panics.
func (f *diskFile) fault(what string) error {
	d := f.disk
	fault := d.fails(d.count()+1, what)
	switch {
	case fault == nil:
	case calledBy(".openPebble"):
		// If tables exist, goroutines of Pebble may panic after Open has failed.
		names, err := d.mem.List(f.name) // the folder itself
		if err != nil {
			names, _ = d.mem.List(d.mem.PathDir(f.name))
		}
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".sst") }) {
			d.ends()
			return nil
		}
	case calledBy("atomicfs.(*Marker).Move"):
		d.ends()
		runtime.Goexit()
	}
	return fault
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// calledBy reports whether a function is on the stack, by the end of its name.
func calledBy(name string) bool {
	stack := make([]uintptr, 100)
	for frames := runtime.CallersFrames(stack[:runtime.Callers(0, stack)]); ; {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}
