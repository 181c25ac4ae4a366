package ledger

import (
	"context"
	"fmt"
	"time"
)

// A Comparison holds the rooms and users of an app that ZEGO counted, and how many of them the
// ledger lacks.
type Comparison struct {
	// AppID is ZEGO's appid.
	AppID uint32 `json:"appid"`
	// At is the time of the comparison. Since is when a comparison first found something
	// missing; zero if the last one found nothing missing.
	At    time.Time `json:"at"`
	Since time.Time `json:"since,omitzero"`
	// Rooms and Users are ZEGO's counts of the latest minute.
	Rooms int64 `json:"rooms"`
	Users int64 `json:"users"`
	// UnknownRooms and UnknownUsers are how many the ledger lacks, in the minute with the
	// smallest difference.
	UnknownRooms int64 `json:"unknown_rooms"`
	UnknownUsers int64 `json:"unknown_users"`
}

// Unknown describes what the ledger lacks, or returns "".
func (c Comparison) Unknown() string {
	if c.UnknownRooms == 0 && c.UnknownUsers == 0 {
		return ""
	}
	return fmt.Sprintf("ZEGO counts %d rooms and %d users of app %d without callbacks, since %s", c.UnknownRooms, c.UnknownUsers, c.AppID, c.Since.Format(time.RFC3339))
}

// CountOpen counts the rooms and users of an app that were present at any time between from and
// to, by ZEGO's clock. In doubt it counts too many: sessions without a start or an end count,
// and a user who returned counts twice.
func (l *Ledger) CountOpen(ctx context.Context, appID uint32, from, to time.Time) (rooms, users int64, err error) {
	counts, err := one(ctx, l, func(r row) (n [2]int64, err error) {
		err = r.Scan(&n[0], &n[1])
		return n, err
	}, `WITH there AS (
			SELECT room_session_id FROM sessions WHERE appid = $1 AND closed_at = 0 AND room_create_time <= $3
			UNION
			SELECT room_session_id FROM bills WHERE appid = $1 AND room_close_time >= $2 AND start_time <= $3)
		SELECT (SELECT count(*) FROM there), (SELECT count(*) FROM there JOIN stays t ON t.appid = $1 AND t.room_session_id = there.room_session_id
			WHERE t.login_time <= $3 AND (t.logout_time = 0 OR t.logout_time >= $2))`, int64(appID), from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return 0, 0, fmt.Errorf("count open sessions of app %d: %w", appID, err)
	}
	return counts[0], counts[1], nil
}

// NoteComparison stores an app's last comparison. It sets Since itself.
func (l *Ledger) NoteComparison(ctx context.Context, c Comparison) error {
	_, err := l.exec(ctx, `
		INSERT INTO comparisons (appid, compared_at, since, rooms, users, unknown_rooms, unknown_users)
		VALUES ($1, $2, CASE WHEN CAST($5 AS BIGINT) + CAST($6 AS BIGINT) > 0 THEN CAST($2 AS BIGINT) ELSE 0 END, $3, $4, $5, $6)
		ON CONFLICT (appid) DO UPDATE SET compared_at = excluded.compared_at, rooms = excluded.rooms, users = excluded.users,
			unknown_rooms = excluded.unknown_rooms, unknown_users = excluded.unknown_users,
			since = CASE WHEN excluded.since <> 0 AND comparisons.since <> 0 THEN comparisons.since ELSE excluded.since END`,
		int64(c.AppID), millis(c.At), c.Rooms, c.Users, c.UnknownRooms, c.UnknownUsers)
	return wrap(err, "store the comparison of app %d", c.AppID)
}

// Comparisons returns the last comparison of each app since a time, ordered by appid.
func (l *Ledger) Comparisons(ctx context.Context, since time.Time) ([]Comparison, error) {
	all, err := list(ctx, l, func(r row) (c Comparison, err error) {
		err = r.Scan(&c.AppID, (*timeColumn)(&c.At), (*timeColumn)(&c.Since), &c.Rooms, &c.Users, &c.UnknownRooms, &c.UnknownUsers)
		return c, err
	}, `SELECT appid, compared_at, since, rooms, users, unknown_rooms, unknown_users FROM comparisons WHERE compared_at >= $1 ORDER BY appid`, millis(since))
	return all, wrap(err, "read comparisons with ZEGO's counts")
}
