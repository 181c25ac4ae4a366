// Package inbox keeps callbacks on the disk from when they are acknowledged
// until Temporal has them. It knows nothing of either: a key, a body, an order.
//
// It is a SQLite database, so that people can look into it with the tools that
// they have, and beside a running process. Callers that write at the same time
// share a transaction, and with it the sync that makes it last.
package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
)

// ErrLocked means that another process has the inbox.
var ErrLocked = errors.New("in use by another process")

const (
	// mostOps bounds the writes that share a transaction, and those that wait for
	// the next one without a goroutine of the caller being held up.
	mostOps = 1024
	// vacuumAbove is how many bytes an empty inbox may keep for the next burst.
	vacuumAbove = 16 << 20
	// A transaction of that many new entries is a crowd: some 3,000 a second. The
	// inbox is crowded until there was none for so long.
	crowd, crowdedFor = 12, 200 * time.Millisecond
	// full is how many writes don't wait for more.
	full = 32
	// pace is how far apart transactions begin that are not full: an entry that
	// comes alone doesn't wait, and those that come one after the other share their
	// syncs, each of which costs as much as several entries.
	pace = 4 * time.Millisecond
	// shrinkEvery is how often that is looked at, at most.
	shrinkEvery = 5 * time.Second
)

// Inbox is the one writer of a folder's entries. It is safe for concurrent use.
type Inbox struct {
	*Store
	lock *flock.Flock
	log  *slog.Logger

	crowded atomic.Int64 // when it was last, in Unix nanoseconds

	ops  chan op
	wake chan struct{}
	done chan struct{}

	closing   sync.RWMutex
	closed    bool
	closeOnce sync.Once
}

// Open takes the folder, and makes it if need be. The error wraps [ErrLocked] if
// another process has it. A disk that is full or broken is no error here: Put
// says so, and recovers when the disk does.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Inbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "inbox.lock"), flock.SetPermissions(0o600))
	if got, err := lock.TryLock(); err != nil {
		return nil, fmt.Errorf("open inbox: lock %s: %w", lock.Path(), err)
	} else if !got {
		return nil, fmt.Errorf("open inbox %s: %w; stop that one, or choose another folder", dir, ErrLocked)
	}
	b := &Inbox{
		Store: &Store{path: filepath.Join(dir, File), create: true},
		lock:  lock,
		log:   log,
		ops:   make(chan op, mostOps),
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
	}
	if _, err := b.open(ctx); err != nil {
		log.Error("the inbox can't be opened, trying again with each callback that needs it", "error", err)
	} else if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		log.Error("the inbox's folder can't be synced", "error", err)
	}
	go b.write()
	return b, nil
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

// Close finishes the writes that were asked for and gives the folder free.
func (b *Inbox) Close() error {
	var err error
	b.closeOnce.Do(func() {
		b.closing.Lock()
		b.closed = true
		close(b.ops)
		b.closing.Unlock()
		<-b.done
		err = errors.Join(b.Store.Close(), b.lock.Close())
	})
	return err
}

const insert = `INSERT INTO callbacks (key, body, queued_at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING`

// Put keeps an entry. When it returns nil, the entry is on the disk, or one of
// the same key was there already. After an error it may be there or not. A ctx
// that ends makes Put return, and takes nothing back.
func (b *Inbox) Put(ctx context.Context, key string, body []byte) error {
	if len(body) == 0 {
		// It would be NULL, and take with it what shares its transaction.
		return fmt.Errorf("put %s into the inbox: it has no body", key)
	}
	now := time.Now().UnixMilli()
	err := b.do(ctx, newOp(insert, key, body, now))
	if err != nil {
		return fmt.Errorf("put %s into the inbox: %w", key, err)
	}
	select {
	case b.wake <- struct{}{}:
	default: // is awake
	}
	return nil
}

// Crowded says whether so many write at once that the machine has its hands full
// with them.
func (b *Inbox) Crowded() bool {
	return time.Since(time.Unix(0, b.crowded.Load())) < crowdedFor
}

// Wake receives a value after entries were put.
func (b *Inbox) Wake() <-chan struct{} { return b.wake }

// Remove forgets entries, those that are there. After an error, or a crash, any of
// them may still be there.
func (b *Inbox) Remove(ctx context.Context, keys ...string) error {
	ops := make([]op, len(keys))
	for n, key := range keys {
		ops[n] = newOp(`DELETE FROM callbacks WHERE key = $1`, key)
	}
	if err := b.do(ctx, ops...); err != nil {
		return fmt.Errorf("remove %d entries from the inbox: %w", len(keys), err)
	}
	return nil
}

// Shelve sets an entry aside, for the reason.
func (b *Inbox) Shelve(ctx context.Context, key, reason string) error {
	err := b.do(ctx, newOp(`UPDATE callbacks SET set_aside_at = $2, reason = $3 WHERE key = $1`, key, time.Now().UnixMilli(), reason))
	if err != nil {
		return fmt.Errorf("set %s aside: %w", key, err)
	}
	return nil
}

// Probe writes something, and so tells whether Put would work.
func (b *Inbox) Probe(ctx context.Context) error {
	err := b.do(ctx, newOp(`INSERT INTO probe (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, time.Now().UnixMilli()))
	if err != nil {
		return fmt.Errorf("write to the inbox: %w", err)
	}
	return nil
}

// op is a statement that somebody waits for.
type op struct {
	statement string
	args      []any
	done      chan error
}

func newOp(statement string, args ...any) op {
	return op{statement, args, make(chan error, 1)}
}

// do has the statements executed, and gives the first error.
func (b *Inbox) do(ctx context.Context, ops ...op) error {
	for _, o := range ops {
		if err := b.enqueue(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range ops {
		select {
		case err := <-o.done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (b *Inbox) enqueue(ctx context.Context, o op) error {
	b.closing.RLock()
	defer b.closing.RUnlock()
	if b.closed {
		return errors.New("the inbox is closed")
	}
	select {
	case b.ops <- o:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write does what is asked for: everything that came while the last transaction
// was under way goes into the next one.
func (b *Inbox) write() {
	defer close(b.done)
	failing := false
	var began, shrunk time.Time
	for first := range b.ops {
		batch := b.collect(first, pace-time.Since(began))
		began = time.Now()
		if puts(batch) >= crowd {
			b.crowded.Store(began.UnixNano())
		}
		err := b.commit(batch)
		if (err != nil) != failing {
			if failing = err != nil; failing {
				b.log.Error("the inbox can't be written to", "error", err)
			} else {
				b.log.Info("the inbox can be written to again")
			}
		}
		for _, o := range batch {
			o.done <- err
		}
		if err == nil && len(b.ops) == 0 && time.Since(shrunk) > shrinkEvery {
			b.shrink()
			shrunk = time.Now()
		}
	}
}

// puts counts the entries that are put: only they come from outside.
func puts(batch []op) (n int) {
	for _, o := range batch {
		if o.statement == insert {
			n++
		}
	}
	return n
}

// collect gives what is to be written together with the first: all that is there,
// and unless that is enough, what comes within that time.
func (b *Inbox) collect(first op, within time.Duration) []op {
	batch := []op{first}
	var late <-chan time.Time
	if within > 0 {
		timer := time.NewTimer(within)
		defer timer.Stop()
		late = timer.C
	}
	for len(batch) < mostOps {
		select {
		case o, open := <-b.ops:
			if !open {
				return batch
			}
			batch = append(batch, o)
			continue
		default:
		}
		if late == nil || len(batch) >= full {
			return batch
		}
		select {
		case o, open := <-b.ops:
			if !open {
				return batch
			}
			batch = append(batch, o)
		case <-late:
			late = nil
		}
	}
	return batch
}

// commit does the batch in one transaction, all of it: what a caller is told
// must be true also for one whose context ends at this very moment.
func (b *Inbox) commit(batch []op) error {
	ctx := context.Background()
	return b.transact(ctx, func(tx *sql.Tx) error {
		prepared := map[string]*sql.Stmt{}
		for _, o := range batch {
			statement := prepared[o.statement]
			if statement == nil {
				var err error
				if statement, err = tx.PrepareContext(ctx, o.statement); err != nil {
					return err
				}
				defer statement.Close()
				prepared[o.statement] = statement
			}
			if _, err := statement.ExecContext(ctx, o.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// shrink gives the disk's space back once a large inbox is empty.
func (b *Inbox) shrink() {
	ctx := context.Background()
	db, err := b.open(ctx)
	if err != nil {
		return
	}
	var pages, size int64
	var used bool
	err = db.QueryRowContext(ctx, `SELECT page_count, page_size, EXISTS (SELECT 1 FROM callbacks) FROM pragma_page_count, pragma_page_size`).Scan(&pages, &size, &used)
	if err != nil || used || pages*size <= vacuumAbove {
		return
	}
	if _, err := db.ExecContext(ctx, `VACUUM`); err != nil {
		b.log.Warn("the inbox's file can't be made smaller", "error", err)
		return
	}
	if _, err := db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		b.log.Warn("the inbox's log can't be made smaller", "error", err)
	}
}
