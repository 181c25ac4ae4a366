package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// StayOf is a stay as the ledger has it.
type StayOf struct {
	metering.Stay
	// User is the user_account.
	User string
	// SeenAt is when the last callback with something new about it arrived, by our clock.
	SeenAt time.Time
}

func scanStay(r row) (s StayOf, err error) {
	var role int64
	err = r.Scan(&s.ID, &s.User, &role, &s.Login, &s.Logout, &s.Contradicted, &s.Implausible, (*timeColumn)(&s.SeenAt))
	s.Role = zego.UserRole(role)
	return s, err
}

// staysOf lists a session's stays by user, login and ID.
func (l *Ledger) staysOf(ctx context.Context, from source, k key) iter.Seq2[StayOf, error] {
	return pages("read stays", func(last *StayOf) ([]StayOf, error) {
		after := StayOf{}
		after.Login = -1
		if last != nil {
			after = *last
		}
		return list(ctx, from, scanStay, l.bytewise(`
			SELECT stay, user_account, user_role, login_time, logout_time, contradicted = 1, implausible = 1, seen_at FROM stays
			WHERE appid = $1 AND room_session_id = $2 AND (user_account{C}, login_time, stay{C}) > ($3, $4, $5)
			ORDER BY user_account{C}, login_time, stay{C} LIMIT $6`), k.app, k.session, after.User, after.Login, after.ID, pageSize)
	})
}

// Stays lists a session's stays by user and login.
func (l *Ledger) Stays(ctx context.Context, appID uint32, roomSessionID uint64) iter.Seq2[StayOf, error] {
	return l.staysOf(ctx, l, keyOf(appID, roomSessionID))
}

// usersOf lists a session's users in the order of their names, bytewise.
func (l *Ledger) usersOf(ctx context.Context, from source, k key) iter.Seq2[metering.User, error] {
	return func(yield func(metering.User, error) bool) {
		var u metering.User
		for s, err := range l.staysOf(ctx, from, k) {
			if err != nil {
				yield(u, err)
				return
			}
			if len(u.Stays) > 0 && u.Account != s.User {
				if !yield(u, nil) {
					return
				}
				u.Stays = u.Stays[:0]
			}
			u.Account, u.Stays = s.User, append(u.Stays, s.Stay)
		}
		if len(u.Stays) > 0 {
			yield(u, nil)
		}
	}
}

// plausible returns the room with the end that its stays make plausible; see
// [metering.Room.Plausible].
func plausible(ctx context.Context, from source, k key, room metering.Room) (metering.Room, string, error) {
	times, err := one(ctx, from, func(r row) (t metering.Times, err error) {
		err = r.Scan(&t.FirstLogin, &t.Last, &t.LastLogout)
		return t, err
	}, `SELECT coalesce(min(CASE WHEN login_time <> 0 THEN login_time END), 0),
			coalesce(max(CASE WHEN logout_time > login_time THEN logout_time ELSE login_time END), 0), coalesce(max(logout_time), 0)
		FROM stays WHERE appid = $1 AND room_session_id = $2`, k.app, k.session)
	if err != nil {
		return room, "", fmt.Errorf("read the first login and the last logout: %w", err)
	}
	room, doubt := room.Plausible(times)
	return room, doubt, nil
}

// Participants returns who was in a session's room: as the session's bill has it, or an
// adjustment of that number, or if there is none yet, as it is known now.
func (l *Ledger) Participants(ctx context.Context, s session.Session, adjustment int, exclude metering.Exclude) (*session.Participants, error) {
	k := keyOf(s.AppID, s.RoomSessionID)
	p := &session.Participants{Session: s, Adjustment: adjustment}
	locked, err := one(ctx, l, scanLocked, "SELECT "+lockedColumns+" FROM sessions WHERE appid = $1 AND room_session_id = $2", k.app, k.session)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read session %s: %w", k, err)
	}
	room := locked.room
	room.Close, room.Reconciled = s.RoomCloseTime.UnixMilli(), s.Reconciled
	if room, _, err = plausible(ctx, l, k, room); err != nil {
		return nil, fmt.Errorf("read session %s: %w", k, err)
	}
	p.Start, p.End, p.Settled = fromMillis(room.Create), fromMillis(room.Close), locked.entries > adjustment
	p.All = func(yield func(session.Participant, error) bool) {
		meter := metering.NewMeter(room)
		for u, err := range l.usersOf(ctx, l, k) {
			if err != nil {
				yield(session.Participant{}, fmt.Errorf("read the participants of session %s: %w", k, err))
				return
			}
			if !yield(meter.Add(u, exclude), nil) {
				return
			}
		}
	}
	return p, nil
}
