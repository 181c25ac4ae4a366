package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// formerFile is the SQLite database that an inbox was before it was a Pebble store.
const formerFile = "inbox.db"

func former(dir string) (path string, there bool) {
	path = filepath.Join(dir, formerFile)
	_, err := os.Stat(path)
	return path, err == nil
}

// takeOver moves the entries of a former inbox into the store, and then removes
// it. It can be interrupted at any moment, and does the rest when it is begun
// again: an entry that was moved is there already.
func takeOver(ctx context.Context, d *disk, store *pebble.DB) (err error) {
	path, there := former(d.dir)
	if !there {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("take over %s: %w", path, err)
		}
	}()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "mode=rw&_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	var tables int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&tables); err != nil {
		return err
	}
	moved := 0
	switch tables {
	case 0: // it was never used
	case 1:
		for after, more := int64(0), true; more; {
			entries, err := formerPage(ctx, db, after)
			if err != nil {
				return err
			}
			if err := d.adopt(store, entries); err != nil {
				return err
			}
			if more = len(entries) == page; more {
				after = entries[page-1].ID
			}
			moved += len(entries)
		}
	default:
		return fmt.Errorf("its tables have version %d, want 1: a newer Closeout made them", tables)
	}
	if err := db.Close(); err != nil {
		return err
	}
	for _, file := range []string{path + "-wal", path + "-shm", path} { // the last one says that there is something to do
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	d.log.Info("the inbox of an earlier version was taken over", "entries", moved)
	return nil
}

func formerPage(ctx context.Context, db *sql.DB, after int64) ([]Entry, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, key, body, queued_at, coalesce(set_aside_at, 0), reason FROM callbacks WHERE id > $1 ORDER BY id LIMIT $2`, after, page)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var entries []Entry
	for rows.Next() {
		var e Entry
		var queued, aside int64
		if err := rows.Scan(&e.ID, &e.Key, &e.Body, &queued, &aside, &e.Reason); err != nil {
			return nil, err
		}
		e.QueuedAt = time.UnixMilli(queued).UTC()
		if aside != 0 {
			e.SetAsideAt = time.UnixMilli(aside).UTC()
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// adopt puts entries into a store that isn't in use yet, as they are but for the
// ID.
func (d *disk) adopt(store *pebble.DB, entries []Entry) error {
	w := writer{db: store, Batch: store.NewBatch(), keys: d.keys, next: d.next.Load(), changed: map[string]place{}}
	defer w.Close()
	for _, e := range entries {
		is, err := find(store, e.Key)
		if err != nil {
			return err
		}
		if is != (place{}) {
			continue
		}
		to := place{queuePrefix, w.next}
		if !e.SetAsideAt.IsZero() {
			to.prefix = asidePrefix
		}
		if err := w.put(to, &e); err != nil {
			return err
		}
	}
	if err := w.Commit(pebble.Sync); err != nil {
		return err
	}
	d.waiting.Add(w.waiting)
	d.aside.Add(w.aside)
	d.next.Store(w.next)
	return nil
}
