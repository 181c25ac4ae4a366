package ledger

import (
	"context"
	"fmt"
	"time"
)

// maxAhead bounds how far a budget may be ahead. More comes from a clock that was set back.
const maxAhead = time.Hour

// Turn takes the next turn of a budget shared by all processes, and returns how long to wait
// for it. Turns are at least pause apart. If the wait would exceed maxWait, Turn takes none
// and reports false.
func (l *Ledger) Turn(ctx context.Context, budget string, pause, maxWait time.Duration) (wait time.Duration, ok bool, err error) {
	now := "$5"
	if l.path == "" {
		// Use the database's clock for all processes.
		now = "(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + 0 * CAST($5 AS BIGINT))"
	}
	waits := []int64(nil)
	err = l.in(ctx, func(tx transaction) error {
		waits, err = list(ctx, tx, value[int64], `
			INSERT INTO turns (budget, next_at) VALUES ($1, `+now+` + $2)
			ON CONFLICT (budget) DO UPDATE SET next_at = $2 + CASE WHEN turns.next_at BETWEEN `+now+` AND `+now+` + $4 THEN turns.next_at ELSE `+now+` END
			WHERE turns.next_at <= `+now+` + $3 OR turns.next_at > `+now+` + $4
			RETURNING next_at - $2 - `+now, budget, pause.Milliseconds(), maxWait.Milliseconds(), (maxAhead + maxWait + pause).Milliseconds(), time.Now().UnixMilli())
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("take a turn of %s: %w", budget, err)
	}
	if len(waits) == 0 {
		return 0, false, nil
	}
	return max(0, time.Duration(waits[0])*time.Millisecond), true, nil
}
