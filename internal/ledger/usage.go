package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Usage is what one callback told of a session's life, or of a recording.
type Usage struct {
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// RoomSessionID is the life of the room.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// Event is [zego.EventRoomCreate], [zego.EventRoomLogin] or
	// [zego.EventRoomLogout].
	Event string `json:"event"`
	// Stay is ZEGO's session_id of the user's stay; empty of a room_create.
	Stay string `json:"stay,omitempty"`
	// User is the user_account; empty of a room_create.
	User string `json:"user,omitempty"`
	// Role is the user_role; 0 if the callback has none.
	Role uint32 `json:"role,omitempty"`
	// Create is the room_create_time of a room_create.
	Create time.Time `json:"create,omitzero"`
	// Login and Logout are the ends of the stay, as far as the callback has them.
	Login  time.Time `json:"login,omitzero"`
	Logout time.Time `json:"logout,omitzero"`
	// LogoutReason is the reason of a room_logout.
	LogoutReason uint32 `json:"logout_reason,omitempty"`
	// SentAt is when ZEGO sent the callback, by its clock: the one time that its
	// signature covers, to judge the others by.
	SentAt time.Time `json:"sent_at,omitzero"`
	// SeenAt is when the callback was received, by our clock. Nothing is billed by it.
	SeenAt time.Time `json:"seen_at"`
	// Recording is what a callback told of a recording. Event is then
	// [zego.EventRecording], and the session isn't known.
	Recording *Recording `json:"recording,omitempty"`
}

// UsageOf is what a callback tells of a session's life. ok is false if it is
// another one.
func UsageOf(event zego.Event, seenAt time.Time) (u Usage, ok bool) {
	stay := func(event string, l *zego.RoomLogin) Usage {
		return Usage{AppID: l.AppID, RoomID: l.RoomID, RoomSessionID: l.RoomSessionID, Event: event,
			Stay: l.SessionID, User: l.UserAccount, Role: uint32(l.UserRole), Login: l.LoginTime, SentAt: l.SentAt(), SeenAt: seenAt}
	}
	switch e := event.(type) {
	case *zego.RoomCreate:
		return Usage{AppID: e.AppID, RoomID: e.RoomID, RoomSessionID: e.RoomSessionID, Event: zego.EventRoomCreate, Create: e.RoomCreateTime, SentAt: e.SentAt(), SeenAt: seenAt}, true
	case *zego.RoomLogin:
		return stay(zego.EventRoomLogin, e), true
	case *zego.Recording:
		return recordingOf(e, seenAt), true
	case *zego.RoomLogout:
		u = stay(zego.EventRoomLogout, &e.RoomLogin)
		u.Logout, u.LogoutReason = e.LogoutTime, e.Reason
		return u, true
	}
	return u, false
}

// sessionKey names a session as the tables do.
type sessionKey struct {
	app     int64
	session string
}

func keyOf(appID uint32, roomSessionID uint64) sessionKey {
	return sessionKey{int64(appID), strconv.FormatUint(roomSessionID, 10)}
}

func (k sessionKey) compare(other sessionKey) int {
	return cmp.Or(cmp.Compare(k.app, other.app), strings.Compare(k.session, other.session))
}

// A sessionRow and a stayRow are what a batch tells of one row of the tables.
type sessionRow struct {
	sessionKey
	room                      string
	create, contradicted, see int64
}

type stayRow struct {
	sessionKey
	stay, user                                       string
	role, login, logout, reason, contradicted, seeAt int64
}

// differ says whether two callbacks disagree about a time. One that doesn't know
// it agrees with any.
func differ(a, b int64) bool { return a != 0 && b != 0 && a != b }

// service says whether a role is that of no participant.
func service(role int64) bool { return role == int64(zego.RoleService) }

// merge takes a later callback's word for what the earlier ones didn't know. It
// does what the statement of [Ledger.Record] does.
func (r *stayRow) merge(later stayRow) {
	if r.user != later.user || differ(r.login, later.login) || differ(r.logout, later.logout) ||
		r.role != 0 && later.role != 0 && service(r.role) != service(later.role) {
		r.contradicted = 1
	}
	if r.logout == 0 {
		r.logout, r.reason = later.logout, later.reason
	}
	r.role, r.login, r.seeAt = cmp.Or(r.role, later.role), cmp.Or(r.login, later.login), max(r.seeAt, later.seeAt)
}

// millis is a time as the tables have it.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the inverse of millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// rowsOf merges a batch to one row for each session and each stay, as a statement
// can't change a row twice. They are in the order of their keys: batches that are
// written at once then lock them in the same order, and none waits for another
// that waits for it.
func rowsOf(usage []Usage) ([]sessionRow, []stayRow) {
	var sessions []sessionRow
	var stays []stayRow
	at := make(map[sessionKey]int)
	type stayKey struct {
		sessionKey
		stay string
	}
	stayAt := make(map[stayKey]int)
	for _, u := range usage {
		key := keyOf(u.AppID, u.RoomSessionID)
		i, ok := at[key]
		if !ok {
			i = len(sessions)
			at[key] = i
			sessions = append(sessions, sessionRow{sessionKey: key, room: u.RoomID})
		}
		s := &sessions[i]
		if created := millis(u.Create); differ(s.create, created) {
			s.contradicted = 1
		} else {
			s.create = cmp.Or(s.create, created)
		}
		s.see = max(s.see, millis(u.SeenAt))
		if u.Event == zego.EventRoomCreate {
			continue
		}
		row := stayRow{sessionKey: key, stay: u.Stay, user: u.User, role: int64(u.Role),
			login: millis(u.Login), logout: millis(u.Logout), reason: int64(u.LogoutReason), seeAt: millis(u.SeenAt)}
		if i, ok := stayAt[stayKey{key, u.Stay}]; ok {
			stays[i].merge(row)
		} else {
			stayAt[stayKey{key, u.Stay}] = len(stays)
			stays = append(stays, row)
		}
	}
	slices.SortFunc(sessions, func(a, b sessionRow) int { return a.compare(b.sessionKey) })
	slices.SortFunc(stays, func(a, b stayRow) int {
		return cmp.Or(a.compare(b.sessionKey), strings.Compare(a.stay, b.stay))
	})
	return sessions, stays
}

// signOfLife is how much newer the last sign of life has to be, in milliseconds,
// for the session to be written for nothing else.
const signOfLife = 15_000

const (
	sessionColumns = "appid, room_session_id, room_id, room_create_time, contradicted, seen_at"
	insertSessions = `INSERT INTO sessions (` + sessionColumns + `, closed_at, entries, dirty_at) `
	updateSessions = `
		ON CONFLICT (appid, room_session_id) DO UPDATE SET
			room_create_time = CASE WHEN sessions.room_create_time = 0 THEN excluded.room_create_time ELSE sessions.room_create_time END,
			contradicted = CASE WHEN ` + sessionDiffers + ` THEN 1 ELSE sessions.contradicted END,
			seen_at = CASE WHEN excluded.seen_at > sessions.seen_at THEN excluded.seen_at ELSE sessions.seen_at END,
			dirty_at = CASE WHEN sessions.entries > 0 AND sessions.dirty_at = 0 AND (` + sessionNews + `) THEN $%d ELSE sessions.dirty_at END
		WHERE ` + sessionNews + ` OR sessions.entries > 0 OR sessions.closed_at = 0 AND excluded.seen_at > sessions.seen_at + $%d
		RETURNING appid, room_session_id, entries`
	sessionDiffers = `(excluded.contradicted = 1 OR sessions.room_create_time <> 0 AND excluded.room_create_time <> 0 AND sessions.room_create_time <> excluded.room_create_time)`
	sessionNews    = `sessions.room_create_time = 0 AND excluded.room_create_time <> 0 OR sessions.contradicted = 0 AND ` + sessionDiffers

	stayColumns = "appid, room_session_id, stay, user_account, user_role, login_time, logout_time, logout_reason, contradicted, seen_at"
	insertStays = `INSERT INTO stays (` + stayColumns + `) `
	updateStays = `
		ON CONFLICT (appid, room_session_id, stay) DO UPDATE SET
			user_role = CASE WHEN stays.user_role = 0 THEN excluded.user_role ELSE stays.user_role END,
			login_time = CASE WHEN stays.login_time = 0 THEN excluded.login_time ELSE stays.login_time END,
			logout_time = CASE WHEN stays.logout_time = 0 THEN excluded.logout_time ELSE stays.logout_time END,
			logout_reason = CASE WHEN stays.logout_time = 0 THEN excluded.logout_reason ELSE stays.logout_reason END,
			contradicted = CASE WHEN ` + stayDiffers + ` THEN 1 ELSE stays.contradicted END,
			seen_at = excluded.seen_at
		WHERE stays.login_time = 0 AND excluded.login_time <> 0 OR stays.logout_time = 0 AND excluded.logout_time <> 0
			OR stays.user_role = 0 AND excluded.user_role <> 0 OR stays.contradicted = 0 AND ` + stayDiffers
	stayDiffers = `(excluded.contradicted = 1 OR stays.user_account <> excluded.user_account
			OR stays.login_time <> 0 AND excluded.login_time <> 0 AND stays.login_time <> excluded.login_time
			OR stays.logout_time <> 0 AND excluded.logout_time <> 0 AND stays.logout_time <> excluded.logout_time
			OR stays.user_role <> 0 AND excluded.user_role <> 0 AND (stays.user_role = 4) <> (excluded.user_role = 4))`
)

// Record keeps what callbacks told, all or nothing. They may come in any order
// and any number of times, in one batch or several: a stay is one row, whichever
// of its ends came first, and what came first is kept of each of its fields. A
// repeat that contradicts it is noted, as nobody knows which of them is true.
func (l *Ledger) Record(ctx context.Context, usage []Usage) error {
	if len(usage) == 0 {
		return nil
	}
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	var lives, recordings []Usage
	for _, u := range usage {
		if u.Recording != nil {
			recordings = append(recordings, u)
		} else {
			lives = append(lives, u)
		}
	}
	sessions, stays := rowsOf(lives)
	if err := l.in(ctx, func(tx *sql.Tx) error {
		if len(sessions) > 0 {
			if err := l.record(ctx, tx, sessions, stays); err != nil {
				return err
			}
		}
		return l.recordRecordings(ctx, tx, recordings)
	}); err != nil {
		return fmt.Errorf("record %d callbacks: %w", len(usage), err)
	}
	return nil
}

func (l *Ledger) record(ctx context.Context, tx *sql.Tx, sessions []sessionRow, stays []stayRow) error {
	// This locks the sessions, be there nothing to change about them: a bill is
	// either made before, and its session then gets dirty, or afterwards, and then
	// has what is recorded here.
	now := time.Now().UnixMilli()
	from, args := l.table(sessionTypes, len(sessions), func(i int) []any {
		s := sessions[i]
		return []any{s.app, s.session, s.room, s.create, s.contradicted, s.see}
	})
	billed, err := billed(tx.QueryContext(ctx, insertSessions+"SELECT "+sessionColumns+", 0, 0, 0 FROM "+from+" WHERE true"+
		fmt.Sprintf(updateSessions, len(args)+1, len(args)+2), append(args, now, signOfLife)...))
	if err != nil {
		return fmt.Errorf("write sessions: %w", err)
	}
	// Of these few it matters whether there is anything new.
	var late, others []stayRow
	for _, s := range stays {
		if billed[s.sessionKey] {
			late = append(late, s)
		} else {
			others = append(others, s)
		}
	}
	if _, err := l.recordStays(ctx, tx, others); err != nil {
		return fmt.Errorf("write stays: %w", err)
	}
	for len(late) > 0 {
		key, n := late[0].sessionKey, 0
		for n < len(late) && late[n].sessionKey == key {
			n++
		}
		changed, err := l.recordStays(ctx, tx, late[:n])
		if err != nil {
			return fmt.Errorf("write late stays: %w", err)
		}
		if changed > 0 {
			if _, err := tx.ExecContext(ctx, "UPDATE sessions SET dirty_at = $1 WHERE appid = $2 AND room_session_id = $3 AND dirty_at = 0", now, key.app, key.session); err != nil {
				return fmt.Errorf("note late stays: %w", err)
			}
		}
		late = late[n:]
	}
	return nil
}

// recordStays writes stays and counts those that are new or changed.
func (l *Ledger) recordStays(ctx context.Context, tx *sql.Tx, stays []stayRow) (int64, error) {
	if len(stays) == 0 {
		return 0, nil
	}
	from, args := l.table(stayTypes, len(stays), func(i int) []any {
		s := stays[i]
		return []any{s.app, s.session, s.stay, s.user, s.role, s.login, s.logout, s.reason, s.contradicted, s.seeAt}
	})
	done, err := tx.ExecContext(ctx, insertStays+"SELECT "+stayColumns+" FROM "+from+" WHERE true"+updateStays, args...)
	if err != nil {
		return 0, err
	}
	return done.RowsAffected()
}

// billed reads which sessions have an entry.
func billed(rows *sql.Rows, err error) (map[sessionKey]bool, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	billed := map[sessionKey]bool{}
	for rows.Next() {
		var k sessionKey
		var entries int64
		if err := rows.Scan(&k.app, &k.session, &entries); err != nil {
			return nil, err
		}
		billed[k] = entries > 0
	}
	return billed, rows.Err()
}

// A column is one of a table that is handed to a statement.
type column struct {
	name string
	text bool
}

var (
	sessionTypes = columns(sessionColumns)
	stayTypes    = columns(stayColumns)
)

func columns(names string) (all []column) {
	for name := range strings.SplitSeq(names, ", ") {
		text := slices.Contains([]string{"room_session_id", "room_id", "stay", "user_account"}, name)
		all = append(all, column{name, text})
	}
	return all
}

// table makes a table of n rows that a statement can select from, with the
// arguments that it needs, which are the statement's first. Its text is the same
// for any number of rows, so that it is parsed once.
func (l *Ledger) table(columns []column, n int, row func(int) []any) (string, []any) {
	if l.path != "" {
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = row(i)
		}
		encoded, _ := json.Marshal(rows) // of text and integers
		var b strings.Builder
		for i, c := range columns {
			fmt.Fprintf(&b, ", value ->> %d AS %s", i, c.name)
		}
		return fmt.Sprintf("(SELECT %s FROM json_each($1)) AS given", b.String()[2:]), []any{string(encoded)}
	}
	args := make([]any, len(columns))
	for i, c := range columns {
		if c.text {
			args[i] = make([]string, n)
		} else {
			args[i] = make([]int64, n)
		}
	}
	for at := range n {
		for i, v := range row(at) {
			switch values := args[i].(type) {
			case []string:
				values[at] = v.(string)
			case []int64:
				values[at] = v.(int64)
			}
		}
	}
	var types, names []string
	for i, c := range columns {
		kind := "bigint"
		if c.text {
			kind = "text"
		}
		types, names = append(types, fmt.Sprintf("$%d::%s[]", i+1, kind)), append(names, c.name)
	}
	return fmt.Sprintf("unnest(%s) AS given (%s)", strings.Join(types, ", "), strings.Join(names, ", ")), args
}
