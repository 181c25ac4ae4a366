package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// File is the name of the database in an inbox's folder.
const File = "inbox.db"

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

// Store reads and changes the entries of a folder. Several processes may have
// one open, beside the one that has the [Inbox]. It is safe for concurrent use.
type Store struct {
	path string
	// create says that a database may be made where there is none.
	create bool

	mu sync.Mutex
	db *sql.DB
}

// Attach opens the inbox in the folder beside whatever process it belongs to.
// The error wraps [os.ErrNotExist] if there is none.
func Attach(ctx context.Context, dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, File)}
	if _, err := os.Stat(s.path); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	if _, err := s.open(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}

// Old entries come first, whatever their number, through the primary key. What
// is set aside is found through an index of its own, in which nothing else is,
// so that it costs nothing to queue.
const schema = `
	CREATE TABLE IF NOT EXISTS callbacks (
		id           INTEGER PRIMARY KEY,
		key          TEXT    NOT NULL UNIQUE,
		body         BLOB    NOT NULL,
		queued_at    INTEGER NOT NULL, -- Unix milliseconds, as is set_aside_at
		set_aside_at INTEGER,
		reason       TEXT    NOT NULL DEFAULT ''
	) STRICT;
	CREATE INDEX IF NOT EXISTS callbacks_set_aside ON callbacks (id) WHERE set_aside_at IS NOT NULL;
	CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;
	PRAGMA user_version = 1`

// open gives the database. A disk that refuses is asked again at the next call,
// so that a process may start while it does.
func (s *Store) open(ctx context.Context) (*sql.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		return s.db, nil
	}
	pragmas := url.Values{
		"_pragma": {
			// Ahead of what may have to wait.
			"busy_timeout(5000)",
			// The keys come in no order, so that each entry changes another page of the
			// index on them, which is written as a whole. Small pages are a fifth less
			// work. (What is there keeps the size that it was made with.)
			"page_size(1024)",
			"journal_mode(WAL)",
			// What is committed has been synced. A write that was torn by a crash has a
			// wrong checksum, and was never acknowledged.
			"synchronous(FULL)",
			// For the same reason the index wants more than the 2 MB of SQLite's default.
			"cache_size(-4096)",
			// Pages that change again and again are copied from the log every 4 MB: one that
			// is written over and over costs less to sync than one that grows.
			// After a burst the log gives its space back.
			"wal_autocheckpoint(4096)",
			"journal_size_limit(16777216)",
		},
		"_txlock": {"immediate"},
		"mode":    {"rw"},
	}
	if s.create {
		pragmas.Set("mode", "rwc")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: s.path}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open inbox %s: %w", s.path, err)
	}
	db.SetMaxOpenConns(3) // one writes, the others read
	db.SetMaxIdleConns(3)
	if err := migrate(ctx, db, s.create); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open inbox %s: %w", s.path, err)
	}
	s.db = db
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB, create bool) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == 1:
		return nil
	case version > 1:
		return fmt.Errorf("its tables have version %d, want 1: a newer Closeout made them", version)
	case !create:
		return errors.New("it has no tables yet")
	}
	_, err := db.ExecContext(ctx, schema)
	return err
}

// transact runs f in a transaction that is on the disk when it returns nil.
func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write to inbox: %w", err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write to inbox: %w", err)
	}
	return nil
}

const columns = "id, key, body, queued_at, coalesce(set_aside_at, 0), reason"

func scan(row interface{ Scan(...any) error }) (Entry, error) {
	var e Entry
	var queued, aside int64
	if err := row.Scan(&e.ID, &e.Key, &e.Body, &queued, &aside, &e.Reason); err != nil {
		return Entry{}, err
	}
	e.QueuedAt = time.UnixMilli(queued).UTC()
	if aside != 0 {
		e.SetAsideAt = time.UnixMilli(aside).UTC()
	}
	return e, nil
}

func (s *Store) query(ctx context.Context, where string, args ...any) ([]Entry, error) {
	db, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT "+columns+" FROM callbacks WHERE "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	defer rows.Close()
	var entries []Entry
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read inbox: %w", err)
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	return entries, nil
}

// Next gives up to n entries that wait for their turn, the oldest first, behind
// the one with the ID after.
func (s *Store) Next(ctx context.Context, after int64, n int) ([]Entry, error) {
	return s.query(ctx, "id > $1 AND set_aside_at IS NULL ORDER BY id LIMIT $2", after, n)
}

// page is how many entries All reads at once. No read is long, so that the log
// can start over between two of them.
const page = 500

// All gives all entries, the oldest first. It ends after an error.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, "id > $1 ORDER BY id LIMIT $2")
}

// SetAside gives the entries that were set aside, the oldest first. It ends after
// an error.
func (s *Store) SetAside(ctx context.Context) iter.Seq2[Entry, error] {
	return s.pages(ctx, "id > $1 AND set_aside_at IS NOT NULL ORDER BY id LIMIT $2")
}

func (s *Store) pages(ctx context.Context, where string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after, more := int64(0), true; more; {
			entries, err := s.query(ctx, where, after, page)
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
func (s *Store) Get(ctx context.Context, key string) (Entry, error) {
	entries, err := s.query(ctx, "key = $1", key)
	if err != nil {
		return Entry{}, err
	}
	if len(entries) == 0 {
		return Entry{}, fmt.Errorf("%s: %w", key, ErrNone)
	}
	return entries[0], nil
}

// Retry gives an entry that was set aside its turn again. The error wraps
// [ErrNone] if there is no such entry.
func (s *Store) Retry(ctx context.Context, key string) error {
	return s.one(ctx, key, "UPDATE callbacks SET set_aside_at = NULL, reason = '' WHERE key = $1")
}

// Drop removes an entry for good. The error wraps [ErrNone] if there is no such
// entry.
func (s *Store) Drop(ctx context.Context, key string) error {
	return s.one(ctx, key, "DELETE FROM callbacks WHERE key = $1")
}

func (s *Store) one(ctx context.Context, key, statement string) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, statement, key)
		if err != nil {
			return fmt.Errorf("write to inbox: %w", err)
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("%s: %w", key, ErrNone))
		}
		return nil
	})
}

// Stats counts the entries. With a million of them it takes a fraction of a
// second.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	db, err := s.open(ctx)
	if err != nil {
		return Stats{}, err
	}
	var all, aside, oldest int64
	err = db.QueryRowContext(ctx, `
		SELECT (SELECT count(*) FROM callbacks),
		       (SELECT count(*) FROM callbacks WHERE set_aside_at IS NOT NULL),
		       coalesce((SELECT queued_at FROM callbacks WHERE set_aside_at IS NULL ORDER BY id LIMIT 1), 0)`).
		Scan(&all, &aside, &oldest)
	if err != nil {
		return Stats{}, fmt.Errorf("read inbox: %w", err)
	}
	stats := Stats{Waiting: all - aside, SetAside: aside}
	if oldest != 0 {
		stats.Oldest = time.UnixMilli(oldest).UTC()
	}
	return stats, nil
}
