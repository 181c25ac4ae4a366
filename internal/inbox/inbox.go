// Package inbox keeps callbacks on disk from when they are acknowledged until their sink
// has them. It appends, reads, removes and dead-letters, and knows nothing of sinks.
//
// It is a Pebble store. Callers that write at the same time share a commit, and with it the
// sync that makes it durable. One process has the store; it answers others on a socket in
// the folder.
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

// Store reads and changes the entries of a folder, in the process that has the [Inbox] or
// beside it. It is safe for concurrent use.
type Store struct{ source }

// source is where a Store has its entries.
type source interface {
	list(ctx context.Context, prefixes string, after int64, n, maxBody int) ([]Entry, error)
	get(ctx context.Context, key string) (Entry, error)
	retry(ctx context.Context, key string) error
	drop(ctx context.Context, key string) error
	stats(ctx context.Context) (Stats, error)
	close() error
}

// page is how many entries All reads at once, as far as a page's bytes allow.
const page = 5000

// All lists all entries, the oldest first, with the beginning of their bodies: [Store.Get]
// has the whole. It ends after an error.
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

// Retry has a dead letter wait again. The error wraps [ErrNone] if there is no entry.
func (s *Store) Retry(ctx context.Context, key string) error { return s.retry(ctx, key) }

// Drop removes an entry for good. The error wraps [ErrNone] if there is none.
func (s *Store) Drop(ctx context.Context, key string) error { return s.drop(ctx, key) }

// Stats counts the entries, at no cost worth mentioning.
func (s *Store) Stats(ctx context.Context) (Stats, error) { return s.stats(ctx) }

// Close releases what the Store holds.
func (s *Store) Close() error { return s.close() }

// Inbox is the one writer of a folder's entries. It is safe for concurrent use.
type Inbox struct {
	*Store
	*store
	reserve uint64 // bytes that have to be free for an entry

	ops       chan *op
	unwritten *semaphore.Weighted // bytes of the bodies that aren't on the disk yet
	commits   chan commit
	opened    chan error    // result of an attempt to open, while Open waits for one
	done      chan struct{} // closed when all was written
	wake      chan struct{}
	crowded   atomic.Int64 // when it was last, in Unix nanoseconds
	outage    *outage.Outage
	broken    atomic.Bool      // the disk failed, and the store wasn't opened again
	onWay     sync.WaitGroup   // commits that may still fail
	changed   map[string]place // in the batch that is made; reused
	attempt   time.Time        // when the store was last tried to be opened
	shrunk    time.Time        // or looked whether it has to be
	shrinks   sync.WaitGroup
	stopped   context.Context // of what goes on in the background
	stop      context.CancelFunc
	serve     bool
	server    atomic.Pointer[server]
	closing   sync.RWMutex
	closed    bool
	closeOne  sync.Once
}

const (
	// openWait is how long a start waits for the disk; a million entries take a fraction of
	// a second. An inbox that is opened later takes entries later.
	openWait = 3 * time.Second
	// lockWait is how long an inbox is waited for that a command has for a moment.
	lockWait = 5 * time.Second
	// fullWait and hangWait are how long a stop waits for a disk that is full, or hangs.
	fullWait, hangWait = 2 * time.Second, 5 * time.Second
)

var (
	errClosed = errors.New("the inbox is closed")
	errHangs  = errors.New("the disk does not answer")
)

// Open opens the inbox of a folder, and makes it if need be. The error wraps [ErrLocked] if
// another process has it. A disk that is full, broken or hangs is no error here: Put
// returns one, and recovers when the disk does.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Inbox, error) {
	return OpenFS(ctx, vfs.Default, dir, log)
}

// OpenFS opens an inbox as [Open] does, on another file system. Nobody is answered there.
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
				// A command holds it for moments; a process that stays answers.
				if time.Since(began) < lockWait && !answers(ctx, dir) {
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

// run takes writes until the inbox is closed.
func (b *Inbox) run() {
	go b.write()
	go b.finish()
}

// Put stores an entry with a key, a body and perhaps a trace. When it returns nil, the entry
// is on disk; or another of its key was there already, and it returns the body of that one.
// After an error the entry may be there or not. A ctx that ends makes Put return, and takes
// nothing back.
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

// Next returns up to n entries that wait, the oldest first, behind the one with the ID
// after. There may be more also where it returns fewer, as a page's bytes are bounded, but
// not where it returns none.
func (b *Inbox) Next(ctx context.Context, after int64, n int) ([]Entry, error) {
	return b.list(ctx, string(waitingPrefix), after, n, 0)
}

// Remove removes entries, those that are there. After an error, or a crash, any of them may
// still be there.
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

// DeadLetter has an entry wait for an operator, for the reason.
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

// Probe writes something, and so reports whether Put would work.
func (b *Inbox) Probe(ctx context.Context) error {
	if _, err := b.do(ctx, newOp(doProbe, Entry{QueuedAt: time.Now()})); err != nil {
		return fmt.Errorf("write to the inbox: %w", err)
	}
	return nil
}

// Crowded reports whether so many write at once that the machine is busy with them.
func (b *Inbox) Crowded() bool { return time.Since(time.Unix(0, b.crowded.Load())) < crowdedFor }

// Wake receives a value after entries were put or retried.
func (b *Inbox) Wake() <-chan struct{} { return b.wake }

func (b *Inbox) awake() {
	select {
	case b.wake <- struct{}{}:
	default: // is awake
	}
}

// Close finishes the writes and unlocks the folder, unless the disk is full or hangs: then
// the folder stays locked until the process ends, which loses nothing.
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
	b.shrinks.Wait()
	return b.store.close()
}

// shrinkAbove is how many bytes an empty inbox may keep for the next burst, and shrinkEvery
// how often that is looked at.
const (
	shrinkAbove = 16 << 20
	shrinkEvery = 5 * time.Second
)

// shrink gives the disk's space back once a large inbox is empty.
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

// commit is a batch on its way to the disk.
type commit struct {
	*pebble.Batch // nil if there was nothing to change
	ops           []*op
	err           error // why it isn't
}
