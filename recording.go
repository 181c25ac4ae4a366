package closeout

import (
	"context"
	"fmt"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// AssignRecording assigns a recording task to a session, for the app that started the task
// and has its ID from ZEGO's answer to StartRecord. The session's run waits for the task's
// files, whatever room and time they have. The databaseURL is that of
// CLOSEOUT_DATABASE_URL; a RoomSessionID of 0 assigns the task to no session. A repeated
// call changes nothing.
func AssignRecording(ctx context.Context, databaseURL string, s session.ID, taskID string) error {
	books, err := ledger.Open(databaseURL)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer books.Close()
	return books.AnnounceRecording(ctx, s.AppID, taskID, s.RoomSessionID)
}
