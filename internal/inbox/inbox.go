// Package inbox keeps callbacks on the disk from when they are acknowledged
// until Temporal has them. It knows nothing of either: a key, a body, an order.
//
// It is a Pebble store. Callers that write at the same time share a commit, and
// with it the sync that makes it last. One process has the store; it answers
// others, who look into it, on a socket in the folder.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/closeouthq/closeout/internal/probe"
)

// ErrLocked means that another process has the inbox.
var ErrLocked = errors.New("in use by another process")

// Inbox is the one writer of a folder's entries. It is safe for concurrent use.
type Inbox struct {
	*Store
	queue  *queue
	lock   *flock.Flock
	socket *socket

	closeOnce sync.Once
}

// Open takes the folder, and makes it if need be. The error wraps [ErrLocked] if
// another process has it. A disk that is full or broken is no error here: Put
// says so, and recovers when the disk does.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Inbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	lock, err := take(ctx, dir)
	if err != nil {
		return nil, err
	}
	q := newQueue(dir, log)
	open := func(ctx context.Context) error { return q.open(context.WithoutCancel(ctx)) }
	if _, err := probe.Do(ctx, openWithin, probe.Err(open)); err != nil {
		log.Error("the inbox can't be opened, trying again with each callback that needs it", "error", err)
	}
	q.run()
	b := &Inbox{Store: &Store{q}, queue: q, lock: lock}
	if b.socket, err = listen(dir, b.Store); err != nil {
		log.Error("nobody can look into the inbox beside this process", "error", err)
	}
	return b, nil
}

// openWithin is how long a start waits for the store; a million entries take a
// fraction of a second. A store that a disk holds up longer takes entries later.
const openWithin = 10 * time.Second

// patience is how long an inbox is waited for that somebody looks into, or takes,
// at this moment.
const patience = 5 * time.Second

// take locks the folder. Who holds it for a look gives it free soon; who doesn't
// answers on the socket.
func take(ctx context.Context, dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "inbox.lock"), flock.SetPermissions(0o600))
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		got, err := lock.TryLock()
		switch {
		case err != nil:
			return nil, fmt.Errorf("open inbox: lock %s: %w", lock.Path(), err)
		case got:
			return lock, nil
		case time.Since(began) > patience || ctx.Err() != nil || answers(dir):
			return nil, fmt.Errorf("open inbox %s: %w; stop that one, or choose another folder", dir, ErrLocked)
		}
	}
}

// Close finishes the writes that were asked for and gives the folder free, unless
// the disk is full or hangs: then it stays taken until the process ends, which loses
// nothing.
func (b *Inbox) Close() error {
	var err error
	b.closeOnce.Do(func() {
		b.socket.close()
		if err = b.Store.Close(); !errors.Is(err, errFull) && !errors.Is(err, errHangs) {
			err = errors.Join(err, b.lock.Close())
		}
	})
	return err
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
	err = b.queue.space.room(b.queue.space.reserve)
	if err == nil {
		kept, err = b.queue.do(ctx, newOp(doPut, e))
	} else {
		_ = b.queue.tell(err)
	}
	if err != nil {
		return nil, fmt.Errorf("put %s into the inbox: %w", e.Key, err)
	}
	b.queue.awake()
	return kept, nil
}

// Crowded says whether so many write at once that the machine has its hands full
// with them.
func (b *Inbox) Crowded() bool {
	return time.Since(time.Unix(0, b.queue.crowded.Load())) < crowdedFor
}

// Wake receives a value after entries were put, or given their turn again.
func (b *Inbox) Wake() <-chan struct{} { return b.queue.wake }

// Remove forgets entries, those that are there. After an error, or a crash, any of
// them may still be there.
func (b *Inbox) Remove(ctx context.Context, keys ...string) error {
	all := make([]*op, len(keys))
	for n, key := range keys {
		all[n] = newOp(doRemove, Entry{Key: key})
	}
	if _, err := b.queue.do(ctx, all...); err != nil {
		return fmt.Errorf("remove %d entries from the inbox: %w", len(keys), err)
	}
	return nil
}

// DeadLetter sets an entry aside, for the reason.
func (b *Inbox) DeadLetter(ctx context.Context, key, reason string) error {
	if _, err := b.queue.do(ctx, newOp(doShelve, Entry{Key: key, Reason: reason, SetAsideAt: time.Now()})); err != nil {
		return fmt.Errorf("set %s aside: %w", key, err)
	}
	return nil
}

// Probe writes something, and so tells whether Put would work.
func (b *Inbox) Probe(ctx context.Context) error {
	err := b.queue.space.room(b.queue.space.reserve)
	if err == nil {
		_, err = b.queue.do(ctx, newOp(doProbe, Entry{QueuedAt: time.Now()}))
	}
	if err != nil {
		return fmt.Errorf("write to the inbox: %w", err)
	}
	return nil
}
