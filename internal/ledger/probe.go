package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// errProbed rolls back what [Ledger.Probe] wrote.
var errProbed = errors.New("probed")

// Probe stores a stay and a recording and makes a bill in a transaction, and rolls it back. The
// error wraps [ErrNotSetUp] if tables are missing.
func (l *Ledger) Probe(ctx context.Context) error {
	if err := l.Check(ctx); err != nil {
		return err
	}
	const name = "closeout-doctor" // of app 0, which ZEGO doesn't assign
	now := time.Now()
	sessions, stays, streams := rowsOf([]Event{{RoomID: name, Event: zego.EventRoomLogout, Stay: name, User: name, Login: now, Logout: now, SeenAt: now},
		{RoomID: name, Event: zego.EventStreamClose, Stay: name, User: name, Login: now, Logout: now, SeenAt: now}})
	recording := Event{RoomID: name, Event: zego.EventRecording, Recording: &Recording{TaskID: name, Sent: now,
		Files: []RecordedFile{{RecordedFile: zego.RecordedFile{FileID: name}}}}}
	err := l.in(ctx, func(tx transaction) error {
		if err := l.record(ctx, tx, sessions, stays, streams); err != nil {
			return err
		}
		if err := l.recordRecordings(ctx, tx, []Event{recording}); err != nil {
			return err
		}
		if _, _, err := l.finalize(ctx, tx, nil, Bill{ID: uuid.New(), Session: session.Session{RoomID: name, RoomCloseTime: now}}); err != nil {
			return err
		}
		return errProbed
	})
	if !errors.Is(err, errProbed) {
		return fmt.Errorf("write to the ledger: %w", err)
	}
	return nil
}
