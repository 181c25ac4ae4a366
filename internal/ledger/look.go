package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Look is the last time that a worker looked for what is due.
type Look struct {
	// Number counts looks. It never falls, unless the ledger is restored from a copy.
	Number int64
	// At is when it was, by the worker's clock.
	At time.Time
}

// LastLook returns the last look; the zero Look if there was none.
func (l *Ledger) LastLook(ctx context.Context) (look Look, err error) {
	if err := l.Migrate(ctx); err != nil {
		return look, err
	}
	var at int64
	err = l.db.QueryRowContext(ctx, "SELECT coalesce(max(number), 0), coalesce(max(looked_at), 0) FROM looks").Scan(&look.Number, &at)
	if err != nil {
		return look, fmt.Errorf("read the last look: %w", err)
	}
	look.At = fromMillis(at)
	return look, nil
}

// TakeLook reports whether the caller is to look for what is due: one of all workers
// is, once an interval. A lease that ends later than an interval from now was taken by
// another clock, and doesn't count.
func (l *Ledger) TakeLook(ctx context.Context, now time.Time, interval time.Duration) (bool, error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	next := now.Add(interval).UnixMilli()
	done, err := l.exec(ctx, "UPDATE looks SET number = number + 1, looked_at = $1, next_at = $2 WHERE next_at <= $1 OR next_at > $2", now.UnixMilli(), next)
	if err != nil {
		return false, fmt.Errorf("take the next look: %w", err)
	}
	n, err := done.RowsAffected()
	return n == 1, err
}

// Due reports which work there is.
type Due struct {
	// Overdue reports that open sessions are overdue.
	Overdue bool
	// Dirty reports that events came after the last entry of a session.
	Dirty bool
	// Late reports that recordings may have to be added to an archive.
	Late bool
}

// Due looks for what is due, in one query of indexes: sessions of the apps without a
// sign of life since overdue, sessions to adjust as [Ledger.Dirty] lists them, and
// recordings since late as [Ledger.LateRecordings] lists them.
func (l *Ledger) Due(ctx context.Context, now time.Time, apps []uint32, overdue, adjusting, late time.Time) (d Due, err error) {
	if err := l.Migrate(ctx); err != nil {
		return d, err
	}
	among := []string{"-1"}
	for _, app := range apps {
		among = append(among, strconv.FormatUint(uint64(app), 10))
	}
	if err := l.db.QueryRowContext(ctx, `SELECT
		EXISTS (SELECT 1 FROM sessions WHERE closed_at = 0 AND seen_at < $4 AND appid IN (`+strings.Join(among, ", ")+`)),
		EXISTS (SELECT 1 FROM sessions WHERE dirty_at <> 0 AND adjusting_at < $2),
		EXISTS (SELECT 1 FROM recording_tasks t WHERE last_time >= $3 AND `+mayBeLate+`)`,
		now.UnixMilli(), adjusting.UnixMilli(), late.UnixMilli(), overdue.UnixMilli()).Scan(&d.Overdue, &d.Dirty, &d.Late); err != nil {
		return d, fmt.Errorf("look for what is due: %w", err)
	}
	return d, nil
}

// A Loss is a time whose callbacks the ledger has lost: between the copy and when it
// was restored.
type Loss struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// String returns the loss in a few words.
func (l Loss) String() string {
	return fmt.Sprintf("between %s and %s", l.From.Format(time.RFC3339), l.To.Format(time.RFC3339))
}

// NoteLoss stores that the ledger has lost what it was told since from, and counts on
// from a look that somebody has seen. It returns nil if somebody else has looked, or
// stored a loss, after the given look.
func (l *Ledger) NoteLoss(ctx context.Context, last Look, from time.Time, seen int64) (*Loss, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	loss := &Loss{from, time.Now().Truncate(time.Millisecond).UTC()}
	err := l.in(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "UPDATE looks SET number = $1, looked_at = $2 WHERE number = $3", max(last.Number, seen)+1, millis(loss.To), last.Number)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			loss = nil
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO losses (from_time, to_time) VALUES ($1, $2)", millis(loss.From), millis(loss.To))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store what the ledger has lost: %w", err)
	}
	return loss, nil
}

// Losses returns the times whose callbacks the ledger has lost, in their order.
func (l *Ledger) Losses(ctx context.Context) (all []Loss, err error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	rows, err := l.db.QueryContext(ctx, "SELECT from_time, to_time FROM losses ORDER BY from_time")
	if err != nil {
		return nil, fmt.Errorf("read what was lost: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var from, to int64
		if err := rows.Scan(&from, &to); err != nil {
			return nil, fmt.Errorf("read what was lost: %w", err)
		}
		all = append(all, Loss{fromMillis(from), fromMillis(to)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what was lost: %w", err)
	}
	return all, nil
}
