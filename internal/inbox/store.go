package inbox

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrNone means that there is no such entry.
var ErrNone = errors.New("not in the inbox")

// Entry is a callback that was acknowledged and that Temporal doesn't have yet,
// as far as the inbox knows.
type Entry struct {
	// ID orders the entries by arrival. An ID may be given again once its entry
	// is gone.
	ID int64
	// Key names the entry: there is one of a key.
	Key string
	// Body is what was put.
	Body []byte
	// QueuedAt is when, to the millisecond.
	QueuedAt time.Time
	// SetAsideAt is when it was set aside; zero while it waits for its turn.
	SetAsideAt time.Time
	// Reason is why it was set aside.
	Reason string
}

// Stats tell how full an inbox is.
type Stats struct {
	// Waiting is how many entries wait for their turn.
	Waiting int64
	// SetAside is how many wait for a person.
	SetAside int64
	// Oldest is when the first of those that wait for their turn was queued; zero
	// without any.
	Oldest time.Time
}

// Store reads and changes the entries of a folder, in the process that has the
// [Inbox] or beside it. It is safe for concurrent use.
type Store struct{ source }

// source is where a Store has its entries.
type source interface {
	// list returns entries with one of the prefixes, in order, behind the ID: none if
	// there are no more.
	list(ctx context.Context, prefixes string, after int64, limit limit) ([]Entry, error)
	get(ctx context.Context, key string) (Entry, error)
	retry(ctx context.Context, key string) error
	drop(ctx context.Context, key string) error
	stats(ctx context.Context) (Stats, error)
	close() error
}

// limit bounds a list, which has maxPageBytes at most as well.
type limit struct {
	// N is how many entries it may have.
	N int
	// MaxBody is how large a body may be that is listed with its entry; 0: any.
	MaxBody int
}

const (
	// maxPageBytes bounds the entries that are read at once, unless a single one is
	// larger. Several pages may be in memory, of this process and of those that ask it,
	// which share a container's few hundred megabytes.
	maxPageBytes = 1 << 20
	// maxListedBody is how large a body is that lists for people have: all but those
	// of recordings with many files.
	maxListedBody = 4 << 10
)

// size is what an entry takes of a page.
func (e *Entry) size() int { return len(e.Key) + len(e.Reason) + len(e.Body) }

// Close gives free what the store holds.
func (s *Store) Close() error { return s.close() }

// Next returns up to n entries that wait for their turn, the oldest first, behind
// the one with the ID after. There may be more also where it returns fewer, as a
// page's bytes are bounded, but not where it returns none.
func (s *Store) Next(ctx context.Context, after int64, n int) ([]Entry, error) {
	return s.list(ctx, string(queuePrefix), after, limit{N: n})
}

// page is how many entries All reads at once.
const page = 500

// All lists all entries, the oldest first, without large bodies: [Store.Get] has
// those. It ends after an error.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(queuePrefix)+string(asidePrefix))
}

// SetAside lists the entries that were set aside, as [Store.All] does.
func (s *Store) SetAside(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(asidePrefix))
}

func (s *Store) pages(ctx context.Context, prefixes string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after, more := int64(0), true; more; {
			entries, err := s.list(ctx, prefixes, after, limit{page, maxListedBody})
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

// Get finds the entry of a key. The error wraps [ErrNone] if there is none.
func (s *Store) Get(ctx context.Context, key string) (Entry, error) { return s.get(ctx, key) }

// Retry gives an entry that was set aside its turn again. The error wraps
// [ErrNone] if there is no such entry.
func (s *Store) Retry(ctx context.Context, key string) error { return s.retry(ctx, key) }

// Drop removes an entry for good. The error wraps [ErrNone] if there is no such
// entry.
func (s *Store) Drop(ctx context.Context, key string) error { return s.drop(ctx, key) }

// Stats counts the entries, at no cost worth mentioning.
func (s *Store) Stats(ctx context.Context) (Stats, error) { return s.stats(ctx) }
