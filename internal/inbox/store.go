package inbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Folder is the name of the store within an inbox's folder.
const Folder = "pebble"

// ErrLocked means that another process owns the inbox.
var ErrLocked = errors.New("in use by another process")

const (
	// memTable is the size of a memory table in bytes, and memTables their maximum number.
	// Disks pause for longer than it takes to fill one.
	memTable, memTables = 4 << 20, 3
	// cache holds the filters of the tables. Pebble counts the memory tables against it.
	cache = 8<<20 + memTable*memTables
)

// maxPageBytes bounds a page, unless a single entry is larger. A container with a few hundred
// megabytes may hold several pages at once. The simulation lowers it.
var maxPageBytes = 1 << 20

// maxListedBody is the maximum size of a body in lists, in bytes. The simulation lowers it.
var maxListedBody = 4 << 10

// store is the Pebble store of a folder. One goroutine opens and closes it; any may read.
type store struct {
	fs       vfs.FS
	dir      string // the inbox's folder
	readOnly bool
	log      *slog.Logger
	disk     *diskFull
	// compactionFailed reports that the next attempt has to wait.
	compactionFailed atomic.Bool

	mu    sync.RWMutex // held by readers of db
	db    *pebble.DB   // nil while closed
	fault error        // why it is closed
	lock  *pebble.Lock

	// waiting and dead count the entries. next is the next free ID.
	waiting, dead, next atomic.Int64

	headMu sync.Mutex
	head   int64 // waiting entries have this ID or a higher one
	moved  int   // counts how often head was lowered
}

func newStore(fs vfs.FS, dir string, readOnly bool, log *slog.Logger) *store {
	s := &store{dir: dir, readOnly: readOnly, log: log, disk: newDiskFull(fs, dir), fault: errors.New("not open yet")}
	s.fs = vfs.OnDiskFull(files{fs, fs == vfs.Default, &s.compactionFailed}, s.disk.wait)
	return s
}

func (s *store) path() string { return filepath.Join(s.dir, Folder) }

// use returns the database, which stays open until done is called.
func (s *store) use() (db *pebble.DB, done func(), err error) {
	s.mu.RLock()
	if s.db == nil {
		defer s.mu.RUnlock()
		return nil, nil, s.fault
	}
	return s.db, s.mu.RUnlock, nil
}

// open opens the store. The error wraps [ErrLocked] if another process owns it.
func (s *store) open() error {
	db, err := s.openPebble()
	if err == nil {
		err = errors.Join(s.checkVersion(db), s.count(db))
		if err == nil && !s.readOnly {
			err = s.secure()
		}
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fault = fmt.Errorf("open inbox %s: %w", s.dir, err)
		return s.fault
	}
	s.db = db
	s.disk.patient.Store(!s.readOnly)
	return nil
}

// openPebble opens the database. Failures that would end the process later are errors here.
func (s *store) openPebble() (db *pebble.DB, err error) {
	if !s.readOnly {
		if err := s.fs.MkdirAll(s.path(), 0o700); err != nil {
			return nil, err
		}
	}
	if s.lock == nil {
		s.lock, err = pebble.LockDirectory(s.path(), s.fs)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, err
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES), err != nil && err.Error() == "lock held by current process":
			return nil, ErrLocked
		case err != nil:
			return nil, err
		}
	}
	if !s.readOnly {
		if err := s.disk.check(openReserve); err != nil {
			return nil, err // because opening replays the log, which writes
		}
	}
	log := &logger{log: s.log}
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case runtime.Error:
			panic(fault)
		case error:
			db, err = nil, fault
		default:
			panic(fault)
		}
	}()
	o := &pebble.Options{
		FS: s.fs, Logger: log, Lock: s.lock, ReadOnly: s.readOnly, ErrorIfNotExists: s.readOnly,
		// This version tells a torn end of the log from damage before it.
		FormatMajorVersion: pebble.FormatWALSyncChunks,
		MemTableSize:       memTable, MemTableStopWritesThreshold: memTables,
		CacheSize: cache, MaxOpenFiles: 100, MaxManifestFileSize: 1 << 20,
		EventListener: &pebble.EventListener{BackgroundError: func(err error) {
			s.log.Warn("inbox compaction failed, trying again", "error", err)
			s.compactionFailed.Store(true)
		}},
	}
	// The default leaks a goroutine each time Open fails: five a second on a broken disk.
	o.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	for level := range o.Levels { // most lookups are of new keys
		o.Levels[level].FilterPolicy = bloom.FilterPolicy(10)
	}
	if db, err = pebble.Open(s.path(), o); errors.Is(err, pebble.ErrDBDoesNotExist) {
		err = fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return db, err
}

func (s *store) checkVersion(db *pebble.DB) error {
	found, done, err := db.Get([]byte(versionKey))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if s.readOnly {
			return nil // an empty store
		}
		return db.Set([]byte(versionKey), []byte(version), pebble.Sync)
	case err != nil:
		return err
	}
	defer done.Close()
	if string(found) != version {
		return fmt.Errorf("found version %q, want %s: a newer Closeout made it", found, version)
	}
	return nil
}

// count counts the entries. A million take a fraction of a second.
func (s *store) count(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{namePrefix}, UpperBound: []byte{namePrefix + 1}})
	if err != nil {
		return err
	}
	counts, last := map[byte]int64{}, int64(0)
	for it.First(); it.Valid(); it.Next() {
		p, err := parsePlace(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		counts[p.prefix]++
		last = max(last, p.id)
	}
	if err := it.Close(); err != nil {
		return err
	}
	s.waiting.Store(counts[waitingPrefix])
	s.dead.Store(counts[deadPrefix])
	s.next.Store(last + 1)
	s.headMu.Lock()
	defer s.headMu.Unlock()
	s.head = 1
	return nil
}

// secure takes the files from everybody but their owner, also where they were there
// already, and makes their names durable.
func (s *store) secure() error {
	path := s.path()
	if vfs.Root(s.fs) == vfs.Default {
		if err := os.Chmod(path, 0o700); err != nil { // #nosec G302 -- a folder
			return err
		}
		files, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Chmod(filepath.Join(path, f.Name()), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	for dir, ours := path, true; ; dir = filepath.Dir(dir) {
		err := syncDir(s.fs, dir)
		switch {
		case err != nil && ours:
			return err
		case err != nil || dir == filepath.Dir(dir):
			return nil
		}
		ours = ours && dir != filepath.Dir(s.dir) // those above may be new, too, or another's
	}
}

// shut closes the store, after those who read it, and keeps the folder locked.
func (s *store) shut(why error) error {
	s.disk.patient.Store(false)
	s.mu.Lock()
	db := s.db
	s.db, s.fault = nil, why
	s.mu.Unlock()
	if db == nil {
		return nil
	}
	return db.Close() // readers don't wait for the disk
}

// close closes the store and unlocks the folder.
func (s *store) close() error {
	err := s.shut(errClosed)
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

// find returns the place of a key, or the zero place.
func find(db *pebble.DB, key string) (place, error) {
	value, done, err := db.Get(nameOf(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return place{}, nil
	}
	if err != nil {
		return place{}, fmt.Errorf("read inbox: %w", err)
	}
	defer done.Close()
	return parsePlace(value)
}

func read(db *pebble.DB, p place) (Entry, error) {
	value, done, err := db.Get(p.key())
	if err != nil {
		return Entry{}, fmt.Errorf("read inbox: entry %d: %w", p.id, err)
	}
	defer done.Close()
	return decode(p.id, value, 0)
}

func (s *store) get(_ context.Context, key string) (Entry, error) {
	db, done, err := s.use()
	if err != nil {
		return Entry{}, err
	}
	defer done()
	p, err := find(db, key)
	if err == nil && p == (place{}) {
		err = fmt.Errorf("%s: %w", key, ErrNone)
	}
	if err != nil {
		return Entry{}, err
	}
	return read(db, p)
}

// list returns up to n entries with one of the prefixes and an ID greater than after, in
// order. It returns none only if there are no more.
func (s *store) list(_ context.Context, prefixes string, after int64, n, maxBody int) ([]Entry, error) {
	db, done, err := s.use()
	if err != nil {
		return nil, err
	}
	defer done()
	var all []Entry
	until := int64(math.MaxInt64) // the scans of all prefixes are complete up to this ID
	for _, prefix := range []byte(prefixes) {
		entries, more, err := s.scan(db, prefix, after+1, n, maxBody)
		if err != nil {
			return nil, err
		}
		if more {
			until = min(until, entries[len(entries)-1].ID)
		}
		all = append(all, entries...)
	}
	slices.SortFunc(all, func(a, b Entry) int { return int(a.ID - b.ID) })
	bytes := 0
	for i, e := range all {
		if bytes += e.size(); e.ID > until || i >= n || i > 0 && bytes > maxPageBytes {
			return all[:i], nil
		}
	}
	return all, nil
}

// scan returns entries with the prefix and at least the ID from, and whether there are more.
func (s *store) scan(db *pebble.DB, prefix byte, from int64, n, maxBody int) (entries []Entry, more bool, err error) {
	fromHead := func(int64) {}
	if prefix == waitingPrefix {
		// Skip the tombstones before the head, perhaps a million.
		from, fromHead = s.skipToHead(from)
	}
	seen := s.next.Load() // the iterator sees all lower IDs
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: place{prefix, from}.key(), UpperBound: []byte{prefix + 1}})
	if err != nil {
		return nil, false, fmt.Errorf("read inbox: %w", err)
	}
	defer func() {
		if e := it.Close(); err == nil && e != nil {
			err = fmt.Errorf("read inbox: %w", e)
		}
	}()
	bytes := 0
	for it.First(); it.Valid(); it.Next() {
		if len(entries) >= n || len(entries) > 0 && bytes+len(it.Value()) > maxPageBytes { // at least one entry
			more = true
			break
		}
		e, err := decode(int64(binary.BigEndian.Uint64(it.Key()[1:])), it.Value(), maxBody)
		if err != nil {
			return nil, false, err
		}
		bytes += e.size()
		entries = append(entries, e)
	}
	switch {
	case len(entries) > 0:
		fromHead(entries[0].ID)
	case it.Error() == nil:
		fromHead(seen)
	}
	return entries, more, nil
}

// skipToHead returns the first ID to read, and a function that raises the head to the first
// entry that was found.
func (s *store) skipToHead(from int64) (_ int64, found func(first int64)) {
	s.headMu.Lock()
	defer s.headMu.Unlock()
	if from > s.head {
		return from, func(int64) {} // entries in between may wait
	}
	moved := s.moved
	return s.head, func(first int64) {
		s.headMu.Lock()
		defer s.headMu.Unlock()
		if s.moved == moved {
			s.head = max(s.head, first)
		}
	}
}

// lowerHead lowers the head to id, where an entry waits again.
func (s *store) lowerHead(id int64) {
	s.headMu.Lock()
	defer s.headMu.Unlock()
	s.head = min(s.head, id)
	s.moved++
}

func (s *store) stats(context.Context) (Stats, error) {
	db, done, err := s.use()
	if err != nil {
		return Stats{}, err
	}
	defer done()
	stats := Stats{Waiting: s.waiting.Load(), DeadLetters: s.dead.Load()}
	first, _, err := s.scan(db, waitingPrefix, 0, 1, 1)
	if len(first) > 0 {
		stats.Oldest = first[0].QueuedAt
	}
	return stats, err
}

// logger logs Pebble's errors.
type logger struct{ log *slog.Logger }

// Infof implements [pebble.Logger].
func (l *logger) Infof(string, ...any) {}

// Errorf implements [pebble.Logger].
func (l *logger) Errorf(format string, args ...any) {
	l.log.Warn("inbox store", "error", fmt.Sprintf(format, args...))
}

// Fatalf implements [pebble.Logger]. It must not return, so it ends the process. All that
// was acknowledged is on disk for the next process.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	stack := make([]uintptr, 100)
	for frames := runtime.CallersFrames(stack[:runtime.Callers(0, stack)]); ; {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".openPebble") {
			panic(err) // openPebble recovers; a goroutine of Pebble's can't
		}
		if !more {
			break
		}
	}
	l.log.Error("inbox disk failed, process ends, nothing acknowledged is lost", "error", err)
	exit(1)
}

// exit is [os.Exit]. The simulation replaces it.
var exit = os.Exit
