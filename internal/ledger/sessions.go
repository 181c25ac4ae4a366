package ledger

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/session"
)

// key is a session as the tables store it.
type key struct {
	app     int64
	session string
}

func keyOf(id session.ID) key {
	return key{int64(id.AppID), strconv.FormatUint(id.RoomSessionID, 10)}
}

// String returns "<appid>-<room_session_id>".
func (k key) String() string { return fmt.Sprintf("%d-%s", k.app, k.session) }

func (k key) compare(other key) int {
	return cmp.Or(cmp.Compare(k.app, other.app), strings.Compare(k.session, other.session))
}

// OpenSession is a session with events and without a room_close.
type OpenSession struct {
	// ID is the session's.
	session.ID
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// CreateTime is when the room was created, by ZEGO's clock; zero without a room_create.
	CreateTime time.Time `json:"room_create_time,omitzero"`
	// SeenAt is the last sign of life, by our clock: the arrival of a callback, or an answer
	// of ZEGO's API with users. It may be up to 15 s too early.
	SeenAt time.Time `json:"seen_at"`
}

func (s OpenSession) key() key { return keyOf(s.ID) }

const openColumns = "s.appid, s.room_id, s.room_session_id, s.room_create_time, s.seen_at"

func scanOpen(r row) (s OpenSession, err error) {
	err = r.Scan(&s.AppID, &s.RoomID, (*sessionColumn)(&s.RoomSessionID), (*timeColumn)(&s.CreateTime), (*timeColumn)(&s.SeenAt))
	return s, err
}

// Overdue lists up to limit open sessions without a sign of life since before, longest silent
// first, starting behind the session after. The zero OpenSession is before all.
//
// The ledger learns of a room_close when the session is billed, or by [Ledger.Closed]. It does
// not know of one in an inbox.
func (l *Ledger) Overdue(ctx context.Context, before time.Time, after OpenSession, limit int) ([]OpenSession, error) {
	last := after.key()
	open, err := list(ctx, l, scanOpen, `
		SELECT `+openColumns+` FROM sessions s
		WHERE closed_at = 0 AND seen_at < $1 AND (seen_at, appid, room_session_id) > ($2, $3, $4)
		ORDER BY seen_at, appid, room_session_id LIMIT $5`, before.UnixMilli(), millis(after.SeenAt), last.app, last.session, limit)
	return open, wrap(err, "list overdue sessions")
}

// Closed records that a session's Workflow was started, so that the session is not overdue.
func (l *Ledger) Closed(ctx context.Context, id session.ID) error {
	k := keyOf(id)
	_, err := l.exec(ctx, "UPDATE sessions SET closed_at = $1 WHERE appid = $2 AND room_session_id = $3 AND closed_at = 0",
		time.Now().UnixMilli(), k.app, k.session)
	return wrap(err, "note that session %s has closed", k)
}

// ClosedUnbilled lists the closed sessions without a bill.
func (l *Ledger) ClosedUnbilled(ctx context.Context) iter.Seq2[OpenSession, error] {
	return pages("list closed sessions without a bill", OpenSession{}, func(last OpenSession) ([]OpenSession, error) {
		after := last.key()
		return list(ctx, l, scanOpen, `
			SELECT `+openColumns+` FROM sessions s
			WHERE s.closed_at <> 0 AND (s.appid, s.room_session_id) > ($1, $2)
				AND NOT EXISTS (SELECT 1 FROM bills b WHERE b.appid = s.appid AND b.room_session_id = s.room_session_id)
			ORDER BY s.appid, s.room_session_id LIMIT $3`, after.app, after.session, pageSize)
	})
}

// Session returns a session, open or closed. The error wraps [sql.ErrNoRows] if it has no
// event.
func (l *Ledger) Session(ctx context.Context, id session.ID) (OpenSession, error) {
	k := keyOf(id)
	s, err := one(ctx, l, scanOpen, "SELECT "+openColumns+" FROM sessions s WHERE appid = $1 AND room_session_id = $2", k.app, k.session)
	return s, wrap(err, "read session %s", k)
}

// LastTime returns the latest time in a session's callbacks, by ZEGO's clock: of a logout, a
// login, a stream or the room_create. It is zero without any.
func (l *Ledger) LastTime(ctx context.Context, id session.ID) (t time.Time, err error) {
	k := keyOf(id)
	last, err := one(ctx, l, value[int64], `SELECT coalesce(max(t), 0) FROM (
		SELECT room_create_time AS t FROM sessions WHERE appid = $1 AND room_session_id = $2 UNION ALL
		SELECT max(login_time) FROM stays WHERE appid = $1 AND room_session_id = $2 UNION ALL
		SELECT max(logout_time) FROM stays WHERE appid = $1 AND room_session_id = $2 UNION ALL
		SELECT max(create_time) FROM streams WHERE appid = $1 AND room_session_id = $2 UNION ALL
		SELECT max(close_time) FROM streams WHERE appid = $1 AND room_session_id = $2) AS times`, k.app, k.session)
	return fromMillis(last), wrap(err, "read the last time of session %s", k)
}

// AppsOf returns the apps with a session of this ID. ZEGO does not document that IDs are
// unique across apps.
func (l *Ledger) AppsOf(ctx context.Context, roomSessionID uint64) (apps []uint32, err error) {
	number := keyOf(session.ID{RoomSessionID: roomSessionID}).session
	// Step from app to app, because no index begins with the session.
	for app := int64(-1); ; {
		next, err := list(ctx, l, value[int64], `SELECT appid FROM (SELECT min(appid) AS appid FROM (
			SELECT min(appid) AS appid FROM sessions WHERE appid > $1 UNION ALL SELECT min(appid) FROM bills WHERE appid > $1) AS apps) AS app
			WHERE appid IS NOT NULL`, app)
		if err != nil {
			return nil, fmt.Errorf("list the apps: %w", err)
		}
		if len(next) == 0 {
			return apps, nil
		}
		app = next[0]
		known, err := one(ctx, l, value[bool], `SELECT EXISTS (SELECT 1 FROM sessions WHERE appid = $1 AND room_session_id = $2)
			OR EXISTS (SELECT 1 FROM bills WHERE appid = $1 AND room_session_id = $2)`, app, number)
		if err != nil {
			return nil, fmt.Errorf("look for session %s of app %d: %w", number, app, err)
		}
		if known {
			apps = append(apps, uint32(app))
		}
	}
}

// Check holds the facts about an open session that may be gone.
type Check struct {
	OpenSession
	// FirstTime and LastTime are the earliest and the latest time in its callbacks, by ZEGO's
	// clock; zero without any.
	FirstTime, LastTime time.Time
	// Left reports whether there were participants and all have left.
	Left bool
	// Later is a session of the same room that began after LastTime, or 0. A room has one
	// session at a time, so this one has ended.
	Later uint64
	// Gone counts the consecutive answers since the last sign of life that show that the room
	// is gone. AskedAt is when the last one arrived, by our clock.
	Gone    int
	AskedAt time.Time

	other key // the last seen other open session of the room
}

// Checks returns the facts about open sessions. It leaves out closed ones.
func (l *Ledger) Checks(ctx context.Context, sessions []OpenSession) ([]Check, error) {
	var keys, others []key
	for _, s := range sessions {
		keys = append(keys, s.key())
	}
	known, err := l.signs(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read what is known of open sessions: %w", err)
	}
	for _, c := range known {
		if c.other.session != "" {
			others = append(others, c.other)
		}
	}
	theirs, err := l.signs(ctx, others)
	if err != nil {
		return nil, fmt.Errorf("read what is known of other sessions of the rooms: %w", err)
	}
	var checks []Check
	for _, s := range sessions {
		c, open := known[s.key()]
		if !open {
			continue
		}
		c.OpenSession = s
		if c.AskedAt.Before(c.SeenAt) { // a sign of life came later
			c.Gone, c.AskedAt = 0, time.Time{}
		}
		if other, ok := theirs[c.other]; ok && !c.LastTime.IsZero() && other.FirstTime.After(c.LastTime) {
			c.Later = other.RoomSessionID
		}
		checks = append(checks, c)
	}
	return checks, nil
}

// OpenSession returns the facts about an open session. The error wraps [sql.ErrNoRows] if it is
// not open.
func (l *Ledger) OpenSession(ctx context.Context, id session.ID) (Check, error) {
	k := keyOf(id)
	s, err := one(ctx, l, scanOpen, "SELECT "+openColumns+" FROM sessions s WHERE appid = $1 AND room_session_id = $2 AND closed_at = 0", k.app, k.session)
	if err != nil {
		return Check{}, fmt.Errorf("read session %s: %w", k, err)
	}
	checks, err := l.Checks(ctx, []OpenSession{s})
	if err != nil || len(checks) == 0 {
		return Check{OpenSession: s}, err
	}
	return checks[0], nil
}

// signs reads the facts about open sessions from callbacks and ZEGO's answers.
func (l *Ledger) signs(ctx context.Context, keys []key) (map[key]Check, error) {
	signs := map[key]Check{}
	if len(keys) == 0 {
		return signs, nil
	}
	from, args := l.table(keyTypes, len(keys), func(i int) []any { return []any{keys[i].app, keys[i].session} })
	return signs, each(ctx, l, scanSigns, func(c Check) error { signs[c.key()] = c; return nil }, `
		SELECT s.appid, s.room_session_id, coalesce(c.gone, 0), coalesce(c.asked_at, 0), s.room_create_time,
			coalesce(min(CASE WHEN t.login_time <> 0 THEN t.login_time END), 0),
			coalesce(max(t.login_time), 0), coalesce(max(t.logout_time), 0),
			coalesce(sum(CASE WHEN t.user_role <> '4' THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE WHEN t.user_role <> '4' AND t.logout_time = 0 THEN 1 ELSE 0 END), 0),
			coalesce((SELECT o.room_session_id FROM sessions o
				WHERE o.closed_at = 0 AND o.appid = s.appid AND o.room_id = s.room_id AND o.room_session_id <> s.room_session_id
				ORDER BY o.seen_at DESC LIMIT 1), '')
		FROM `+from+`
		JOIN sessions s ON s.appid = given.appid AND s.room_session_id = given.room_session_id AND s.closed_at = 0
		LEFT JOIN checks c ON c.appid = s.appid AND c.room_session_id = s.room_session_id
		LEFT JOIN stays t ON t.appid = s.appid AND t.room_session_id = s.room_session_id
		GROUP BY s.appid, s.room_session_id, s.room_id, s.room_create_time, c.gone, c.asked_at`, args...)
}

func scanSigns(r row) (c Check, err error) {
	var created, firstLogin, lastLogin, lastLogout, were, inside int64
	err = r.Scan(&c.AppID, (*sessionColumn)(&c.RoomSessionID), &c.Gone, (*timeColumn)(&c.AskedAt), &created,
		&firstLogin, &lastLogin, &lastLogout, &were, &inside, &c.other.session)
	c.other.app = int64(c.AppID)
	c.FirstTime, c.LastTime = fromMillis(cmp.Or(min(created, firstLogin), created, firstLogin)), fromMillis(max(created, lastLogin, lastLogout))
	c.Left = were > 0 && inside == 0
	return c, err
}

var (
	keyTypes   = columns("appid, room_session_id")
	checkTypes = columns("appid, room_session_id, gone, asked_at")
)

// NoteChecks stores ZEGO's answers. With Gone 0 an answer is a sign of life at AskedAt.
func (l *Ledger) NoteChecks(ctx context.Context, checks []Check) error {
	// Lock sessions in the same order as Record, to avoid deadlocks.
	checks = slices.SortedFunc(slices.Values(checks), func(a, b Check) int { return a.key().compare(b.key()) })
	rows := func(of []Check) (string, []any) {
		return l.table(checkTypes, len(of), func(i int) []any {
			k := of[i].key()
			return []any{k.app, k.session, int64(of[i].Gone), of[i].AskedAt.UnixMilli()}
		})
	}
	var gone, alive []Check
	for _, c := range checks {
		if c.Gone > 0 {
			gone = append(gone, c)
		} else {
			alive = append(alive, c)
		}
	}
	return l.in(ctx, func(tx transaction) error {
		if len(gone) > 0 {
			from, args := rows(gone)
			if _, err := tx.exec(ctx, `
				INSERT INTO checks (appid, room_session_id, gone, asked_at)
				SELECT appid, room_session_id, gone, asked_at FROM `+from+` WHERE true
				ON CONFLICT (appid, room_session_id) DO UPDATE SET gone = excluded.gone, asked_at = excluded.asked_at`, args...); err != nil {
				return fmt.Errorf("note sessions that may be gone: %w", err)
			}
		}
		if len(alive) > 0 {
			from, args := rows(alive)
			if _, err := tx.exec(ctx, `
				UPDATE sessions SET seen_at = given.asked_at FROM `+from+`
				WHERE sessions.appid = given.appid AND sessions.room_session_id = given.room_session_id AND seen_at < given.asked_at`, args...); err != nil {
				return fmt.Errorf("note signs of life: %w", err)
			}
		}
		return nil
	})
}

// ForgetChecks removes ZEGO's answers about closed sessions.
func (l *Ledger) ForgetChecks(ctx context.Context) error {
	_, err := l.exec(ctx, `
		DELETE FROM checks WHERE NOT EXISTS (
			SELECT 1 FROM sessions s WHERE s.appid = checks.appid AND s.room_session_id = checks.room_session_id AND s.closed_at = 0)`)
	return wrap(err, "forget what ZEGO answered about closed sessions")
}

// maxCounted bounds the sessions that [Ledger.CountOverdue] counts.
const maxCounted = 10_000

// Overdues counts overdue sessions.
type Overdues struct {
	// Left counts sessions that all participants have left, so that a room_close is missing.
	Left int64 `json:"left"`
	// Silent counts the others, which may still have users.
	Silent int64 `json:"silent"`
	// Oldest is the last sign of life of the longest silent session, by our clock; zero without
	// one.
	Oldest time.Time `json:"oldest,omitzero"`
}

// CountOverdue counts the sessions that [Ledger.Overdue] lists, up to 10,000.
func (l *Ledger) CountOverdue(ctx context.Context, before time.Time) (Overdues, error) {
	o, err := one(ctx, l, func(r row) (o Overdues, err error) {
		err = r.Scan(&o.Left, &o.Silent, (*timeColumn)(&o.Oldest))
		return o, err
	}, `SELECT coalesce(sum(gone), 0), coalesce(sum(1 - gone), 0), coalesce(min(seen_at), 0) FROM (
			SELECT s.seen_at, CASE WHEN
				EXISTS (SELECT 1 FROM stays t WHERE t.appid = s.appid AND t.room_session_id = s.room_session_id AND t.user_role <> '4') AND
				NOT EXISTS (SELECT 1 FROM stays t WHERE t.appid = s.appid AND t.room_session_id = s.room_session_id AND t.user_role <> '4' AND t.logout_time = 0)
				THEN 1 ELSE 0 END AS gone
			FROM sessions s WHERE s.closed_at = 0 AND s.seen_at < $1 ORDER BY s.seen_at LIMIT $2) AS overdue`,
		before.UnixMilli(), maxCounted)
	return o, wrap(err, "count overdue sessions")
}
