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

// A Look is the last time that a process looked into the ledger: a worker for what is due,
// or a webhook for whether it was restored.
type Look struct {
	// Number counts looks. It never falls, unless the ledger is restored from a copy.
	Number int64 `json:"number"`
	// At is when it was, by the process's clock.
	At time.Time `json:"at"`
}

// LastLook returns the last look; the zero Look if there was none.
func (l *Ledger) LastLook(ctx context.Context) (Look, error) {
	look, err := one(ctx, l, scanLook, "SELECT coalesce(max(number), 0), coalesce(max(looked_at), 0) FROM looks")
	return look, wrap(err, "read the last look")
}

// TakeLook reports whether the caller is to look for what is due: one of all workers
// is, once an interval. A lease that ends later than an interval from now was taken by
// another clock, and doesn't count.
func (l *Ledger) TakeLook(ctx context.Context, now time.Time, interval time.Duration) (bool, error) {
	next := now.Add(interval).UnixMilli()
	n, err := l.exec(ctx, "UPDATE looks SET number = number + 1, looked_at = $1, next_at = $2 WHERE next_at <= $1 OR next_at > $2", now.UnixMilli(), next)
	return n == 1, wrap(err, "take the next look")
}

// CountLook counts and returns a look that doesn't look for what is due. It returns none
// if the last one is before the one that was seen: then the ledger was restored.
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

// Losses returns the times whose callbacks the ledger has lost, in their order.
func (l *Ledger) Losses(ctx context.Context) ([]Loss, error) {
	all, err := list(ctx, l, scanLoss, "SELECT from_time, to_time FROM losses ORDER BY from_time")
	return all, wrap(err, "read what was lost")
}
