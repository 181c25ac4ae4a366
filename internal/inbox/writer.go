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
	// maxOps and maxBytes bound a commit. maxOps also bounds the queue for the next one.
	maxOps, maxBytes = 1024, 1 << 20
	// maxCommits bounds the commits in progress. A sync covers all commits before it.
	maxCommits = 8
	// commitEvery is the least time between the starts of commits with fewer than fullCommit
	// writes. A single write does not wait. Writes that follow one another share syncs,
	// because a sync costs as much as several entries.
	commitEvery, fullCommit = 4 * time.Millisecond, 32
	// A commit with crowd new entries is a burst, of some 3,000 entries a second. The inbox
	// counts as crowded for crowdedFor after it.
	crowd, crowdedFor = 12, 200 * time.Millisecond
	// openEvery is the least time between attempts to open the store.
	openEvery = 200 * time.Millisecond
)

// maxUnwritten bounds the bodies that are not on disk yet, in bytes. The simulation lowers it.
var maxUnwritten int64 = 16 << 20

// kind is the kind of an op.
type kind int

const (
	doPut kind = iota
	doRemove
	doDrop
	doDeadLetter
	doRetry
	doProbe
)

// op is a change to one entry.
type op struct {
	kind kind
	Entry
	fault error  // of this op alone
	kept  []byte // body of the existing entry of the key
	size  int64  // bytes acquired from unwritten
	done  chan error
}

func newOp(k kind, e Entry) *op { return &op{kind: k, Entry: e, done: make(chan error, 1)} }

// do makes changes and returns the first error.
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

// room waits until the body of o fits into unwritten.
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

// write opens the store and commits changes in batches until the inbox is closed.
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
		if puts >= crowd { // only new entries come from callbacks
			b.crowded.Store(began.UnixNano())
		}
		for len(batch) > 0 {
			batch = batch[b.commit(batch):]
		}
	}
}

// ensureOpen opens the store unless it is open or the last attempt is recent.
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
	default: // Open has returned
	}
	return err
}

// collect returns the batch that begins with first: all queued ops, and if they are few,
// those that arrive within the given time.
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

// commit begins to write the first ops of the batch and returns their number.
func (b *Inbox) commit(batch []*op) int {
	if b.broken.Load() {
		b.onWay.Wait() // all commits in progress have failed
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

// change applies the first ops of the batch: all, unless one must read what an earlier one
// has written. They are readable at once, and on disk after SyncWait.
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
		b.lowerHead(id)
	}
	if len(w.back) > 0 {
		b.awake()
	}
	return w.Batch, batch, nil
}

// writer builds a batch of changes.
type writer struct {
	db *pebble.DB
	*pebble.Batch
	next          int64            // next free ID
	changed       map[string]place // by key; the zero place if the batch removes the entry
	waiting, dead int64            // changes of the counts
	back          []int64          // IDs of retried dead letters
}

// do adds the change of an op. Its error concerns this op alone.
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
		if first, err := read(w.db, is); err == nil { // an error means that the entry is in this batch
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

// move turns a waiting entry into a dead letter, or a dead letter into a waiting entry of
// the same ID.
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

// finish waits for syncs and reports the results to the callers.
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
			err = errBroken // earlier changes may not be on disk
		}
		b.onWay.Done()
		outside, outsideErr := err != nil, err
		for _, o := range c.ops {
			fault := err
			if fault == nil {
				fault = o.fault
			}
			if o.kind == doPut || o.kind == doProbe { // a full disk may still take removals
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
