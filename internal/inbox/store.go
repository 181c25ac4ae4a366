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
	// list gives up to n entries with one of the prefixes, in order, behind the ID.
	list(ctx context.Context, prefixes string, after int64, n int) ([]Entry, error)
	get(ctx context.Context, key string) (Entry, error)
	retry(ctx context.Context, key string) error
	drop(ctx context.Context, key string) error
	stats(ctx context.Context) (Stats, error)
	close() error
}

// Close gives free what the store holds.
func (s *Store) Close() error { return s.close() }

// Next gives up to n entries that wait for their turn, the oldest first, behind
// the one with the ID after.
func (s *Store) Next(ctx context.Context, after int64, n int) ([]Entry, error) {
	return s.list(ctx, string(queuePrefix), after, n)
}

// page is how many entries All reads at once.
const page = 500

// All gives all entries, the oldest first. It ends after an error.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(queuePrefix)+string(asidePrefix))
}

// SetAside gives the entries that were set aside, the oldest first. It ends after
// an error.
func (s *Store) SetAside(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, string(asidePrefix))
}

func (s *Store) pages(ctx context.Context, prefixes string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after, more := int64(0), true; more; {
			entries, err := s.list(ctx, prefixes, after, page)
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
			more = len(entries) == page
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
