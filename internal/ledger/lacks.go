package ledger

import (
	"context"
	"fmt"

	"github.com/closeouthq/closeout/zego"
)

// Lacks says whether the ledger lacks what a callback told: the create of a room,
// or that end of a stay. Of the usage only Event, AppID, RoomSessionID and Stay
// matter.
func (l *Ledger) Lacks(ctx context.Context, u Usage) (lacks bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	k := keyOf(u.AppID, u.RoomSessionID)
	from, args := "FROM sessions WHERE room_create_time <> 0", []any{k.app, k.session}
	switch u.Event {
	case zego.EventRoomLogin:
		from, args = "FROM stays WHERE login_time <> 0 AND stay = $3", append(args, u.Stay)
	case zego.EventRoomLogout:
		from, args = "FROM stays WHERE logout_time <> 0 AND stay = $3", append(args, u.Stay)
	}
	if err := l.db.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 "+from+" AND appid = $1 AND room_session_id = $2)", args...).Scan(&lacks); err != nil {
		return false, fmt.Errorf("look for a %s of session %d of app %d: %w", u.Event, u.RoomSessionID, u.AppID, err)
	}
	return lacks, nil
}

// Adjusting says whether something came of a session that none of its entries has
// yet.
func (l *Ledger) Adjusting(ctx context.Context, appID uint32, roomSessionID uint64) (adjusting bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	k := keyOf(appID, roomSessionID)
	if err := l.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM sessions WHERE appid = $1 AND room_session_id = $2 AND dirty_at <> 0)", k.app, k.session).Scan(&adjusting); err != nil {
		return false, fmt.Errorf("ask whether session %d of app %d is to be adjusted: %w", roomSessionID, appID, err)
	}
	return adjusting, nil
}
