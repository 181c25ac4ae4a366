// Package inbox keeps acknowledged callbacks on disk until their sink has them. It appends,
// reads, removes and dead-letters entries, and knows nothing of sinks.
//
// The inbox is a Pebble store. Concurrent writes share a commit and its sync. One process
// owns the store and answers other processes on a socket in the folder.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/closeouthq/closeout/internal/outage"
)

// Store reads and changes the entries of a folder, in the process that owns the [Inbox] or
// in another one. It is safe for concurrent use.
type Store struct{ source }

// source reads and changes entries: an Inbox, or a client of the process that owns it.
type source interface {
	list(ctx context.Context, prefixes string, after int64, n, maxBody int) ([]Entry, error)
	get(ctx context.Context, key string) (Entry, error)
	retry(ctx context.Context, key string) error
	drop(ctx context.Context, key string) error
	stats(ctx context.Context) (Stats, error)
	close() error
}

// page is the maximum number of entries that All reads at once.
const page = 5000

// All lists all entries, oldest first, with the first 4 KiB of their bodies. [Store.Get]
// returns a whole body. The sequence ends after an error.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(waitingPrefix)+string(deadPrefix))
}

// DeadLetters lists the dead letters, as [Store.All] does.
func (s *Store) DeadLetters(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(deadPrefix))
}

func (s *Store) pages(ctx context.Context, prefixes string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after, more := int64(0), true; more; {
			entries, err := s.list(ctx, prefixes, after, page, maxListedBody)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				after = e.ID
			}
			more = len(entries) > 0
		}
	}
}

// Get returns the entry of a key. The error wraps [ErrNone] if there is none.
func (s *Store) Get(ctx context.Context, key string) (Entry, error) { return s.get(ctx, key) }

// Retry puts a dead letter back among the waiting entries. The error wraps [ErrNone] if
// there is no such entry.
func (s *Store) Retry(ctx context.Context, key string) error { return s.retry(ctx, key) }

// Drop deletes an entry. The error wraps [ErrNone] if there is none.
func (s *Store) Drop(ctx context.Context, key string) error { return s.drop(ctx, key) }

// Stats returns the number of entries and the age of the oldest. It reads one entry.
func (s *Store) Stats(ctx context.Context) (Stats, error) { return s.stats(ctx) }

// Close closes the Store.
func (s *Store) Close() error { return s.close() }

// Inbox is the only writer of a folder's entries. It is safe for concurrent use.
type Inbox struct {
	*Store
	*store
	reserve uint64 // free bytes that the disk needs for an entry to be taken

	ops       chan *op
	unwritten *semaphore.Weighted // bytes of bodies not yet on disk
	commits   chan commit
	opened    chan error    // result of an attempt to open, read by Open
	done      chan struct{} // closed after the last write
	wake      chan struct{}
	crowded   atomic.Int64 // Unix nanoseconds of the last crowd
	outage    *outage.Outage
	broken    atomic.Bool      // the disk failed, and the store has to be reopened
	onWay     sync.WaitGroup   // commits in progress
	changed   map[string]place // by the current batch; reused
	attempt   time.Time        // time of the last attempt to open the store
	shrunk    time.Time        // time of the last check in shrink
	shrinks   sync.WaitGroup
	stopped   context.Context // of background compactions
	stop      context.CancelFunc
	serve     bool
	server    atomic.Pointer[server]
	closing   sync.RWMutex
	closed    bool
	closeOne  sync.Once
}

const (
	// openWait is how long Open waits for the disk. A million entries take a fraction of a
	// second. After that, the inbox opens in the background.
	openWait = 3 * time.Second
	// lockWait is how long to wait for the lock, which a command holds for moments.
	lockWait = 5 * time.Second
	// fullWait and hangWait are how long Close waits for a disk that is full or hangs.
	fullWait, hangWait = 2 * time.Second, 5 * time.Second
)

var (
	errClosed = errors.New("the inbox is closed")
	errHangs  = errors.New("the disk does not answer")
)

// Open opens the inbox of a folder and creates it if necessary. The error wraps [ErrLocked]
// if another process owns it. Open succeeds on a disk that is full, broken or hanging: Put
// fails until the disk recovers.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Inbox, error) {
	return OpenFS(ctx, vfs.Default, dir, log)
}

// OpenFS is like [Open], on another file system and without a socket.
func OpenFS(ctx context.Context, fs vfs.FS, dir string, log *slog.Logger) (*Inbox, error) {
	b := newInbox(fs, dir, log)
	b.serve = fs == vfs.Default
	b.run()
	hangs := time.NewTimer(openWait)
	defer hangs.Stop()
	for began := time.Now(); ; {
		select {
		case err := <-b.opened:
			if errors.Is(err, ErrLocked) {
				// A command holds the lock for moments. A process that keeps it has a socket.
				if time.Since(began) < lockWait && !isServed(ctx, dir) {
					hangs.Reset(openWait)
					continue
				}
				_ = b.Close()
				return nil, fmt.Errorf("%w; stop that one, or choose another folder", err)
			}
			if err != nil {
				log.Error("inbox not open, trying again", "error", err)
			}
			return b, nil
		case <-hangs.C:
			log.Error("inbox not open, the disk does not answer", "dir", dir)
			return b, nil
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), b.Close())
		}
	}
}

func newInbox(fs vfs.FS, dir string, log *slog.Logger) *Inbox {
	s := newStore(fs, dir, false, log)
	b := &Inbox{
		store: s, reserve: putReserve,
		unwritten: semaphore.NewWeighted(maxUnwritten),
		ops:       make(chan *op, maxOps), commits: make(chan commit, maxCommits), opened: make(chan error, 1),
		done: make(chan struct{}), wake: make(chan struct{}, 1), changed: map[string]place{},
		outage: outage.New(log, "inbox disk", "callbacks depend on Temporal and the ledger alone"),
	}
	b.Store = &Store{b}
	b.stopped, b.stop = context.WithCancel(context.Background())
	return b
}

// run starts the goroutines that write until the inbox is closed.
func (b *Inbox) run() {
	go b.write()
	go b.finish()
}

// Put stores an entry with a key, a body and optionally a trace. When it returns nil, the
// entry is on disk. If the inbox already had an entry of the key, that entry stays and Put
// returns its body. After an error, including the end of ctx, the entry may or may not have
// been stored.
func (b *Inbox) Put(ctx context.Context, e Entry) (kept []byte, err error) {
	if len(e.Body) == 0 {
		return nil, fmt.Errorf("put %s into the inbox: it has no body", e.Key)
	}
	e.QueuedAt = time.Now()
	if kept, err = b.do(ctx, newOp(doPut, e)); err != nil {
		return nil, fmt.Errorf("put %s into the inbox: %w", e.Key, err)
	}
	b.awake()
	return kept, nil
}

// Next returns up to n waiting entries with an ID greater than after, oldest first. Because
// a page is also bounded in bytes, only an empty result means that there are no more.
func (b *Inbox) Next(ctx context.Context, after int64, n int) ([]Entry, error) {
	return b.list(ctx, string(waitingPrefix), after, n, 0)
}

// Remove deletes the entries of the keys and ignores missing ones. After an error or a
// crash, any of them may still exist.
func (b *Inbox) Remove(ctx context.Context, keys ...string) error {
	all := make([]*op, len(keys))
	for n, key := range keys {
		all[n] = newOp(doRemove, Entry{Key: key})
	}
	if _, err := b.do(ctx, all...); err != nil {
		return fmt.Errorf("remove %d entries from the inbox: %w", len(keys), err)
	}
	return nil
}

// DeadLetter marks an entry as a dead letter with the reason. It waits for an operator.
func (b *Inbox) DeadLetter(ctx context.Context, key, reason string) error {
	if _, err := b.do(ctx, newOp(doDeadLetter, Entry{Key: key, Reason: reason, DeadAt: time.Now()})); err != nil {
		return fmt.Errorf("dead-letter %s: %w", key, err)
	}
	return nil
}

func (b *Inbox) retry(ctx context.Context, key string) error {
	_, err := b.do(ctx, newOp(doRetry, Entry{Key: key}))
	return err
}

func (b *Inbox) drop(ctx context.Context, key string) error {
	_, err := b.do(ctx, newOp(doDrop, Entry{Key: key}))
	return err
}

// Probe writes a key and returns the error that Put would return.
func (b *Inbox) Probe(ctx context.Context) error {
	if _, err := b.do(ctx, newOp(doProbe, Entry{QueuedAt: time.Now()})); err != nil {
		return fmt.Errorf("write to the inbox: %w", err)
	}
	return nil
}

// Crowded reports whether a burst of entries keeps the machine busy.
func (b *Inbox) Crowded() bool { return time.Since(time.Unix(0, b.crowded.Load())) < crowdedFor }

// Wake returns a channel that receives a value after entries were put or retried.
func (b *Inbox) Wake() <-chan struct{} { return b.wake }

func (b *Inbox) awake() {
	select {
	case b.wake <- struct{}{}:
	default: // already awake
	}
}

// Close finishes the writes and unlocks the folder. If the disk is full or hangs, Close
// returns an error and the folder stays locked until the process ends. Nothing
// acknowledged is lost.
func (b *Inbox) Close() (err error) {
	b.closeOne.Do(func() { err = b.close() })
	return err
}

func (b *Inbox) close() error {
	b.closing.Lock()
	b.closed = true
	close(b.ops)
	b.closing.Unlock()
	b.stop()
	b.server.Swap(nil).close()
	wait, why := hangWait, errHangs
	select {
	case <-b.disk.isFull():
		wait, why = fullWait, errFull
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
		return fmt.Errorf("close inbox: %w", why)
	}
	b.server.Swap(nil).close() // opened late
	closed := make(chan error, 1)
	go func() {
		b.shrinks.Wait()
		closed <- b.store.close() // Pebble may wait forever after a disk has failed
	}()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return fmt.Errorf("close inbox: %w", why)
	}
}

// shrinkAbove is the number of bytes that an empty inbox may keep for the next burst.
// shrinkEvery is the interval of the check.
const (
	shrinkAbove = 16 << 20
	shrinkEvery = 5 * time.Second
)

// shrink compacts a large inbox that is empty, to free its disk space.
func (b *Inbox) shrink() {
	if len(b.ops) > 0 || time.Since(b.shrunk) <= shrinkEvery {
		return
	}
	b.shrunk = time.Now()
	db, done, err := b.use()
	if err != nil {
		return
	}
	if b.waiting.Load()+b.dead.Load() > 0 || db.Metrics().Total().TablesSize <= shrinkAbove {
		done()
		return
	}
	b.shrinks.Go(func() {
		defer done()
		if err := db.Compact(b.stopped, []byte{0}, []byte{0xff}, false); err != nil && b.stopped.Err() == nil {
			b.log.Warn("inbox files not compacted", "error", err)
		}
	})
}

var _ source = (*Inbox)(nil)

// commit is a batch that is being synced.
type commit struct {
	*pebble.Batch // nil without changes
	ops           []*op
	err           error // why there is no batch
}
