package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// Recording is the content of one callback about a recording task.
type Recording struct {
	// TaskID names the task.
	TaskID string `json:"task_id"`
	// EventType is a [zego.RecordingEvent].
	EventType zego.RecordingEvent `json:"event_type"`
	// Sequence is ZEGO's sequence number within the task.
	Sequence int64 `json:"sequence"`
	// Sent is when the callback was sent, by ZEGO's clock.
	Sent time.Time `json:"sent"`
	// Files lists the files in the callback.
	Files []RecordedFile `json:"files,omitempty"`
}

// RecordedFile is one file of a recording task.
type RecordedFile struct {
	zego.RecordedFile
	// Sequence is the sequence number of the last callback about the file.
	Sequence int64 `json:"-"`
	// ReportedAt is when a callback first reported the current status, by ZEGO's clock.
	ReportedAt time.Time `json:"-"`
	// Contradicted is the status in a callback with a higher sequence number than the one that
	// located the file; 0 without one. The file still counts as located.
	Contradicted zego.FileStatus `json:"contradicted,omitempty"`
	// Saved is the value stored by [Ledger.SaveRecording].
	Saved string `json:"-"`
}

// recordingOf is [EventOf] for a recording callback.
func recordingOf(e *zego.Recording, seenAt time.Time) Event {
	r := &Recording{TaskID: e.TaskID, EventType: e.EventType, Sequence: int64(e.Sequence), Sent: e.SentAt()}
	for _, f := range e.Files {
		r.Files = append(r.Files, RecordedFile{RecordedFile: f})
	}
	return Event{ID: session.ID{AppID: e.AppID}, RoomID: e.RoomID, Event: zego.EventRecording, SentAt: r.Sent, SeenAt: seenAt, Recording: r}
}

// none is no callback's sequence number.
const none = -1

// recordRecordings stores recording callbacks. The result does not depend on their order: of
// two callbacks about a file, the one that locates it counts, or the later one if both do.
func (l *Ledger) recordRecordings(ctx context.Context, tx transaction, events []Event) error {
	// All writers use the same order, so that they never deadlock.
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), strings.Compare(a.Recording.TaskID, b.Recording.TaskID))
	})
	for _, u := range events {
		r := u.Recording
		uploaded, alive, ended := int64(none), int64(none), 0
		switch r.EventType {
		case zego.RecordingUploaded:
			uploaded = r.Sequence
		case zego.RecordingAborted, zego.RecordingEnded, zego.RecordingUploading:
			ended = 1
		case zego.RecordingNoStream, zego.RecordingStreamMissing, zego.RecordingPlaylist, zego.RecordingPaused, zego.RecordingResumed:
			alive = r.Sequence
		}
		if _, err := tx.exec(ctx, writeTask, int64(u.AppID), r.TaskID, u.RoomID, r.Sent.UnixMilli(), r.Sent.UnixMilli(), uploaded, alive, ended); err != nil {
			return fmt.Errorf("write recording task %s: %w", r.TaskID, err)
		}
		changed, err := l.recordFiles(ctx, tx, u)
		if err != nil {
			return fmt.Errorf("write %d recorded files of task %s: %w", len(r.Files), r.TaskID, err)
		}
		if changed {
			if err := lookAgain(ctx, tx, u.AppID, r.TaskID); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeTask adds what callbacks report about a task, in any order. Sequences are none if no
// callback reports them.
const writeTask = `
	INSERT INTO recording_tasks (appid, task_id, room_id, first_time, last_time, uploaded, alive, ended, room_session_id, archived_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 0)
	ON CONFLICT (appid, task_id) DO UPDATE SET
		room_id = CASE WHEN recording_tasks.room_id = '' THEN excluded.room_id ELSE recording_tasks.room_id END,
		first_time = CASE WHEN excluded.first_time < recording_tasks.first_time THEN excluded.first_time ELSE recording_tasks.first_time END,
		last_time = CASE WHEN excluded.last_time > recording_tasks.last_time THEN excluded.last_time ELSE recording_tasks.last_time END,
		uploaded = CASE WHEN excluded.uploaded > recording_tasks.uploaded THEN excluded.uploaded ELSE recording_tasks.uploaded END,
		alive = CASE WHEN excluded.alive > recording_tasks.alive THEN excluded.alive ELSE recording_tasks.alive END,
		ended = CASE WHEN excluded.ended > recording_tasks.ended THEN excluded.ended ELSE recording_tasks.ended END`

var (
	fileTypes   = columns(fileColumns)
	fileColumns = "appid, task_id, file_id, sequence, status, url, format, size, duration, user_id, stream_id, track, begin_time, reported_time"
)

// lookAgain marks a task whose files have changed, and may differ from its archive. Callbacks
// arrive in any order, so even an early one may arrive after the archive.
func lookAgain(ctx context.Context, tx transaction, appID uint32, taskID string) error {
	_, err := tx.exec(ctx, "UPDATE recording_tasks SET archived_at = 0, look_at = 0, changes = changes + 1 WHERE appid = $1 AND task_id = $2", int64(appID), taskID)
	return wrap(err, "note that recording task %s has other files", taskID)
}

// recordFiles stores the files of one callback in three statements, and reports whether files
// changed.
func (l *Ledger) recordFiles(ctx context.Context, tx transaction, u Event) (changed bool, err error) {
	r := u.Recording
	// A statement cannot change a row twice. Of files with the same name, the first counts.
	var files []RecordedFile
	named := make(map[string]bool, len(r.Files))
	for _, f := range r.Files {
		if !named[f.FileID] {
			named[f.FileID] = true
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return false, nil
	}
	// All writers use the same order, as for the tasks.
	slices.SortFunc(files, func(a, b RecordedFile) int { return strings.Compare(a.FileID, b.FileID) })
	from, args := l.table(fileTypes, len(files), func(i int) []any {
		f := files[i]
		return []any{int64(u.AppID), r.TaskID, f.FileID, r.Sequence, int64(f.Status), f.URL, f.Format, f.Size, f.Duration.Milliseconds(),
			f.UserID, f.StreamID, int64(f.MediaTrackType), millis(f.Begin), r.Sent.UnixMilli()}
	})
	rows, err := tx.exec(ctx, `
		INSERT INTO recording_files (`+fileColumns+`, saved)
		SELECT `+fileColumns+`, '' FROM `+from+` WHERE true
		ON CONFLICT (appid, task_id, file_id) DO UPDATE SET
			sequence = excluded.sequence, url = excluded.url, format = excluded.format, size = excluded.size, duration = excluded.duration,
			user_id = excluded.user_id, stream_id = excluded.stream_id, track = excluded.track,
			begin_time = CASE WHEN excluded.begin_time = 0 THEN recording_files.begin_time ELSE excluded.begin_time END,
			reported_time = CASE WHEN excluded.status = recording_files.status THEN recording_files.reported_time ELSE excluded.reported_time END,
			status = excluded.status
		WHERE CASE WHEN (excluded.status IN (3, 4)) <> (recording_files.status IN (3, 4)) THEN excluded.status IN (3, 4) ELSE excluded.sequence > recording_files.sequence END`, args...)
	if err != nil {
		return false, err
	}
	if _, err := tx.exec(ctx, `
		UPDATE recording_files SET other_sequence = given.sequence, other_status = given.status FROM `+from+`
		WHERE recording_files.appid = given.appid AND recording_files.task_id = given.task_id AND recording_files.file_id = given.file_id
			AND given.status NOT IN (3, 4) AND recording_files.other_sequence < given.sequence`, args...); err != nil {
		return false, err
	}
	_, err = tx.exec(ctx, `
		UPDATE recording_files SET reported_time = given.reported_time FROM `+from+`
		WHERE recording_files.appid = given.appid AND recording_files.task_id = given.task_id AND recording_files.file_id = given.file_id
			AND recording_files.status = given.status AND recording_files.reported_time > given.reported_time`, args...)
	return rows > 0, err
}

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
					size = CASE WHEN excluded.size = 0 THEN recording_files.size ELSE excluded.size END, reported_time = excluded.reported_time
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
