package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// RecordAnswer stores an answer of ZEGO's API about a recording task. It reports whether the
// answer has a new file, or a file in a new place. A later callback takes precedence. New
// files of an archived task are added to the archive as late recordings.
func (l *Ledger) RecordAnswer(ctx context.Context, appID uint32, a serverapi.Task) (found bool, err error) {
	var files []zego.RecordedFile
	for _, f := range a.Files {
		// Other files are not stored anywhere yet.
		if f.Status == zego.FileUploaded || f.Status == zego.FileInBackup || f.Status == zego.FileFailed {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b zego.RecordedFile) int { return strings.Compare(a.FileID, b.FileID) })
	last := a.End
	if last.IsZero() {
		last = a.Begin
	}
	err = l.in(ctx, func(tx transaction) error {
		if _, err := tx.exec(ctx, writeTask, int64(appID), a.TaskID, a.RoomID, a.Begin.UnixMilli(), last.UnixMilli(), int64(none), int64(none), 0); err != nil {
			return err
		}
		found = false
		for _, f := range files {
			// The backup storage keeps a file at least until some days after the task's end.
			n, err := tx.exec(ctx, `
				INSERT INTO recording_files (`+fileColumns+`, saved) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, '')
				ON CONFLICT (appid, task_id, file_id) DO UPDATE SET
					status = excluded.status, url = CASE WHEN excluded.url = '' THEN recording_files.url ELSE excluded.url END,
					size = CASE WHEN excluded.size = 0 THEN recording_files.size ELSE excluded.size END, told_time = excluded.told_time
				WHERE recording_files.status <> excluded.status AND (excluded.status IN (3, 4) OR recording_files.status NOT IN (3, 4, 5))`,
				int64(appID), a.TaskID, f.FileID, int64(none), int64(f.Status), f.URL, f.Format, f.Size, f.Duration.Milliseconds(),
				f.UserID, f.StreamID, int64(f.MediaTrackType), millis(f.Begin), last.UnixMilli())
			if err != nil {
				return fmt.Errorf("file %q: %w", f.FileID, err)
			}
			found = found || n > 0
		}
		if found {
			if err := lookAgain(ctx, tx, appID, a.TaskID); err != nil {
				return err
			}
		}
		if a.Complete() {
			if _, err := tx.exec(ctx, "UPDATE recording_tasks SET answered = 1 WHERE appid = $1 AND task_id = $2", int64(appID), a.TaskID); err != nil {
				return err
			}
		}
		return nil
	})
	return found, wrap(err, "store the answer about recording task %s of app %d", a.TaskID, appID)
}

// AnsweredRecordings returns the recording tasks of an app that ZEGO's API has reported
// complete.
func (l *Ledger) AnsweredRecordings(ctx context.Context, appID uint32, taskIDs []string) (map[string]bool, error) {
	answered := map[string]bool{}
	for some := range slices.Chunk(taskIDs, maxTasks) {
		marks, args := make([]string, len(some)), []any{int64(appID)}
		for i, id := range some {
			marks[i], args = fmt.Sprintf("$%d", i+2), append(args, id)
		}
		ids, err := list(ctx, l, value[string], "SELECT task_id FROM recording_tasks WHERE appid = $1 AND answered = 1 AND task_id IN ("+strings.Join(marks, ", ")+")", args...)
		if err != nil {
			return nil, fmt.Errorf("read which recording tasks of app %d are complete: %w", appID, err)
		}
		for _, id := range ids {
			answered[id] = true
		}
	}
	return answered, nil
}

// maxTasks bounds the tasks in one query.
const maxTasks = 500
