package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// StayOf is a stay with its user.
type StayOf struct {
	metering.Stay
	// User is the user_account.
	User string
	// SeenAt is when the last callback with news about the stay arrived, by our clock.
	SeenAt time.Time
}

func scanStay(r row) (s StayOf, err error) {
	err = r.Scan(&s.ID, &s.User, &s.Role, &s.Login, &s.Logout, &s.Contradicted, &s.Implausible, (*timeColumn)(&s.SeenAt), &s.Name)
	return s, err
}

const selectStays = `
	SELECT stay, user_account, user_role, login_time, logout_time, contradicted = 1, implausible = 1, seen_at, name FROM stays
	WHERE appid = $1 AND room_session_id = $2 AND (user_account{C}, login_time, stay{C}) > ($3, $4, $5)
	ORDER BY user_account{C}, login_time, stay{C} LIMIT $6`

// rowsOfUsers lists a session's stays or streams, by user, beginning and ID.
func (l *Ledger) rowsOfUsers(ctx context.Context, from source, k key, statement string) iter.Seq2[StayOf, error] {
	return pages("read stays and streams", StayOf{Stay: metering.Stay{Login: -1}}, func(last StayOf) ([]StayOf, error) {
		return list(ctx, from, scanStay, l.bytewise(statement), k.app, k.session, last.User, last.Login, last.ID, pageSize)
	})
}

// Stays lists a session's stays by user and login.
func (l *Ledger) Stays(ctx context.Context, id session.ID) iter.Seq2[StayOf, error] {
	return l.rowsOfUsers(ctx, l, keyOf(id), selectStays)
}

// billed holds a user's figures in entries.
type billed struct {
	user string
	// before holds the figures before an entry, and now those including it.
	before, now *session.Participant
}

const participantColumns = "appid, room_session_id, user_account, number, excluded, in_room, in_room_min, in_room_max, in_room_reasons, published, published_min, published_max, published_reasons"

var participantTypes = columns(participantColumns)

type billedRow struct {
	session.Participant
	number int64
}

// people holds the users whose figures differ from those in the earlier entries. billed is set
// if the billed time of one does, even if the sum of all is the same.
type people struct {
	rows   []billedRow
	billed bool
}

func scanBilled(r row) (b billedRow, err error) {
	err = r.Scan(&b.User, &b.number, &b.Excluded, &b.InRoom.Millis, &b.InRoom.Min, &b.InRoom.Max, (*reasonsColumn)(&b.InRoom.Reasons),
		&b.Published.Millis, &b.Published.Min, &b.Published.Max, (*reasonsColumn)(&b.Published.Reasons))
	return b, err
}

// billedOf lists the figures of a session's users in the entries up to number, by user.
func (l *Ledger) billedOf(ctx context.Context, from source, k key, number int64) iter.Seq2[billed, error] {
	rows := pages("read billed participants", billedRow{number: -1}, func(last billedRow) ([]billedRow, error) {
		return list(ctx, from, scanBilled, l.bytewise(`
			SELECT user_account, number, excluded, in_room, in_room_min, in_room_max, in_room_reasons, published, published_min, published_max, published_reasons
			FROM participants WHERE appid = $1 AND room_session_id = $2 AND number <= $3 AND (user_account{C}, number) > ($4, $5)
			ORDER BY user_account{C}, number LIMIT $6`), k.app, k.session, number, last.User, last.number, pageSize)
	})
	return func(yield func(billed, error) bool) {
		var b billed
		for r, err := range rows {
			if err != nil {
				yield(b, err)
				return
			}
			if b.now != nil && b.user != r.User {
				if !yield(b, nil) {
					return
				}
				b = billed{}
			}
			b.user, b.now = r.User, &r.Participant
			if r.number < number {
				b.before = b.now
			}
		}
		if b.now != nil {
			yield(b, nil)
		}
	}
}

// Excluded returns why users were excluded in an entry, by user_account.
func (l *Ledger) Excluded(ctx context.Context, id session.ID, number int) (map[string]string, error) {
	all, k := map[string]string{}, keyOf(id)
	for b, err := range l.billedOf(ctx, l, k, int64(number)) {
		if err != nil {
			return nil, fmt.Errorf("read who is excluded from session %s: %w", k, err)
		}
		if b.now.Excluded != "" {
			all[b.user] = b.now.Excluded
		}
	}
	return all, nil
}

// A cursor is the next value of a list.
type cursor[T any] struct {
	value T
	err   error
	ok    bool
	next  func() (T, error, bool)
}

func pull[T any](list iter.Seq2[T, error]) (*cursor[T], func()) {
	next, stop := iter.Pull2(list)
	c := &cursor[T]{next: next}
	c.advance()
	return c, stop
}

func (c *cursor[T]) advance() { c.value, c.err, c.ok = c.next() }

// peopleOf lists a session's users in bytewise order, with the figures that meter computes now
// and those in the entries up to number.
func (l *Ledger) peopleOf(ctx context.Context, from source, k key, meter *metering.Meter, exclude metering.Exclude, number int64) iter.Seq2[personOf, error] {
	return func(yield func(personOf, error) bool) {
		stays, stop := pull(l.rowsOfUsers(ctx, from, k, selectStays))
		defer stop()
		streams, stop := pull(l.rowsOfUsers(ctx, from, k, streamsOf.Replace(selectStays)))
		defer stop()
		entries, stop := pull(l.billedOf(ctx, from, k, number))
		defer stop()
		var u metering.User
		for stays.ok || streams.ok || entries.ok {
			if err := errors.Join(stays.err, streams.err, entries.err); err != nil {
				yield(personOf{}, err)
				return
			}
			u.Account = ""
			none := true
			for _, c := range []struct {
				name string
				ok   bool
			}{{stays.value.User, stays.ok}, {streams.value.User, streams.ok}, {entries.value.user, entries.ok}} {
				if c.ok && (none || c.name < u.Account) {
					u.Account, none = c.name, false
				}
			}
			u.Stays, u.Streams = u.Stays[:0], u.Streams[:0]
			for stays.ok && stays.err == nil && stays.value.User == u.Account {
				u.Stays = append(u.Stays, stays.value.Stay)
				stays.advance()
			}
			for streams.ok && streams.err == nil && streams.value.User == u.Account {
				s := streams.value
				u.Streams = append(u.Streams, metering.Stream{SID: s.ID, ID: s.Name, Create: s.Login, Close: s.Logout, Contradicted: s.Contradicted, Implausible: s.Implausible})
				streams.advance()
			}
			if err := errors.Join(stays.err, streams.err); err != nil {
				yield(personOf{}, err)
				return
			}
			p := personOf{Participant: session.Participant{User: u.Account}}
			if len(u.Stays)+len(u.Streams) > 0 {
				p.Participant = meter.Add(u, exclude)
			}
			if entries.ok && entries.value.user == u.Account {
				p.billed = entries.value
				if p.before != nil {
					p.Before = p.before.Billed()
				}
				entries.advance()
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// personOf is a user with the current figures and those in entries.
type personOf struct {
	session.Participant
	billed
}

// numbersOf reads the sequence numbers of a session's stays or streams.
func numbersOf(ctx context.Context, from source, k key, table string) (n metering.Numbers, last int64, roles bool, err error) {
	statement := func(s string) string {
		if table == "streams" {
			return streamsOf.Replace(s)
		}
		return s
	}
	var seen, repeated, unnumberedService, openService int64
	if _, err = one(ctx, from, func(r row) (struct{}, error) {
		return struct{}{}, r.Scan(&n.Unnumbered, &unnumberedService, &n.Open, &openService, &last, &roles)
	}, statement(`SELECT
			coalesce(sum(CASE WHEN login_number < 0 OR logout_number < 0 THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE WHEN user_role = '4' AND (login_number < 0 OR logout_number < 0) THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE WHEN logout_time = 0 THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE WHEN user_role = '4' AND logout_time = 0 THEN 1 ELSE 0 END), 0),
			coalesce(max(CASE WHEN logout_time > login_time THEN logout_time ELSE login_time END), 0),
			coalesce(max(CASE WHEN user_role NOT IN ('', '4') THEN 1 ELSE 0 END), 0) = 1
		FROM stays WHERE appid = $1 AND room_session_id = $2`), k.app, k.session); err != nil || last == 0 {
		return n, last, roles, err
	}
	service := "none" // no role is a recorder's where roles mean nothing
	if roles {
		service, n.Unnumbered, n.Open = string(zego.RoleService), n.Unnumbered-unnumberedService, n.Open-openService
	}
	if _, err = one(ctx, from, func(r row) (struct{}, error) {
		return struct{}{}, r.Scan(&n.First, &n.Last, &n.Distinct, &seen, &repeated)
	}, statement(`SELECT coalesce(min(number), 0), coalesce(max(number), 0), count(DISTINCT number),
			coalesce(sum(people), 0), count(DISTINCT CASE WHEN people = 1 THEN number END) FROM (
			SELECT login_number AS number, CASE WHEN user_role = $3 THEN 0 ELSE 1 END AS people FROM stays WHERE appid = $1 AND room_session_id = $2 AND login_number > 0 UNION ALL
			SELECT logout_number, CASE WHEN user_role = $3 THEN 0 ELSE 1 END FROM stays WHERE appid = $1 AND room_session_id = $2 AND logout_number > 0) AS numbers`), k.app, k.session, service); err != nil {
		return n, last, roles, err
	}
	n.Repeated = seen != repeated
	if n.Gaps() > 0 {
		// A stay that began before the first known callback is in no gap.
		n.Stated, err = one(ctx, from, value[int64], statement(`SELECT count(*) FROM stays
			WHERE appid = $1 AND room_session_id = $2 AND login_number = 0 AND logout_number > 0 AND login_time <> 0 AND login_time > (
				SELECT min(CASE WHEN login_number = $3 THEN login_time ELSE logout_time END) FROM stays
				WHERE appid = $1 AND room_session_id = $2 AND (login_number = $3 OR logout_number = $3))`), k.app, k.session, n.First)
	}
	return n, last, roles, err
}

// roomOf returns a session's room with a plausible end: see [metering.Room.Plausible].
func roomOf(ctx context.Context, from source, k key, room metering.Room) (_ metering.Room, doubt string, err error) {
	times, err := one(ctx, from, func(r row) (t metering.Times, err error) {
		err = r.Scan(&t.FirstLogin, &t.LastLogout)
		return t, err
	}, `SELECT coalesce(min(CASE WHEN login_time <> 0 THEN login_time END), 0), coalesce(max(logout_time), 0)
		FROM stays WHERE appid = $1 AND room_session_id = $2`, k.app, k.session)
	if err != nil {
		return room, "", fmt.Errorf("read the first login and the last logout: %w", err)
	}
	users, lastStay, roles, err := numbersOf(ctx, from, k, "stays")
	if err != nil {
		return room, "", fmt.Errorf("read the numbers of logins and logouts: %w", err)
	}
	streams, lastStream, _, err := numbersOf(ctx, from, k, "streams")
	if err != nil {
		return room, "", fmt.Errorf("read the numbers of streams: %w", err)
	}
	times.Last = lastStay
	if room.Reconciled {
		times.Last = max(lastStay, lastStream)
	}
	room.Callbacks, room.StreamCallbacks = users.Completeness(), streams.Completeness()
	room.Roles, room.Streams = roles, lastStream != 0
	room, doubt = room.Plausible(times)
	return room, doubt, nil
}

// count computes the usage and the participants of an entry.
func (l *Ledger) count(ctx context.Context, from source, s session.Session, k key, room metering.Room, number int64) (f session.Usage, changed people, err error) {
	room.RolesUnclear = l.Rules.Auto(s.AppID)
	meter := metering.NewMeter(room)
	for p, err := range l.peopleOf(ctx, from, k, meter, l.Rules.Of(s, room), number-1) {
		if err != nil {
			return f, changed, err
		}
		row := billedRow{p.Participant, number}
		row.Stays, row.Streams, row.Names = nil, nil, nil
		var earlier session.Participant
		if p.now != nil {
			earlier = *p.now
		}
		if p.now == nil || earlier.Excluded != row.Excluded || earlier.InRoom != row.InRoom || earlier.Published != row.Published {
			changed.rows = append(changed.rows, row)
		}
		changed.billed = changed.billed || earlier.Billed() != row.Billed()
	}
	f, err = meter.Figures()
	return f, changed, err
}

// insertBilled stores an entry's figures of users. It keeps existing rows, which a restored
// ledger may have.
func (l *Ledger) insertBilled(ctx context.Context, tx transaction, k key, rows []billedRow) error {
	for page := range slices.Chunk(rows, 1000) {
		from, args := l.table(participantTypes, len(page), func(i int) []any {
			p := page[i]
			return []any{k.app, k.session, p.User, p.number, p.Excluded, p.InRoom.Millis, p.InRoom.Min, p.InRoom.Max, p.InRoom.Reasons.String(),
				p.Published.Millis, p.Published.Min, p.Published.Max, p.Published.Reasons.String()}
		})
		if _, err := tx.exec(ctx, "INSERT INTO participants ("+participantColumns+") SELECT "+participantColumns+" FROM "+from+" WHERE true ON CONFLICT DO NOTHING", args...); err != nil {
			return fmt.Errorf("insert participants: %w", err)
		}
	}
	return nil
}

// Completeness reports whether login and logout callbacks, and stream callbacks, are missing.
func (l *Ledger) Completeness(ctx context.Context, id session.ID) (users, streams session.Completeness, err error) {
	k := keyOf(id)
	room, _, err := roomOf(ctx, l, k, metering.Room{})
	return room.Callbacks, room.StreamCallbacks, wrap(err, "read which callbacks of session %s are missing", k)
}

// Participants returns the participants of a session as in its bill or in the adjustment of the
// number. Without that entry, it returns the current figures.
func (l *Ledger) Participants(ctx context.Context, s session.Session, adjustment int) (*session.Participants, error) {
	k := keyOf(s.ID)
	p := &session.Participants{Session: s, Adjustment: adjustment}
	locked, err := one(ctx, l, scanLocked, "SELECT "+lockedColumns+" FROM sessions WHERE appid = $1 AND room_session_id = $2", k.app, k.session)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read session %s: %w", k, err)
	}
	room := locked.room
	room.Close, room.Reconciled = s.RoomCloseTime.UnixMilli(), s.Reconciled
	if room, _, err = roomOf(ctx, l, k, room); err != nil {
		return nil, fmt.Errorf("read session %s: %w", k, err)
	}
	p.Start, p.End, p.Settled = fromMillis(room.Create), fromMillis(room.Close), locked.entries > adjustment
	p.Callbacks, p.StreamCallbacks = room.Callbacks, room.StreamCallbacks
	if p.Settled {
		from, args := "bills WHERE", []any{k.app, k.session}
		if adjustment > 0 {
			from, args = "adjustments WHERE number = $3 AND", append(args, adjustment)
		}
		if _, err := one(ctx, l, func(r row) (struct{}, error) {
			return struct{}{}, r.Scan((*timeColumn)(&p.Start), (*timeColumn)(&p.End), (*missingColumn)(&p.Callbacks), (*missingColumn)(&p.StreamCallbacks))
		}, "SELECT start_time, end_time, callbacks, stream_callbacks FROM "+from+" appid = $1 AND room_session_id = $2", args...); err != nil {
			return nil, fmt.Errorf("read entry %d of session %s: %w", adjustment, k, err)
		}
	}
	p.All = func(yield func(session.Participant, error) bool) {
		for q, err := range l.peopleOf(ctx, l, k, metering.NewMeter(room), l.Rules.Of(s, room), int64(adjustment)) {
			if err != nil {
				yield(session.Participant{}, fmt.Errorf("read the participants of session %s: %w", k, err))
				return
			}
			if p.Settled {
				if q.now == nil {
					continue // not in the entry
				}
				q.Excluded, q.InRoom, q.Published = q.now.Excluded, q.now.InRoom, q.now.Published
			}
			if !yield(q.Participant, nil) {
				return
			}
		}
	}
	return p, nil
}
