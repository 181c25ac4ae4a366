package inbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// maxOps and maxBytes bound the writes that share a commit, and maxOps those that wait
	// for the next one.
	maxOps, maxBytes = 1024, 1 << 20
	// maxUnwritten bounds the bodies that aren't on the disk yet, as a disk may be slow and
	// bodies large.
	maxUnwritten = 16 << 20
	// maxCommits is how many commits are on their way to the disk. A sync covers all that
	// are there when it begins.
	maxCommits = 8
	// commitEvery is how far apart commits begin with fewer than fullCommit writes. One that
	// comes alone doesn't wait; those that come one after the other share their syncs, each
	// of which costs as much as several entries.
	commitEvery, fullCommit = 4 * time.Millisecond, 32
	// A commit of so many new entries is a crowd: some 3,000 a second. The inbox is crowded
	// until there was none for so long.
	crowd, crowdedFor = 12, 200 * time.Millisecond
	// openEvery is how far apart attempts to open the store are.
	openEvery = 200 * time.Millisecond
)

// kind is what an op does.
type kind int

const (
	doPut kind = iota
	doRemove
	doDrop
	doDeadLetter
	doRetry
	doProbe
)

// op is a change that somebody waits for.
type op struct {
	kind kind
	Entry
	fault error  // its own: nothing else of the commit fails for it
	kept  []byte // body of the entry that was there in its place
	size  int64  // of the body, as long as it isn't written
	done  chan error
}

func newOp(k kind, e Entry) *op { return &op{kind: k, Entry: e, done: make(chan error, 1)} }

// do has changes made, and returns the first error.
func (b *Inbox) do(ctx context.Context, all ...*op) (kept []byte, err error) {
	full := b.disk.isFull()
	for _, o := range all {
		if err := b.room(ctx, full, o); err != nil {
			return nil, err
		}
		if err := b.enqueue(ctx, full, o); err != nil {
			b.unwritten.Release(o.size)
			return nil, err
		}
	}
	for _, o := range all {
		select {
		case err := <-o.done:
			if err != nil {
				return nil, err
			}
			kept = o.kept
		case <-full:
			b.outage.Fail(errFull)
			return nil, errFull
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return kept, nil
}

// room waits for the memory of a body.
func (b *Inbox) room(ctx context.Context, full <-chan struct{}, o *op) error {
	o.size = min(int64(len(o.Body)), maxUnwritten)
	if o.size == 0 || b.unwritten.TryAcquire(o.size) {
		return nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	acquired := make(chan error, 1)
	go func() { acquired <- b.unwritten.Acquire(waiting, o.size) }()
	select {
	case err := <-acquired:
		if err != nil {
			return context.Cause(ctx)
		}
		return nil
	case <-full:
		if cancel(); <-acquired == nil {
			b.unwritten.Release(o.size)
		}
		b.outage.Fail(errFull)
		return errFull
	}
}

func (b *Inbox) enqueue(ctx context.Context, full <-chan struct{}, o *op) error {
	b.closing.RLock()
	defer b.closing.RUnlock()
	if b.closed {
		return errClosed
	}
	select {
	case b.ops <- o:
		return nil
	default:
	}
	select {
	case b.ops <- o:
		return nil
	case <-full:
		b.outage.Fail(errFull)
		return errFull
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write opens the store and makes the changes: what comes while a commit is made goes into
// the next one.
func (b *Inbox) write() {
	defer close(b.commits)
	var began time.Time
	for {
		var again <-chan time.Time
		if b.ensureOpen() != nil {
			again = time.After(openEvery)
		}
		var first *op
		select {
		case first = <-b.ops:
			if first == nil {
				return // closed
			}
		case <-again:
			continue
		}
		batch := b.collect(first, commitEvery-time.Since(began))
		began = time.Now()
		puts := 0
		for _, o := range batch {
			if o.kind == doPut {
				puts++
			}
		}
		if puts >= crowd { // only new entries come from outside
			b.crowded.Store(began.UnixNano())
		}
		for len(batch) > 0 {
			batch = batch[b.commit(batch):]
		}
	}
}

// ensureOpen opens the store unless it is open, or was tried a moment ago.
func (b *Inbox) ensureOpen() error {
	_, done, err := b.use()
	if err == nil {
		done()
		return nil
	}
	if time.Since(b.attempt) < openEvery {
		return err
	}
	err = b.open()
	b.attempt = time.Now()
	if err == nil && b.serve && b.server.Load() == nil {
		s, err := serve(b.dir, b.Store)
		if err != nil {
			b.log.Error("inbox socket not open, no command can look into the inbox", "error", err)
		}
		b.server.Store(s)
	}
	select {
	case b.opened <- err:
	default: // nobody waits for it
	}
	return err
}

// collect returns what is written together with the first: all that is there, and unless
// that is enough, what comes within that time.
func (b *Inbox) collect(first *op, within time.Duration) []*op {
	batch, size := []*op{first}, len(first.Body)
	var late <-chan time.Time
	if within > 0 {
		timer := time.NewTimer(within)
		defer timer.Stop()
		late = timer.C
	}
	for len(batch) < maxOps && size < maxBytes {
		var o *op
		var open bool
		select {
		case o, open = <-b.ops:
		default:
			if late == nil || len(batch) >= fullCommit {
				return batch
			}
			select {
			case o, open = <-b.ops:
			case <-late:
				late = nil
				continue
			}
		}
		if !open {
			return batch
		}
		batch, size = append(batch, o), size+len(o.Body)
	}
	return batch
}

// commit begins to write the first of the batch, and returns how many.
func (b *Inbox) commit(batch []*op) int {
	if b.broken.Load() {
		b.onWay.Wait() // all of them have failed
		b.log.Warn("inbox disk failed, opening its store again", "error", b.shut(errBroken))
		b.broken.Store(false)
		b.attempt = time.Time{}
	}
	c := commit{ops: batch}
	if c.err = b.ensureOpen(); c.err == nil {
		c.Batch, c.ops, c.err = b.change(batch)
	}
	b.onWay.Add(1)
	b.commits <- c
	return len(c.ops)
}

var errBroken = errors.New("write to inbox: the disk has failed")

// change makes the first of the changes, all unless one needs to read what another has
// written. They can be read at once, and are on disk later.
func (b *Inbox) change(batch []*op) (*pebble.Batch, []*op, error) {
	clear(b.changed)
	space := b.disk.check(b.reserve)
	w := writer{db: b.db, Batch: b.db.NewBatch(), next: b.next.Load(), changed: b.changed}
	n := 0
	for ; n < len(batch); n++ {
		o := batch[n]
		if _, changed := w.changed[o.Key]; changed && (o.kind == doDeadLetter || o.kind == doRetry) {
			break
		}
		if o.fault = space; space == nil || o.kind != doPut && o.kind != doProbe {
			o.fault = w.do(o)
		}
	}
	batch = batch[:n]
	if w.Empty() {
		return nil, batch, w.Close()
	}
	if err := b.db.ApplyNoSyncWait(w.Batch, pebble.Sync); err != nil {
		return nil, batch, fmt.Errorf("write to inbox: %w", err)
	}
	b.waiting.Add(w.waiting)
	b.dead.Add(w.dead)
	b.next.Store(w.next)
	for _, id := range w.back {
		b.before(id)
	}
	if len(w.back) > 0 {
		b.awake()
	}
	return w.Batch, batch, nil
}

// writer makes a batch of changes.
type writer struct {
	db *pebble.DB
	*pebble.Batch
	next          int64            // ID that is free
	changed       map[string]place // where the batch puts entries; nowhere if it removes them
	waiting, dead int64            // how many more there are
	back          []int64          // IDs that wait again
}

// do adds the change of an op. Its errors are the op's own.
func (w *writer) do(o *op) error {
	if o.kind == doProbe {
		return w.Set([]byte(probeKey), binary.AppendUvarint(nil, uint64(o.QueuedAt.UnixMilli())), nil)
	}
	is, changed := w.changed[o.Key]
	if !changed {
		var err error
		if is, err = find(w.db, o.Key); err != nil {
			return err
		}
	}
	there := is != place{}
	switch {
	case o.kind == doPut && there:
		if first, err := read(w.db, is); err == nil { // else it is of this very batch
			o.kept = first.Body
		}
		return nil
	case o.kind == doPut:
		return w.put(place{waitingPrefix, w.next}, &o.Entry)
	case !there && (o.kind == doDrop || o.kind == doRetry):
		return fmt.Errorf("%s: %w", o.Key, ErrNone)
	case !there:
		return nil
	case o.kind == doDeadLetter || o.kind == doRetry:
		return w.move(is, o)
	}
	return w.remove(is, o.Key)
}

func (w *writer) put(at place, e *Entry) error {
	w.add(at.prefix, 1)
	w.next = max(w.next, at.id+1)
	w.changed[e.Key] = at
	return errors.Join(w.Set(at.key(), e.encode(), nil), w.Set(nameOf(e.Key), at.key(), nil))
}

func (w *writer) remove(at place, key string) error {
	w.add(at.prefix, -1)
	w.changed[key] = place{}
	return errors.Join(w.Delete(at.key(), nil), w.Delete(nameOf(key), nil))
}

// move makes an entry a dead letter, or has it wait at its place again.
func (w *writer) move(is place, o *op) error {
	e, err := read(w.db, is)
	if err != nil {
		return err
	}
	to := place{waitingPrefix, is.id}
	e.DeadAt, e.Reason = o.DeadAt, o.Reason
	if o.kind == doDeadLetter {
		to.prefix = deadPrefix
	} else {
		w.back = append(w.back, is.id)
	}
	return errors.Join(w.remove(is, o.Key), w.put(to, &e))
}

func (w *writer) add(prefix byte, n int64) {
	if prefix == deadPrefix {
		w.dead += n
	} else {
		w.waiting += n
	}
}

// finish reports to the callers when their changes are on disk.
func (b *Inbox) finish() {
	defer close(b.done)
	for c := range b.commits {
		err := c.err
		switch {
		case c.Batch != nil:
			if err = c.SyncWait(); err != nil {
				b.broken.Store(true)
				err = fmt.Errorf("write to inbox: %w", err)
			}
			_ = c.Close()
		case err == nil && b.broken.Load():
			err = errBroken // what is there already may not be on disk
		}
		b.onWay.Done()
		outside, outsideErr := err != nil, err
		for _, o := range c.ops {
			fault := err
			if fault == nil {
				fault = o.fault
			}
			if o.kind == doPut || o.kind == doProbe { // what is removed may be written while nothing else is
				outside, outsideErr = true, fault
			}
			b.unwritten.Release(o.size)
			o.done <- fault
		}
		switch {
		case outside && outsideErr != nil:
			b.outage.Fail(outsideErr)
		case outside:
			b.outage.End()
		}
		if err == nil {
			b.shrink()
		}
	}
}
