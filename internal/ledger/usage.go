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
	// Close is the room_close_time of a room_close that contradicts the first of its
	// session. Others aren't told to the ledger.
	Close time.Time `json:"close,omitzero"`
	// Login and Logout are the ends of the stay, as far as the callback has them.
	Login  time.Time `json:"login,omitzero"`
	Logout time.Time `json:"logout,omitzero"`
	// LogoutReason is the reason of a room_logout.
	LogoutReason uint32 `json:"logout_reason,omitempty"`
	// SentAt is when ZEGO sent the callback, by its clock: the one time that its
	// signature covers, to judge the others by.
	SentAt time.Time `json:"sent_at,omitzero"`
	// Implausible reports that the callback told a time that can't be: see
	// [Usage.Plausible].
	Implausible bool `json:"implausible,omitempty"`
	// SeenAt is when the callback was received, by our clock. Nothing is billed by it.
	SeenAt time.Time `json:"seen_at"`
	// Recording is what a callback told of a recording. Event is then
	// [zego.EventRecording], and the session isn't known.
	Recording *Recording `json:"recording,omitempty"`
	// Unreadable is set of a genuine callback that was refused, whose session isn't
	// known.
	Unreadable *Unreadable `json:"unreadable,omitempty"`
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
	case *zego.Unreadable:
		return Usage{AppID: e.AppID, RoomID: e.RoomID, Event: e.Event, SentAt: e.SentAt(), SeenAt: seenAt,
			Unreadable: &Unreadable{TaskID: e.TaskID, Field: e.Fault.Field, Problem: e.Fault.Problem}}, true
	case *zego.RoomLogout:
		u = stay(zego.EventRoomLogout, &e.RoomLogin)
		u.Logout, u.LogoutReason = e.LogoutTime, e.Reason
		return u, true
	}
	return u, false
}

// ClockTolerance is how much later than the signed timestamp a time may be. ZEGO sends
// a callback after what it tells of, from another of its machines.
const ClockTolerance = 5 * time.Minute

// Plausible returns what is to be believed of u by its SentAt. An end that is later becomes the
// time at which it was sent. A beginning is unknown if it is later, or if it lies
// further back than a room can live; 0 is without a limit.
func (u Usage) Plausible(maxRoomLife time.Duration) Usage {
	sent := u.SentAt
	if sent.IsZero() {
		return u
	}
	later := func(t time.Time) bool { return t.After(sent.Add(ClockTolerance)) }
	older := func(t time.Time) bool { return maxRoomLife > 0 && !t.IsZero() && t.Before(sent.Add(-maxRoomLife)) }
	for _, begin := range []*time.Time{&u.Create, &u.Login} {
		if later(*begin) || older(*begin) {
			*begin, u.Implausible = time.Time{}, true
		}
	}
	switch {
	case later(u.Logout):
		u.Logout, u.Implausible = sent, true
	case older(u.Logout): // it is kept, and ends the stay before it counts
		u.Implausible = true
	}
	return u
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
	room                                   string
	create, contradicted, implausible, see int64
}

type stayRow struct {
	sessionKey
	stay, user                  string
	role, roleAt, login, logout int64
	reason                      int64
	contradicted, implausible   int64
	seeAt                       int64
}

// differ reports whether two callbacks disagree about a time. One that doesn't know
// it agrees with any.
func differ(a, b int64) bool { return a != 0 && b != 0 && a != b }

// earliest returns the lesser of two times of which 0 is unknown.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// service reports whether a role is that of no participant.
func service(role int64) bool { return role == int64(zego.RoleService) }

// merge adds what another callback told of the session. It does what updateSessions
// does, and as that, comes to the same in every order.
func (r *sessionRow) merge(other sessionRow) {
	if r.room != other.room || differ(r.create, other.create) {
		r.contradicted = 1
	}
	r.room, r.create = min(r.room, other.room), earliest(r.create, other.create)
	r.contradicted, r.implausible, r.see = max(r.contradicted, other.contradicted), max(r.implausible, other.implausible), max(r.see, other.see)
}

// merge adds what another callback told of the stay. It does what updateStays does,
// and as that, comes to the same in every order: the earliest login, the latest
// logout with its reason, and the role that the latest logout knew.
func (r *stayRow) merge(other stayRow) {
	if r.user != other.user || differ(r.login, other.login) || differ(r.logout, other.logout) ||
		r.role != 0 && other.role != 0 && service(r.role) != service(other.role) {
		r.contradicted = 1
	}
	if other.logout > r.logout || other.logout == r.logout && other.reason > r.reason {
		r.reason = other.reason
	}
	if other.role != 0 && (r.role == 0 || other.roleAt > r.roleAt || other.roleAt == r.roleAt && other.role < r.role) {
		r.role, r.roleAt = other.role, other.roleAt
	}
	r.user, r.login, r.logout = min(r.user, other.user), earliest(r.login, other.login), max(r.logout, other.logout)
	r.implausible, r.seeAt = max(r.implausible, other.implausible), max(r.seeAt, other.seeAt)
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
		session := sessionRow{key, u.RoomID, millis(u.Create), 0, 0, millis(u.SeenAt)}
		switch u.Event {
		case zego.EventRoomCreate:
			session.implausible = oneIf(u.Implausible)
		case zego.EventRoomClose:
			session.contradicted = 1
		}
		if i, ok := at[key]; ok {
			sessions[i].merge(session)
		} else {
			at[key] = len(sessions)
			sessions = append(sessions, session)
		}
		if u.Event == zego.EventRoomCreate || u.Event == zego.EventRoomClose {
			continue
		}
		row := stayRow{sessionKey: key, stay: u.Stay, user: u.User, role: int64(u.Role), login: millis(u.Login), logout: millis(u.Logout),
			reason: int64(u.LogoutReason), implausible: oneIf(u.Implausible), seeAt: millis(u.SeenAt)}
		if row.role != 0 {
			row.roleAt = row.logout
		}
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
	sessionColumns = "appid, room_session_id, room_id, room_create_time, contradicted, implausible, seen_at"
	insertSessions = `INSERT INTO sessions (` + sessionColumns + `, closed_at, entries, dirty_at) `
	updateSessions = `
		ON CONFLICT (appid, room_session_id) DO UPDATE SET
			room_id = CASE WHEN excluded.room_id{C} < sessions.room_id THEN excluded.room_id ELSE sessions.room_id END,
			room_create_time = CASE WHEN ` + createdBefore + ` THEN excluded.room_create_time ELSE sessions.room_create_time END,
			contradicted = CASE WHEN ` + sessionDiffers + ` THEN 1 ELSE sessions.contradicted END,
			implausible = CASE WHEN excluded.implausible = 1 THEN 1 ELSE sessions.implausible END,
			seen_at = CASE WHEN excluded.seen_at > sessions.seen_at THEN excluded.seen_at ELSE sessions.seen_at END,
			dirty_at = CASE WHEN sessions.entries > 0 AND sessions.dirty_at = 0 AND (` + sessionNews + `) THEN $%d ELSE sessions.dirty_at END
		WHERE ` + sessionNews + ` OR sessions.entries > 0 OR sessions.closed_at = 0 AND excluded.seen_at > sessions.seen_at + $%d
		RETURNING appid, room_session_id, entries`
	createdBefore  = `excluded.room_create_time <> 0 AND (sessions.room_create_time = 0 OR excluded.room_create_time < sessions.room_create_time)`
	sessionDiffers = `(excluded.contradicted = 1 OR sessions.room_id <> excluded.room_id
			OR sessions.room_create_time <> 0 AND excluded.room_create_time <> 0 AND sessions.room_create_time <> excluded.room_create_time)`
	sessionNews = createdBefore + ` OR sessions.contradicted = 0 AND ` + sessionDiffers + ` OR sessions.implausible < excluded.implausible`

	stayColumns = "appid, room_session_id, stay, user_account, user_role, role_at, login_time, logout_time, logout_reason, contradicted, implausible, seen_at"
	insertStays = `INSERT INTO stays (` + stayColumns + `) `
	updateStays = `
		ON CONFLICT (appid, room_session_id, stay) DO UPDATE SET
			user_account = CASE WHEN ` + userBefore + ` THEN excluded.user_account ELSE stays.user_account END,
			user_role = CASE WHEN ` + roleBetter + ` THEN excluded.user_role ELSE stays.user_role END,
			role_at = CASE WHEN ` + roleBetter + ` THEN excluded.role_at ELSE stays.role_at END,
			login_time = CASE WHEN ` + loginBefore + ` THEN excluded.login_time ELSE stays.login_time END,
			logout_time = CASE WHEN excluded.logout_time > stays.logout_time THEN excluded.logout_time ELSE stays.logout_time END,
			logout_reason = CASE WHEN ` + reasonBetter + ` THEN excluded.logout_reason ELSE stays.logout_reason END,
			contradicted = CASE WHEN ` + stayDiffers + ` THEN 1 ELSE stays.contradicted END,
			implausible = CASE WHEN excluded.implausible = 1 THEN 1 ELSE stays.implausible END,
			seen_at = CASE WHEN excluded.seen_at > stays.seen_at THEN excluded.seen_at ELSE stays.seen_at END
		WHERE ` + userBefore + ` OR ` + roleBetter + ` OR ` + loginBefore + ` OR excluded.logout_time > stays.logout_time OR ` + reasonBetter + `
			OR stays.contradicted = 0 AND ` + stayDiffers + ` OR stays.implausible < excluded.implausible`
	userBefore  = `excluded.user_account{C} < stays.user_account`
	loginBefore = `(excluded.login_time <> 0 AND (stays.login_time = 0 OR excluded.login_time < stays.login_time))`
	roleBetter  = `(excluded.user_role <> 0 AND (stays.user_role = 0 OR excluded.role_at > stays.role_at
			OR excluded.role_at = stays.role_at AND excluded.user_role < stays.user_role))`
	reasonBetter = `(excluded.logout_time > stays.logout_time OR excluded.logout_time = stays.logout_time AND excluded.logout_reason > stays.logout_reason)`
	stayDiffers  = `(excluded.contradicted = 1 OR stays.user_account <> excluded.user_account
			OR stays.login_time <> 0 AND excluded.login_time <> 0 AND stays.login_time <> excluded.login_time
			OR stays.logout_time <> 0 AND excluded.logout_time <> 0 AND stays.logout_time <> excluded.logout_time
			OR stays.user_role <> 0 AND excluded.user_role <> 0 AND (stays.user_role = 4) <> (excluded.user_role = 4))`
)

// bytewise returns a statement of which texts are compared as Go does. SQLite does so
// anyway.
func (l *Ledger) bytewise(statement string) string {
	collation := ` COLLATE "C"`
	if l.path != "" {
		collation = ""
	}
	return strings.ReplaceAll(statement, "{C}", collation)
}

// Record keeps what callbacks told, all or nothing. They may come in any order
// and any number of times, in one batch or several: the same rows come of it. Where
// two contradict each other that is noted, as nobody knows which of them is true.
func (l *Ledger) Record(ctx context.Context, usage []Usage) error {
	if len(usage) == 0 {
		return nil
	}
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	var lives, recordings, unreadable []Usage
	for _, u := range usage {
		if u.Unreadable != nil {
			unreadable = append(unreadable, u)
		} else if u.Recording != nil {
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
			if err := l.recordContradictions(ctx, tx, lives); err != nil {
				return err
			}
		}
		if err := l.recordUnreadable(ctx, tx, unreadable); err != nil {
			return err
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
		return []any{s.app, s.session, s.room, s.create, s.contradicted, s.implausible, s.see}
	})
	billed, err := billed(tx.QueryContext(ctx, insertSessions+"SELECT "+sessionColumns+", 0, 0, 0 FROM "+from+" WHERE true"+
		fmt.Sprintf(l.bytewise(updateSessions), len(args)+1, len(args)+2), append(args, now, signOfLife)...))
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
		return []any{s.app, s.session, s.stay, s.user, s.role, s.roleAt, s.login, s.logout, s.reason, s.contradicted, s.implausible, s.seeAt}
	})
	done, err := tx.ExecContext(ctx, insertStays+"SELECT "+stayColumns+" FROM "+from+" WHERE true"+l.bytewise(updateStays), args...)
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
		text := slices.Contains([]string{"room_session_id", "room_id", "stay", "user_account", "task_id", "file_id", "url", "format", "user_id", "stream_id"}, name)
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
