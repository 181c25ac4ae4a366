package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Check is what is known of a session that may be gone.
type Check struct {
	OpenSession
	// FirstTime and LastTime are the earliest and the latest of the times that
	// callbacks told of it, by ZEGO's clock; zero if they told none.
	FirstTime, LastTime time.Time
	// Left says that participants were there, and that all of them have left.
	Left bool
	// Later is another session of the same room that began after all that is known
	// of this one, and 0 if none is known. A room has one life at a time, so this one
	// has ended.
	Later uint64
	// Gone is how many answers in a row told that the room is gone, since the last
	// sign of life, and AskedAt when the last of them came, by our clock.
	Gone    int
	AskedAt time.Time
}

// key is the session's in the tables.
func (s OpenSession) key() sessionKey { return keyOf(s.AppID, s.RoomSessionID) }

// Checks tells what is known of open sessions. One that isn't open any more is
// left out.
func (l *Ledger) Checks(ctx context.Context, sessions []OpenSession) ([]Check, error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	var keys []sessionKey
	for _, s := range sessions {
		keys = append(keys, s.key())
	}
	known, err := l.signs(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read what is known of open sessions: %w", err)
	}
	others, err := l.others(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read which rooms have another session: %w", err)
	}
	var otherKeys []sessionKey
	for _, k := range others {
		otherKeys = append(otherKeys, k)
	}
	theirs, err := l.signs(ctx, otherKeys)
	if err != nil {
		return nil, fmt.Errorf("read what is known of other sessions of the rooms: %w", err)
	}
	var checks []Check
	for _, s := range sessions {
		c, open := known[s.key()]
		if !open {
			continue
		}
		if c.SeenAt = s.SeenAt; c.AskedAt.Before(c.SeenAt) {
			c.Gone, c.AskedAt = 0, time.Time{} // there was a sign of life since
		}
		if other, ok := theirs[others[s.key()]]; ok && !c.LastTime.IsZero() && other.FirstTime.After(c.LastTime) {
			c.Later = other.RoomSessionID
		}
		c.RoomID, c.CreateTime = s.RoomID, s.CreateTime
		checks = append(checks, c)
	}
	return checks, nil
}

// OpenSession finds a session of which callbacks came, and no room_close that is
// known. The error wraps [sql.ErrNoRows] if there is none.
func (l *Ledger) OpenSession(ctx context.Context, appID uint32, roomSessionID uint64) (Check, error) {
	if err := l.Migrate(ctx); err != nil {
		return Check{}, err
	}
	s := OpenSession{AppID: appID, RoomSessionID: roomSessionID}
	k := s.key()
	var created, seen int64
	if err := l.db.QueryRowContext(ctx, "SELECT room_id, room_create_time, seen_at FROM sessions WHERE appid = $1 AND room_session_id = $2 AND closed_at = 0",
		k.app, k.session).Scan(&s.RoomID, &created, &seen); err != nil {
		return Check{}, fmt.Errorf("read session %d of app %d: %w", roomSessionID, appID, err)
	}
	s.CreateTime, s.SeenAt = fromMillis(created), fromMillis(seen)
	checks, err := l.Checks(ctx, []OpenSession{s})
	if err != nil || len(checks) == 0 {
		return Check{OpenSession: s}, err
	}
	return checks[0], nil
}

// signs reads what callbacks told of open sessions, and what was asked.
func (l *Ledger) signs(ctx context.Context, keys []sessionKey) (map[sessionKey]Check, error) {
	signs := map[sessionKey]Check{}
	if len(keys) == 0 {
		return signs, nil
	}
	from, args := l.table(keyTypes, len(keys), func(i int) []any { return []any{keys[i].app, keys[i].session} })
	rows, err := l.db.QueryContext(ctx, `
		SELECT s.appid, s.room_session_id, s.room_create_time, coalesce(c.gone, 0), coalesce(c.asked_at, 0),
			coalesce(min(CASE WHEN t.login_time <> 0 THEN t.login_time END), 0),
			coalesce(max(t.login_time), 0), coalesce(max(t.logout_time), 0),
			coalesce(sum(CASE WHEN t.user_role <> 4 THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE WHEN t.user_role <> 4 AND t.logout_time = 0 THEN 1 ELSE 0 END), 0)
		FROM `+from+`
		JOIN sessions s ON s.appid = given.appid AND s.room_session_id = given.room_session_id AND s.closed_at = 0
		LEFT JOIN checks c ON c.appid = s.appid AND c.room_session_id = s.room_session_id
		LEFT JOIN stays t ON t.appid = s.appid AND t.room_session_id = s.room_session_id
		GROUP BY s.appid, s.room_session_id, s.room_create_time, c.gone, c.asked_at`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k sessionKey
		var c Check
		var created, asked, firstLogin, lastLogin, lastLogout, were, inside int64
		if err := rows.Scan(&k.app, &k.session, &created, &c.Gone, &asked, &firstLogin, &lastLogin, &lastLogout, &were, &inside); err != nil {
			return nil, err
		}
		c.AppID = uint32(k.app)
		if c.RoomSessionID, err = strconv.ParseUint(k.session, 10, 64); err != nil {
			return nil, err
		}
		first := created
		if first == 0 || firstLogin != 0 && firstLogin < first {
			first = firstLogin
		}
		c.AskedAt, c.FirstTime = fromMillis(asked), fromMillis(first)
		c.LastTime = fromMillis(max(created, lastLogin, lastLogout))
		c.Left = were > 0 && inside == 0
		signs[k] = c
	}
	return signs, rows.Err()
}

// others finds for each session the one of the same room that is open as well and
// was seen last.
func (l *Ledger) others(ctx context.Context, keys []sessionKey) (map[sessionKey]sessionKey, error) {
	from, args := l.table(keyTypes, len(keys), func(i int) []any { return []any{keys[i].app, keys[i].session} })
	rows, err := l.db.QueryContext(ctx, `
		SELECT s.appid, s.room_session_id, (
			SELECT o.room_session_id FROM sessions o
			WHERE o.closed_at = 0 AND o.appid = s.appid AND o.room_id = s.room_id AND o.room_session_id <> s.room_session_id
			ORDER BY o.seen_at DESC LIMIT 1)
		FROM `+from+`
		JOIN sessions s ON s.appid = given.appid AND s.room_session_id = given.room_session_id`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	others := map[sessionKey]sessionKey{}
	for rows.Next() {
		var k sessionKey
		var other sql.NullString
		if err := rows.Scan(&k.app, &k.session, &other); err != nil {
			return nil, err
		}
		if other.Valid {
			others[k] = sessionKey{k.app, other.String}
		}
	}
	return others, rows.Err()
}

// NoteChecks keeps what an answer told of sessions: those that may be gone are
// kept with their count, and of those with a count of 0 a sign of life is noted,
// at their AskedAt, so that they aren't overdue for as long as after a callback.
func (l *Ledger) NoteChecks(ctx context.Context, checks []Check) error {
	var gone, alive []Check
	for _, c := range checks {
		if c.Gone > 0 {
			gone = append(gone, c)
		} else {
			alive = append(alive, c)
		}
	}
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	// In the order in which Record locks them, so that none waits for the other.
	slices.SortFunc(alive, func(a, b Check) int { return a.key().compare(b.key()) })
	return l.in(ctx, func(tx *sql.Tx) error {
		if len(gone) > 0 {
			from, args := l.table(checkTypes, len(gone), func(i int) []any {
				k := gone[i].key()
				return []any{k.app, k.session, int64(gone[i].Gone), gone[i].AskedAt.UnixMilli()}
			})
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO checks (appid, room_session_id, gone, asked_at)
				SELECT appid, room_session_id, gone, asked_at FROM `+from+` WHERE true
				ON CONFLICT (appid, room_session_id) DO UPDATE SET gone = excluded.gone, asked_at = excluded.asked_at`, args...); err != nil {
				return fmt.Errorf("note sessions that may be gone: %w", err)
			}
		}
		if len(alive) > 0 {
			from, args := l.table(checkTypes, len(alive), func(i int) []any {
				k := alive[i].key()
				return []any{k.app, k.session, int64(0), alive[i].AskedAt.UnixMilli()}
			})
			if _, err := tx.ExecContext(ctx, `
				UPDATE sessions SET seen_at = given.asked_at FROM `+from+`
				WHERE sessions.appid = given.appid AND sessions.room_session_id = given.room_session_id AND seen_at < given.asked_at`, args...); err != nil {
				return fmt.Errorf("note signs of life: %w", err)
			}
		}
		return nil
	})
}

var (
	keyTypes   = columns("appid, room_session_id")
	checkTypes = columns("appid, room_session_id, gone, asked_at")
)

// ForgetChecks removes what was asked about sessions that have closed since.
func (l *Ledger) ForgetChecks(ctx context.Context) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	if _, err := l.exec(ctx, `
		DELETE FROM checks WHERE NOT EXISTS (
			SELECT 1 FROM sessions s WHERE s.appid = checks.appid AND s.room_session_id = checks.room_session_id AND s.closed_at = 0)`); err != nil {
		return fmt.Errorf("forget what was asked about closed sessions: %w", err)
	}
	return nil
}

// mostCounted bounds what [Ledger.CountOverdue] looks at.
const mostCounted = 10_000

// Overdues is how many sessions are overdue.
type Overdues struct {
	// Left are those whose participants have all left: a room_close is missing.
	Left int64 `json:"left"`
	// Silent are the others. Somebody may be in the room still, and silent.
	Silent int64 `json:"silent"`
	// Oldest is the last sign of life of the one that has been silent for the longest
	// time, by our clock; zero without any.
	Oldest time.Time `json:"oldest,omitzero"`
}

// CountOverdue counts the sessions that [Ledger.Overdue] lists: the first 10,000.
func (l *Ledger) CountOverdue(ctx context.Context, before time.Time) (o Overdues, err error) {
	if err := l.Migrate(ctx); err != nil {
		return o, err
	}
	var oldest int64
	if err := l.db.QueryRowContext(ctx, `
		SELECT coalesce(sum(gone), 0), coalesce(sum(1 - gone), 0), coalesce(min(seen_at), 0) FROM (
			SELECT s.seen_at, CASE WHEN
				EXISTS (SELECT 1 FROM stays t WHERE t.appid = s.appid AND t.room_session_id = s.room_session_id AND t.user_role <> 4) AND
				NOT EXISTS (SELECT 1 FROM stays t WHERE t.appid = s.appid AND t.room_session_id = s.room_session_id AND t.user_role <> 4 AND t.logout_time = 0)
				THEN 1 ELSE 0 END AS gone
			FROM sessions s WHERE s.closed_at = 0 AND s.seen_at < $1 ORDER BY s.seen_at LIMIT $2) AS overdue`,
		before.UnixMilli(), mostCounted).Scan(&o.Left, &o.Silent, &oldest); err != nil {
		return o, fmt.Errorf("count overdue sessions: %w", err)
	}
	o.Oldest = fromMillis(oldest)
	return o, nil
}
