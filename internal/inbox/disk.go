package inbox

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bits-and-blooms/bloom/v3"
	"github.com/cockroachdb/pebble/v2"
	tables "github.com/cockroachdb/pebble/v2/bloom"
)

// Folder is the name of the store in an inbox's folder.
const Folder = "pebble"

const (
	// memTable is how many bytes are held in memory until they are written in order,
	// and memTables how many such are held at most. They are there for a while: the
	// disk's pauses are longer than it takes to fill one.
	memTable, memTables = 4 << 20, 3
	// cache is what is kept of the files in memory: what tells that a key isn't there.
	// Pebble takes the memory of the tables off it, and with nothing left it would
	// read a file's filter for each callback.
	cache = 8<<20 + memTable*memTables
	// Of a million keys in a filter of that many bits, all but one of 50 new ones are
	// known to be new without looking into the store.
	newBits, newHashes = 8 << 20, 5
	// forget is how many keys a filter may hold that aren't in the store any more,
	// once that is empty.
	forget = 100_000
	// openAgain is how long a store that can't be opened is left alone.
	openAgain = 100 * time.Millisecond
)

// disk is the store in a folder. What changes it is the [queue]'s affair.
type disk struct {
	dir      string // the inbox's
	readOnly bool
	log      *slog.Logger
	space    *space

	mu    sync.RWMutex // held by readers of db
	db    *pebble.DB   // nil while it isn't open
	ended bool         // and won't be any more
	fault error        // why not, and when that was
	tried time.Time

	// keys has every key that is in the store, and more. It is the writer's, once the
	// store is open.
	keys *keys

	// waiting and aside count the entries, and next is the ID after the last one.
	// Readers see all below it.
	waiting, aside, next atomic.Int64

	headMu sync.Mutex
	head   int64 // no entry below it is in the queue
	moved  int   // counts how often it went down
}

var errNotOpen = errors.New("it isn't open")

// use gives the store, which stays open until done. It opens it if need be.
func (d *disk) use(ctx context.Context) (db *pebble.DB, done func(), err error) {
	if err := d.open(ctx); err != nil {
		return nil, nil, err
	}
	d.mu.RLock()
	if d.db == nil { // shut in between
		d.mu.RUnlock()
		return nil, nil, fmt.Errorf("read inbox: %w", errNotOpen)
	}
	return d.db, d.mu.RUnlock, nil
}

// open opens the store unless it is open. A disk that refuses is asked again at
// the next call, so that a process may start while it does.
func (d *disk) open(ctx context.Context) error {
	d.mu.RLock()
	opened := d.db != nil
	d.mu.RUnlock()
	if opened {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db != nil {
		return nil
	}
	if d.ended {
		return fmt.Errorf("open inbox %s: %w", d.dir, errNotOpen)
	}
	if d.fault != nil && time.Since(d.tried) < openAgain {
		return d.fault
	}
	err := d.openNow(ctx)
	if err != nil {
		err = fmt.Errorf("open inbox %s: %w", d.dir, err)
	}
	d.fault, d.tried = err, time.Now()
	return err
}

func (d *disk) openNow(ctx context.Context) error {
	path := filepath.Join(d.dir, Folder)
	if !d.readOnly {
		if err := d.space.room(openReserve); err != nil {
			return err // to open it writes what the log holds, and waits until it can
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
	}
	db, err := d.openPebble(path)
	if err != nil {
		return err
	}
	if err := errors.Join(d.check(db), d.count(db)); err != nil {
		return errors.Join(err, db.Close())
	}
	if !d.readOnly {
		if err := secure(path); err != nil {
			return errors.Join(err, db.Close())
		}
		if err := errors.Join(syncDir(path), syncDir(d.dir), syncDir(filepath.Dir(d.dir))); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	d.db = db
	d.space.patient.Store(true)
	return nil
}

// openPebble opens the store. What would end the process later is an error here.
func (d *disk) openPebble(path string) (db *pebble.DB, err error) {
	log := &logger{log: d.log}
	defer func() {
		switch fault := recover().(type) {
		case nil:
			log.opened.Store(true)
		case fatal:
			db, err = nil, fault
		default:
			panic(fault)
		}
	}()
	o := &pebble.Options{
		FS: d.space, Logger: log, ReadOnly: d.readOnly, ErrorIfNotExists: d.readOnly,
		// With it the log tells a torn end from a damage before the end.
		FormatMajorVersion: pebble.FormatWALSyncChunks,
		MemTableSize:       memTable, MemTableStopWritesThreshold: memTables,
		CacheSize: cache, MaxOpenFiles: 100, MaxManifestFileSize: 1 << 20,
		EventListener: &pebble.EventListener{BackgroundError: func(err error) {
			d.log.Warn("the inbox's files can't be put in order, trying again", "error", err)
		}},
	}
	// Most keys that are looked for are new.
	for level := range o.Levels {
		o.Levels[level].FilterPolicy = tables.FilterPolicy(10)
	}
	if db, err = pebble.Open(path, o); errors.Is(err, pebble.ErrDBDoesNotExist) {
		err = fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return db, err
}

// check sees that this is a store that we know.
func (d *disk) check(db *pebble.DB) error {
	found, done, err := db.Get([]byte(versionKey))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if d.readOnly {
			return nil // nothing is in it
		}
		return db.Set([]byte(versionKey), []byte(version), pebble.Sync)
	case err != nil:
		return err
	}
	defer done.Close()
	if string(found) != version {
		return fmt.Errorf("it has version %q, want %s: a newer Closeout made it", found, version)
	}
	return nil
}

// count finds out what is in the store. With a million entries it takes a fraction
// of a second, and nothing can be wrong for longer than a process lives.
func (d *disk) count(db *pebble.DB) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{namePrefix}, UpperBound: []byte{namePrefix + 1}})
	if err != nil {
		return err
	}
	counts, last := map[byte]int64{}, int64(0)
	d.keys = newKeys()
	for it.First(); it.Valid(); it.Next() {
		p, err := parsePlace(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		counts[p.prefix]++
		d.keys.add(it.Key())
		last = max(last, p.id)
	}
	if err := it.Close(); err != nil {
		return err
	}
	d.waiting.Store(counts[queuePrefix])
	d.aside.Store(counts[asidePrefix])
	d.next.Store(last + 1)
	d.headMu.Lock()
	defer d.headMu.Unlock()
	d.head = 0
	return nil
}

// shut closes the store, after those who read it.
func (d *disk) shut() error {
	d.space.patient.Store(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return nil
	}
	err := d.db.Close()
	d.db = nil
	return err
}

// end closes the store for good.
func (d *disk) end() error {
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	return d.shut()
}

// keys tells of most keys that aren't in the store that they aren't, without
// looking: that costs a callback as much as to write it.
type keys struct {
	filter *bloom.BloomFilter
	n      int // were added
}

func newKeys() *keys { return &keys{filter: bloom.New(newBits, newHashes)} }

func (k *keys) add(name []byte) {
	k.filter.Add(name)
	k.n++
}

// mayHave tells if the key may be in the store.
func (k *keys) mayHave(name []byte) bool { return k.filter.Test(name) }

// empty tells that there is no key in the store.
func (k *keys) empty() {
	if k.n > forget {
		k.filter.ClearAll()
		k.n = 0
	}
}

// find gives the place of a key; none if it isn't there.
func find(db *pebble.DB, key string) (place, error) { return findName(db, nameOf(key)) }

func findName(db *pebble.DB, name []byte) (place, error) {
	value, done, err := db.Get(name)
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
	return decode(p.id, value)
}

func (d *disk) get(ctx context.Context, key string) (Entry, error) {
	db, done, err := d.use(ctx)
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

func (d *disk) list(ctx context.Context, prefixes string, after int64, limit limit) ([]Entry, error) {
	db, done, err := d.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var all []Entry
	until := int64(math.MaxInt64) // behind it, entries of one of the prefixes may be missing
	for _, prefix := range []byte(prefixes) {
		entries, more, err := d.scan(db, prefix, after+1, limit)
		if err != nil {
			return nil, err
		}
		if more {
			until = min(until, entries[len(entries)-1].ID)
		}
		all = append(all, entries...)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	bytes := 0
	for n, e := range all {
		if bytes += e.size(); e.ID > until || n >= limit.N || n > 0 && bytes > maxPageBytes {
			return all[:n], nil
		}
	}
	return all, nil
}

// scan returns entries with the prefix, from that ID on, and whether there are more.
func (d *disk) scan(db *pebble.DB, prefix byte, from int64, limit limit) (entries []Entry, more bool, err error) {
	fromHead := func(int64) {}
	if prefix == queuePrefix {
		// Before the head there is nothing but the marks of what was removed, maybe a
		// million of them, and each would be looked at.
		from, fromHead = d.behindHead(from)
	}
	seen := d.next.Load() // all below it that is there is seen by the iterator
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
		// At least one, however large.
		if len(entries) >= limit.N || len(entries) > 0 && bytes+len(it.Value()) > maxPageBytes {
			more = true
			break
		}
		e, err := decode(int64(binary.BigEndian.Uint64(it.Key()[1:])), it.Value())
		if err != nil {
			return nil, false, err
		}
		if limit.MaxBody > 0 && len(e.Body) > limit.MaxBody {
			e.Body = nil
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

// behindHead gives where to read the queue from, and takes what was found to be
// the first there.
func (d *disk) behindHead(from int64) (_ int64, found func(first int64)) {
	d.headMu.Lock()
	defer d.headMu.Unlock()
	if from > d.head {
		return from, func(int64) {} // says nothing of those between
	}
	moved := d.moved
	return d.head, func(first int64) {
		d.headMu.Lock()
		defer d.headMu.Unlock()
		if d.moved == moved {
			d.head = max(d.head, first)
		}
	}
}

// before has the queue read from that ID again.
func (d *disk) before(id int64) {
	d.headMu.Lock()
	defer d.headMu.Unlock()
	d.head = min(d.head, id)
	d.moved++
}

func (d *disk) stats(ctx context.Context) (Stats, error) {
	db, done, err := d.use(ctx)
	if err != nil {
		return Stats{}, err
	}
	defer done()
	s := Stats{Waiting: d.waiting.Load(), SetAside: d.aside.Load()}
	first, _, err := d.scan(db, queuePrefix, 0, limit{N: 1})
	if err != nil {
		return Stats{}, err
	}
	if len(first) > 0 {
		s.Oldest = first[0].QueuedAt
	}
	return s, nil
}

// secure takes a folder and its files from everybody but their owner, also where they
// were there already: they hold who was in which room.
func secure(folder string) error {
	if err := os.Chmod(folder, 0o700); err != nil { // #nosec G302 -- a folder
		return err
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Chmod(filepath.Join(folder, f.Name()), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncDir makes the names of new files in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// logger takes what Pebble has to say.
type logger struct {
	log    *slog.Logger
	opened atomic.Bool
}

// fatal is what Pebble can't go on after.
type fatal struct{ error }

// Infof implements [pebble.Logger].
func (l *logger) Infof(string, ...any) {}

// Errorf implements [pebble.Logger].
func (l *logger) Errorf(format string, args ...any) {
	l.log.Warn("the inbox's store complains", "error", fmt.Sprintf(format, args...))
}

// Fatalf implements [pebble.Logger]. Pebble counts on it not to return. Where
// nobody is there to catch it, the process ends: all that was acknowledged is on
// the disk, and the next process reads it from there.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !l.opened.Load() {
		panic(fatal{err})
	}
	l.log.Error("the inbox's disk has failed, so the process ends; nothing that was acknowledged is lost", "error", err)
	os.Exit(1)
}
