package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// A sessionRow is a row of the table of sessions, merged from a batch.
type sessionRow struct {
	key
	room                                   string
	create, contradicted, implausible, see int64
}

// A stayRow is a row of the table of stays, or of that of streams.
type stayRow struct {
	key
	stay, user, name          string
	loginNumber, logoutNumber int64
	role, reason              zego.Code
	roleAt, login, logout     int64
	contradicted, implausible int64
	seeAt                     int64
}

// differ reports whether two callbacks disagree about a time. An unknown time agrees with any.
func differ(a, b int64) bool { return a != 0 && b != 0 && a != b }

// earliest returns the lesser of two times; 0 is unknown.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// merge merges another callback about the session, as updateSessions does. The order does not
// matter.
func (r *sessionRow) merge(other sessionRow) {
	if r.room != other.room || differ(r.create, other.create) {
		r.contradicted = 1
	}
	r.room, r.create = min(r.room, other.room), earliest(r.create, other.create)
	r.contradicted, r.implausible, r.see = max(r.contradicted, other.contradicted), max(r.implausible, other.implausible), max(r.see, other.see)
}

// merge merges another callback about the stay, as updateStays does. The order does not matter:
// the earliest login counts, and the latest logout with its reason and role.
func (r *stayRow) merge(other stayRow) {
	if r.user != other.user || differ(r.login, other.login) || differ(r.logout, other.logout) ||
		differ(r.loginNumber, other.loginNumber) || differ(r.logoutNumber, other.logoutNumber) ||
		r.role != "" && other.role != "" && (r.role == zego.RoleService) != (other.role == zego.RoleService) {
		r.contradicted = 1
	}
	if other.logout > r.logout || other.logout == r.logout && other.reason > r.reason {
		r.reason = other.reason
	}
	if other.role != "" && (r.role == "" || other.roleAt > r.roleAt || other.roleAt == r.roleAt && other.role < r.role) {
		r.role, r.roleAt = other.role, other.roleAt
	}
	r.user, r.login, r.logout = min(r.user, other.user), earliest(r.login, other.login), max(r.logout, other.logout)
	r.implausible, r.seeAt = max(r.implausible, other.implausible), max(r.seeAt, other.seeAt)
	r.name = min(cmp.Or(r.name, other.name), cmp.Or(other.name, r.name))
	r.loginNumber, r.logoutNumber = sameNumber(r.loginNumber, other.loginNumber), sameNumber(r.logoutNumber, other.logoutNumber)
}

// sameNumber merges the numbers of two callbacks. Different ones give -1, as when a user logs in
// again with the same session_id.
func sameNumber(a, b int64) int64 {
	if differ(a, b) {
		return -1
	}
	return cmp.Or(a, b)
}

// rowsOf merges a batch into one row for each session, stay and stream, because a statement
// cannot change a row twice. It orders rows by key, so that writers lock them in the same
// order and never deadlock.
func rowsOf(events []Event) (sessions []sessionRow, stays, streams []stayRow) {
	at := make(map[key]int)
	type stayKey struct {
		key
		stream bool
		stay   string
	}
	stayAt := make(map[stayKey]int)
	for _, u := range events {
		k := keyOf(u.ID)
		life := sessionRow{k, u.RoomID, millis(u.Create), 0, 0, millis(u.SeenAt)}
		switch u.Event {
		case zego.EventRoomCreate:
			life.implausible = oneIf(u.Implausible)
		case zego.EventRoomClose:
			life.contradicted = 1
		}
		if i, ok := at[k]; ok {
			sessions[i].merge(life)
		} else {
			at[k] = len(sessions)
			sessions = append(sessions, life)
		}
		if u.Event == zego.EventRoomCreate || u.Event == zego.EventRoomClose {
			continue
		}
		row := stayRow{key: k, stay: u.Stay, user: u.User, role: u.Role, login: millis(u.Login), logout: millis(u.Logout),
			reason: u.LogoutReason, implausible: oneIf(u.Implausible), seeAt: millis(u.SeenAt)}
		if row.role != "" {
			row.roleAt = row.logout
		}
		number := cmp.Or(u.Number, -1)
		if row.name = u.Name; u.Logout.IsZero() {
			row.loginNumber = number
		} else {
			row.logoutNumber = number
		}
		rows := &stays
		if u.stream() {
			rows = &streams
		}
		if i, ok := stayAt[stayKey{k, u.stream(), u.Stay}]; ok {
			(*rows)[i].merge(row)
		} else {
			stayAt[stayKey{k, u.stream(), u.Stay}] = len(*rows)
			*rows = append(*rows, row)
		}
	}
	slices.SortFunc(sessions, func(a, b sessionRow) int { return a.compare(b.key) })
	for _, rows := range [][]stayRow{stays, streams} {
		slices.SortFunc(rows, func(a, b stayRow) int {
			return cmp.Or(a.compare(b.key), strings.Compare(a.stay, b.stay))
		})
	}
	return sessions, stays, streams
}

// signOfLife is the least growth of a session's last sign of life, in milliseconds, that is
// worth a write of its own.
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

	stayColumns = "appid, room_session_id, stay, user_account, user_role, role_at, login_time, logout_time, logout_reason, contradicted, implausible, seen_at, name, login_number, logout_number"
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
			seen_at = CASE WHEN excluded.seen_at > stays.seen_at THEN excluded.seen_at ELSE stays.seen_at END,
			name = CASE WHEN ` + nameBefore + ` THEN excluded.name ELSE stays.name END,
			login_number = CASE WHEN ` + loginNumbered + ` THEN CASE WHEN stays.login_number = 0 THEN excluded.login_number ELSE -1 END ELSE stays.login_number END,
			logout_number = CASE WHEN ` + logoutNumbered + ` THEN CASE WHEN stays.logout_number = 0 THEN excluded.logout_number ELSE -1 END ELSE stays.logout_number END
		WHERE ` + nameBefore + ` OR ` + loginNumbered + ` OR ` + logoutNumbered + ` OR ` + userBefore + ` OR ` + roleBetter + ` OR ` + loginBefore + ` OR excluded.logout_time > stays.logout_time OR ` + reasonBetter + `
			OR stays.contradicted = 0 AND ` + stayDiffers + ` OR stays.implausible < excluded.implausible`
	nameBefore     = `(excluded.name <> '' AND (stays.name = '' OR excluded.name{C} < stays.name))`
	loginNumbered  = `(excluded.login_number NOT IN (0, stays.login_number) AND stays.login_number <> -1)`
	logoutNumbered = `(excluded.logout_number NOT IN (0, stays.logout_number) AND stays.logout_number <> -1)`
	userBefore     = `excluded.user_account{C} < stays.user_account`
	loginBefore    = `(excluded.login_time <> 0 AND (stays.login_time = 0 OR excluded.login_time < stays.login_time))`
	roleBetter     = `(excluded.user_role <> '' AND (stays.user_role = '' OR excluded.role_at > stays.role_at
			OR excluded.role_at = stays.role_at AND excluded.user_role{C} < stays.user_role))`
	reasonBetter = `(excluded.logout_time > stays.logout_time OR excluded.logout_time = stays.logout_time AND excluded.logout_reason{C} > stays.logout_reason)`
	stayDiffers  = `(excluded.contradicted = 1 OR stays.user_account <> excluded.user_account
			OR stays.login_time <> 0 AND excluded.login_time <> 0 AND stays.login_time <> excluded.login_time
			OR stays.logout_time <> 0 AND excluded.logout_time <> 0 AND stays.logout_time <> excluded.logout_time
			OR stays.login_number <> 0 AND excluded.login_number <> 0 AND stays.login_number <> excluded.login_number
			OR stays.logout_number <> 0 AND excluded.logout_number <> 0 AND stays.logout_number <> excluded.logout_number
			OR stays.user_role <> '' AND excluded.user_role <> '' AND (stays.user_role = '4') <> (excluded.user_role = '4'))`
)

// Record stores events, all or nothing. The resulting rows do not depend on the order of the
// events, on repeats, or on their batches. If two callbacks contradict each other, the row
// records that.
func (l *Ledger) Record(ctx context.Context, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	var lives, recordings, unreadable []Event
	for _, u := range events {
		switch {
		case u.Unreadable != nil:
			unreadable = append(unreadable, u)
		case u.Recording != nil:
			recordings = append(recordings, u)
		default:
			lives = append(lives, u)
		}
	}
	sessions, stays, streams := rowsOf(lives)
	if err := l.in(ctx, func(tx transaction) error {
		if err := l.record(ctx, tx, sessions, stays, streams); err != nil {
			return err
		}
		if err := recordContradictions(ctx, tx, lives); err != nil {
			return err
		}
		if err := recordUnreadable(ctx, tx, unreadable); err != nil {
			return err
		}
		return l.recordRecordings(ctx, tx, recordings)
	}); err != nil {
		return fmt.Errorf("record %d callbacks: %w", len(events), err)
	}
	return nil
}

func (l *Ledger) record(ctx context.Context, tx transaction, sessions []sessionRow, stays, streams []stayRow) error {
	if len(sessions) == 0 {
		return nil
	}
	// This locks all the sessions. A bill is made either before, which makes its session
	// dirty, or afterwards, and then includes these events.
	now := time.Now().UnixMilli()
	from, args := l.table(sessionTypes, len(sessions), func(i int) []any {
		s := sessions[i]
		return []any{s.app, s.session, s.room, s.create, s.contradicted, s.implausible, s.see}
	})
	billed := map[key]bool{}
	if err := each(ctx, tx, func(r row) (k key, err error) {
		var entries int64
		err = r.Scan(&k.app, &k.session, &entries)
		if entries > 0 {
			billed[k] = true
		}
		return k, err
	}, func(key) error { return nil }, insertSessions+"SELECT "+sessionColumns+", 0, 0, 0 FROM "+from+" WHERE true"+
		fmt.Sprintf(l.bytewise(updateSessions), len(args)+1, len(args)+2), append(args, now, signOfLife)...); err != nil {
		return fmt.Errorf("write sessions: %w", err)
	}
	if err := l.recordRows(ctx, tx, "stays", stays, billed, now); err != nil {
		return fmt.Errorf("write stays: %w", err)
	}
	return wrap(l.recordRows(ctx, tx, "streams", streams, billed, now), "write streams")
}

// recordRows writes stays or streams, and notes the billed sessions that change.
func (l *Ledger) recordRows(ctx context.Context, tx transaction, table string, rows []stayRow, billed map[key]bool, now int64) error {
	if len(rows) == 0 {
		return nil
	}
	from, args := l.table(stayTypes, len(rows), func(i int) []any {
		s := rows[i]
		return []any{s.app, s.session, s.stay, s.user, string(s.role), s.roleAt, s.login, s.logout, string(s.reason), s.contradicted, s.implausible, s.seeAt, s.name, s.loginNumber, s.logoutNumber}
	})
	statement := insertStays + "SELECT " + stayColumns + " FROM " + from + " WHERE true" + l.bytewise(updateStays)
	if table == "streams" {
		statement = streamsOf.Replace(statement)
	}
	if len(billed) == 0 { // few sessions are
		_, err := tx.exec(ctx, statement, args...)
		return err
	}
	changed, err := list(ctx, tx, func(r row) (k key, err error) {
		err = r.Scan(&k.app, &k.session)
		return k, err
	}, statement+" RETURNING appid, room_session_id", args...)
	if err != nil {
		return err
	}
	for _, k := range changed {
		if !billed[k] {
			continue
		}
		if _, err := tx.exec(ctx, "UPDATE sessions SET dirty_at = $1 WHERE appid = $2 AND room_session_id = $3 AND dirty_at = 0", now, k.app, k.session); err != nil {
			return fmt.Errorf("note late ones: %w", err)
		}
		delete(billed, k) // once is enough
	}
	return nil
}

// streamsOf turns a statement about stays into one about streams, which have the same columns.
var streamsOf = strings.NewReplacer("stays", "streams", "stay,", "stream_sid,", "stay{", "stream_sid{", "stay)", "stream_sid)",
	"login_time", "create_time", "logout_time", "close_time", "logout_reason", "close_type", "login_number", "create_number", "logout_number", "close_number")

var (
	sessionTypes = columns(sessionColumns)
	stayTypes    = columns(stayColumns)
)
