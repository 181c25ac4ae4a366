package inbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/closeouthq/closeout/internal/outage"
)

const (
	// mostOps and mostBytes bound the writes that share a commit, and mostOps those
	// that wait for the next one without a goroutine of the caller being held up.
	mostOps, mostBytes = 1024, 1 << 20
	// mostCommits is how many commits are on their way to the disk at once. A sync
	// covers all that are there when it begins.
	mostCommits = 8
	// A commit of that many new entries is a crowd: some 3,000 a second. The inbox is
	// crowded until there was none for so long.
	crowd, crowdedFor = 12, 200 * time.Millisecond
	// full is how many writes don't wait for more.
	full = 32
	// pace is how far apart commits begin that are not full: an entry that comes alone
	// doesn't wait, and those that come one after the other share their syncs, each
	// of which costs as much as several entries.
	pace = 4 * time.Millisecond
	// shrinkAbove is how many bytes an empty inbox may keep for the next burst, and
	// shrinkEvery how often that is looked at, at most.
	shrinkAbove = 16 << 20
	shrinkEvery = 5 * time.Second
	// closeWithin is how long a stop waits for a disk that is full.
	closeWithin = 2 * time.Second
	// hangsWithin is how long a stop waits for a disk that answers nothing. Kubernetes
	// kills ten seconds after all that the settings give a stop.
	hangsWithin = 5 * time.Second
)

// errHangs means that the disk has not answered.
var errHangs = errors.New("the disk does not answer")

// queue is a store that is written to: by one goroutine, so that what is there
// already is known, and what comes at the same time shares a commit.
type queue struct {
	*disk
	ops     chan *op
	commits chan commit
	done    chan struct{} // closed when all was done
	wake    chan struct{}

	crowded atomic.Int64 // when it was last, in Unix nanoseconds
	outage  *outage.Outage
	// broken is set when the disk has failed, until the store was opened again.
	broken atomic.Bool
	// onWay are the commits that may still fail.
	onWay sync.WaitGroup

	shrinking sync.WaitGroup
	shrunk    time.Time // or looked whether it has to be
	stop      context.CancelFunc
	stopped   context.Context // of what goes on in the background

	changed map[string]place // in the batch that is made; it is used again

	closing sync.RWMutex
	closed  bool
}

func newQueue(dir string, log *slog.Logger) *queue {
	q := &queue{
		disk:    &disk{dir: dir, log: log, space: newSpace(dir)},
		ops:     make(chan *op, mostOps),
		commits: make(chan commit, mostCommits),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		changed: map[string]place{},
	}
	q.outage = outage.New(log, "inbox disk", "callbacks depend on Temporal and the ledger alone")
	q.stopped, q.stop = context.WithCancel(context.Background())
	return q
}

// run takes writes until the queue is closed.
func (q *queue) run() {
	go q.write()
	go q.finish()
}

// close finishes the writes that were asked for. On a disk that is full it may
// have to leave the store open: who opens it next reads what was written.
func (q *queue) close() error {
	q.closing.Lock()
	if q.closed {
		q.closing.Unlock()
		return nil
	}
	q.closed = true
	close(q.ops)
	q.closing.Unlock()
	q.stop()
	wait, why := hangsWithin, errHangs
	select {
	case <-q.space.isFull():
		wait, why = closeWithin, errFull
	default:
	}
	select {
	case <-q.done:
	case <-time.After(wait):
		return fmt.Errorf("close inbox: %w", why)
	}
	q.shrinking.Wait()
	return q.end()
}

// kind is what an op does.
type kind int

const (
	doPut kind = iota
	doRemove
	doDrop
	doShelve
	doRetry
	doProbe
)

// op is a change that somebody waits for.
type op struct {
	kind kind
	Entry
	fault error // its own: nothing else of the commit fails for it
	done  chan error
}

// ops are used again: there is one for each callback.
var ops = sync.Pool{New: func() any { return &op{done: make(chan error, 1)} }}

func newOp(k kind, e Entry) *op {
	o := ops.Get().(*op)
	o.kind, o.Entry, o.fault = k, e, nil
	return o
}

// do has the changes made, and gives the first error.
func (q *queue) do(ctx context.Context, all ...*op) error {
	full := q.space.isFull()
	for _, o := range all {
		if err := q.enqueue(ctx, full, o); err != nil {
			return err
		}
	}
	for _, o := range all {
		select {
		case err := <-o.done:
			o.Entry = Entry{}
			ops.Put(o)
			if err != nil {
				return err
			}
		case <-full:
			return q.tell(errFull)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (q *queue) enqueue(ctx context.Context, full <-chan struct{}, o *op) error {
	q.closing.RLock()
	defer q.closing.RUnlock()
	if q.closed {
		return errors.New("the inbox is closed")
	}
	select {
	case q.ops <- o:
		return nil
	default:
	}
	select {
	case q.ops <- o:
		return nil
	case <-full:
		return q.tell(errFull)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell tells the outage what became of a write.
func (q *queue) tell(err error) error {
	if err != nil {
		q.outage.Fail(err)
	} else {
		q.outage.End()
	}
	return err
}

func (q *queue) retry(ctx context.Context, key string) error {
	return q.do(ctx, newOp(doRetry, Entry{Key: key}))
}

func (q *queue) drop(ctx context.Context, key string) error {
	return q.do(ctx, newOp(doDrop, Entry{Key: key}))
}

// write makes the changes that are asked for: everything that came while the last
// commit was made goes into the next one.
func (q *queue) write() {
	defer close(q.commits)
	var began time.Time
	for first := range q.ops {
		batch := q.collect(first, pace-time.Since(began))
		began = time.Now()
		if puts(batch) >= crowd {
			q.crowded.Store(began.UnixNano())
		}
		for len(batch) > 0 {
			n := q.commit(batch)
			batch = batch[n:]
		}
	}
}

// puts counts the entries that are put: only they come from outside.
func puts(batch []*op) (n int) {
	for _, o := range batch {
		if o.kind == doPut {
			n++
		}
	}
	return n
}

// collect gives what is to be written together with the first: all that is there,
// and unless that is enough, what comes within that time.
func (q *queue) collect(first *op, within time.Duration) []*op {
	batch, size := []*op{first}, len(first.Body)
	var late <-chan time.Time
	if within > 0 {
		timer := time.NewTimer(within)
		defer timer.Stop()
		late = timer.C
	}
	for len(batch) < mostOps && size < mostBytes {
		var o *op
		var open bool
		select {
		case o, open = <-q.ops:
		default:
			if late == nil || len(batch) >= full {
				return batch
			}
			select {
			case o, open = <-q.ops:
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

// commit is a batch on its way to the disk.
type commit struct {
	*pebble.Batch // nil if there was nothing to change
	ops           []*op
	err           error // why it isn't
}

// commit begins to write the first of the batch, and tells how many.
func (q *queue) commit(batch []*op) int {
	if q.broken.Load() {
		q.onWay.Wait() // all of them have failed
		q.log.Warn("the inbox's disk has failed, its store is opened again", "error", q.shut())
		q.broken.Store(false)
	}
	c := commit{ops: batch}
	if c.err = q.open(context.Background()); c.err == nil {
		c.Batch, c.ops, c.err = q.change(batch)
	}
	q.onWay.Add(1)
	q.commits <- c
	return len(c.ops)
}

// change makes the first of the changes, all unless one needs to read what another
// has written. They can be read at once, and are on the disk later.
func (q *queue) change(batch []*op) (*pebble.Batch, []*op, error) {
	clear(q.changed)
	w := writer{db: q.db, Batch: q.db.NewBatch(), keys: q.keys, next: q.next.Load(), changed: q.changed}
	n := 0
	for ; n < len(batch); n++ {
		o := batch[n]
		if _, changed := w.changed[o.Key]; changed && (o.kind == doShelve || o.kind == doRetry) {
			break
		}
		o.fault = w.do(o)
	}
	batch = batch[:n]
	if w.Empty() {
		return nil, batch, w.Close()
	}
	if err := q.db.ApplyNoSyncWait(w.Batch, pebble.Sync); err != nil {
		return nil, batch, fmt.Errorf("write to inbox: %w", err)
	}
	waiting := q.waiting.Add(w.waiting)
	if q.aside.Add(w.aside) == 0 && waiting == 0 {
		q.keys.empty()
	}
	q.next.Store(w.next)
	for _, id := range w.back {
		q.before(id)
	}
	if len(w.back) > 0 {
		q.awake()
	}
	return w.Batch, batch, nil
}

// writer makes a batch of changes.
type writer struct {
	db *pebble.DB
	*pebble.Batch
	keys           *keys
	next           int64            // ID that is free
	changed        map[string]place // where the batch puts entries; nowhere if it removes them
	waiting, aside int64            // how many more there are
	back           []int64          // IDs that are in the queue again
}

// do adds what the op changes. Its errors are the op's own.
func (w *writer) do(o *op) error {
	if o.kind == doProbe {
		return w.Set([]byte(probeKey), binary.AppendUvarint(nil, uint64(o.QueuedAt.UnixMilli())), nil)
	}
	is, changed := w.changed[o.Key]
	if name := nameOf(o.Key); !changed && w.keys.mayHave(name) {
		var err error
		if is, err = findName(w.db, name); err != nil {
			return err
		}
	}
	there := is != place{}
	switch o.kind {
	case doPut:
		if there {
			return nil
		}
		return w.put(place{queuePrefix, w.next}, &o.Entry)
	case doRemove, doDrop:
		if there {
			return w.remove(is, o.Key)
		}
	case doShelve, doRetry:
		if there {
			return w.move(is, o)
		}
	}
	if o.kind == doDrop || o.kind == doRetry {
		return fmt.Errorf("%s: %w", o.Key, ErrNone)
	}
	return nil
}

func (w *writer) put(at place, e *Entry) error {
	w.add(at.prefix, 1)
	w.next = max(w.next, at.id+1)
	w.changed[e.Key] = at
	name := nameOf(e.Key)
	w.keys.add(name)
	return errors.Join(w.Set(at.key(), e.encode(), nil), w.Set(name, at.value(), nil))
}

func (w *writer) remove(at place, key string) error {
	w.add(at.prefix, -1)
	w.changed[key] = place{}
	return errors.Join(w.Delete(at.key(), nil), w.Delete(nameOf(key), nil))
}

// move sets an entry aside, or gives it its place in the queue again.
func (w *writer) move(is place, o *op) error {
	e, err := read(w.db, is)
	if err != nil {
		return err
	}
	to := place{queuePrefix, is.id}
	e.SetAsideAt, e.Reason = time.Time{}, ""
	if o.kind == doShelve {
		to.prefix = asidePrefix
		e.SetAsideAt, e.Reason = o.SetAsideAt, o.Reason
	} else {
		w.back = append(w.back, is.id)
	}
	return errors.Join(w.remove(is, o.Key), w.put(to, &e))
}

func (w *writer) add(prefix byte, n int64) {
	if prefix == asidePrefix {
		w.aside += n
	} else {
		w.waiting += n
	}
}

// finish tells the callers when their changes are on the disk.
func (q *queue) finish() {
	defer close(q.done)
	for c := range q.commits {
		err := c.err
		switch {
		case c.Batch != nil:
			if err = c.SyncWait(); err != nil {
				q.broken.Store(true)
				err = fmt.Errorf("write to inbox: %w", err)
			}
			_ = c.Close()
		case err == nil && q.broken.Load():
			err = errors.New("write to inbox: the disk has failed") // what is there already may not be on the disk
		}
		q.onWay.Done()
		fromOutside := err != nil
		for _, o := range c.ops {
			fromOutside = fromOutside || o.kind == doPut || o.kind == doProbe
			if err != nil {
				o.done <- err
			} else {
				o.done <- o.fault
			}
		}
		if fromOutside { // what is removed may be written while nothing else is
			_ = q.tell(err)
		}
		if err == nil && len(q.ops) == 0 && time.Since(q.shrunk) > shrinkEvery {
			q.shrunk = time.Now()
			q.shrink()
		}
	}
}

// awake has the relay look into the inbox.
func (q *queue) awake() {
	select {
	case q.wake <- struct{}{}:
	default: // is awake
	}
}

// shrink gives the disk's space back once a large inbox is empty.
func (q *queue) shrink() {
	db, done, err := q.use(q.stopped)
	if err != nil {
		return
	}
	if q.waiting.Load()+q.aside.Load() > 0 || db.Metrics().Total().TablesSize <= shrinkAbove {
		done()
		return
	}
	q.shrinking.Go(func() {
		defer done()
		if err := db.Compact(q.stopped, []byte{0}, []byte{0xff}, false); err != nil && q.stopped.Err() == nil {
			q.log.Warn("the inbox's files can't be made smaller", "error", err)
		}
	})
}
