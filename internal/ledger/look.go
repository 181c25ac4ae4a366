package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Look is the last time that a process checked the ledger: a worker for due work, or a
// webhook for a restore.
type Look struct {
	// Number counts looks. It only falls if the ledger is restored from a backup.
	Number int64 `json:"number"`
	// At is the time of the look, by the process's clock.
	At time.Time `json:"at"`
}

// LastLook returns the last look, or the zero Look.
func (l *Ledger) LastLook(ctx context.Context) (Look, error) {
	look, err := one(ctx, l, scanLook, "SELECT coalesce(max(number), 0), coalesce(max(looked_at), 0) FROM looks")
	return look, wrap(err, "read the last look")
}

// TakeLook reports whether the caller should check for due work. Of all workers one should,
// once per interval. It ignores a lease that ends more than an interval from now, because
// that comes from a wrong clock.
func (l *Ledger) TakeLook(ctx context.Context, now time.Time, interval time.Duration) (bool, error) {
	next := now.Add(interval).UnixMilli()
	n, err := l.exec(ctx, "UPDATE looks SET number = number + 1, looked_at = $1, next_at = $2 WHERE next_at <= $1 OR next_at > $2", now.UnixMilli(), next)
	return n == 1, wrap(err, "take the next look")
}

// CountLook counts and returns a look that does not check for due work. It returns the zero
// Look if the last look is older than the given number, because then the ledger was restored.
func (l *Ledger) CountLook(ctx context.Context, now time.Time, seen int64) (Look, error) {
	look, err := one(ctx, l, scanLook, "UPDATE looks SET number = number + 1, looked_at = $1 WHERE number >= $2 RETURNING number, looked_at", now.UnixMilli(), seen)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return look, fmt.Errorf("count a look: %w", err)
	}
	return look, nil
}

func scanLook(r row) (look Look, err error) {
	err = r.Scan(&look.Number, (*timeColumn)(&look.At))
	return look, err
}

// Due reports which work is due.
type Due struct {
	// Overdue reports whether open sessions are overdue.
	Overdue bool
	// Dirty reports whether a session has events after its last entry.
	Dirty bool
	// Late reports whether recordings may have to be added to an archive.
	Late bool
}

// Due checks for due work with one query that uses indexes alone: open sessions of the apps
// without a sign of life since overdue, sessions that [Ledger.Dirty] lists, and recordings
// that [Ledger.LateRecordings] lists.
func (l *Ledger) Due(ctx context.Context, now time.Time, apps []uint32, overdue, adjusting, late time.Time) (Due, error) {
	among := []string{"-1"}
	for _, app := range apps {
		among = append(among, strconv.FormatUint(uint64(app), 10))
	}
	due, err := one(ctx, l, func(r row) (d Due, err error) {
		err = r.Scan(&d.Overdue, &d.Dirty, &d.Late)
		return d, err
	}, `SELECT
		EXISTS (SELECT 1 FROM sessions WHERE closed_at = 0 AND seen_at < $4 AND appid IN (`+strings.Join(among, ", ")+`)),
		EXISTS (SELECT 1 FROM sessions WHERE dirty_at <> 0 AND adjusting_at < $2),
		EXISTS (SELECT 1 FROM recording_tasks t WHERE last_time >= $3 AND `+mayBeLate+`)`,
		now.UnixMilli(), adjusting.UnixMilli(), late.UnixMilli(), overdue.UnixMilli())
	return due, wrap(err, "look for what is due")
}

// A Loss is a span of time without callbacks: between a backup and its restore.
type Loss struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// String returns the loss in a few words.
func (l Loss) String() string {
	return fmt.Sprintf("between %s and %s", l.From.Format(time.RFC3339), l.To.Format(time.RFC3339))
}

// NoteLoss stores a loss that began at from, and continues the count of looks at seen. It
// returns nil if another process has stored a look or a loss after last.
func (l *Ledger) NoteLoss(ctx context.Context, last Look, from time.Time, seen int64) (*Loss, error) {
	loss := &Loss{from, time.Now().Truncate(time.Millisecond).UTC()}
	err := l.in(ctx, func(tx transaction) error {
		n, err := tx.exec(ctx, "UPDATE looks SET number = $1, looked_at = $2 WHERE number = $3", max(last.Number, seen)+1, millis(loss.To), last.Number)
		if err != nil || n == 0 {
			loss = nil
			return err
		}
		_, err = tx.exec(ctx, "INSERT INTO losses (from_time, to_time) VALUES ($1, $2)", millis(loss.From), millis(loss.To))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store what the ledger has lost: %w", err)
	}
	return loss, nil
}

func scanLoss(r row) (loss Loss, err error) {
	err = r.Scan((*timeColumn)(&loss.From), (*timeColumn)(&loss.To))
	return loss, err
}

// Losses returns the losses in their order.
func (l *Ledger) Losses(ctx context.Context) ([]Loss, error) {
	all, err := list(ctx, l, scanLoss, "SELECT from_time, to_time FROM losses ORDER BY from_time")
	return all, wrap(err, "read what was lost")
}
