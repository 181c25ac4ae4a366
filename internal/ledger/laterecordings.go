package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// mayBeLate is the condition for tasks t with files that may belong to an archived session. $1
// is the current time.
const mayBeLate = `t.archived_at = 0 AND t.look_at < 576460752303423488 AND t.look_at <= $1
	AND EXISTS (SELECT 1 FROM recording_files f WHERE f.appid = t.appid AND f.task_id = t.task_id)
	AND (EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = t.appid AND e.room_id = t.room_id AND e.archived_at <> 0)
		OR EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = t.appid AND e.room_session_id = t.room_session_id AND e.archived_at <> 0))`

// LateRecordings lists up to limit tasks with files that are not archived and may belong to an
// archived session. They have a callback since the given time, are ordered by their last
// one, and come behind the task after. [Ledger.HandOver], [Ledger.NotLate] and
// [Ledger.LateAt] take a task off the list, unless it has changed since it was listed.
func (l *Ledger) LateRecordings(ctx context.Context, now, since time.Time, after RecordingTask, limit int) ([]RecordingTask, error) {
	tasks, err := l.recordingTasks(ctx, `(appid, task_id) IN (
		SELECT t.appid, t.task_id FROM recording_tasks t
		WHERE last_time >= $6 AND (last_time, appid, task_id) > ($2, $3, $4) AND `+mayBeLate+`
		ORDER BY last_time, appid, task_id LIMIT $5)`, now.UnixMilli(), max(after.Last.UnixMilli(), 0), int64(after.AppID), after.TaskID, limit, since.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list late recordings: %w", err)
	}
	slices.SortStableFunc(tasks, func(a, b RecordingTask) int { return a.Last.Compare(b.Last) })
	return tasks, nil
}

// Values of look_at that are not times. The index recording_tasks_late covers values below
// notLate.
const (
	notLate    = 1 << 59 // there is no archive to add the task to
	handedOver = 1 << 60 // a run adds it
)

// clockSkew bounds the difference of the workers' clocks.
const clockSkew = time.Minute

// HandOver records that a run adds the task to its session's archive. The task is late again
// only after it is assigned or its files change.
func (l *Ledger) HandOver(ctx context.Context, t RecordingTask) error {
	return l.lookAt(ctx, t, "", handedOver)
}

// NotLate records that there was no archive to add the task to. The task is late again only
// after its room gets an archive, it is assigned, or its files change.
func (l *Ledger) NotLate(ctx context.Context, t RecordingTask, at time.Time) error {
	return l.lookAt(ctx, t, ` AND look_at < $1
		AND NOT EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = $2 AND e.room_id = recording_tasks.room_id AND e.archived_at > $5)`,
		notLate, at.Add(-clockSkew).UnixMilli())
}

// LateAt makes the task late again at the given time, or earlier when its room gets an archive.
func (l *Ledger) LateAt(ctx context.Context, t RecordingTask, at time.Time) error {
	return l.lookAt(ctx, t, "", at.UnixMilli())
}

func (l *Ledger) lookAt(ctx context.Context, t RecordingTask, where string, at int64, args ...any) error {
	_, err := l.exec(ctx, "UPDATE recording_tasks SET look_at = $1 WHERE appid = $2 AND task_id = $3 AND changes = $4"+where,
		append([]any{at, int64(t.AppID), t.TaskID, t.Changes}, args...)...)
	return wrap(err, "note when to look at recording task %s", t.TaskID)
}

// LeftRecordings lists up to limit tasks with files that are not archived and have had no
// callback since before, oldest first.
func (l *Ledger) LeftRecordings(ctx context.Context, before time.Time, limit int) ([]RecordingTask, error) {
	tasks, err := l.recordingTasks(ctx, `(appid, task_id) IN (
		SELECT t.appid, t.task_id FROM recording_tasks t WHERE archived_at = 0 AND last_time < $1
			AND EXISTS (SELECT 1 FROM recording_files f WHERE f.appid = t.appid AND f.task_id = t.task_id)
		ORDER BY last_time LIMIT $2)`, before.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("list recordings that were not archived: %w", err)
	}
	slices.SortStableFunc(tasks, func(a, b RecordingTask) int { return a.Last.Compare(b.Last) })
	return tasks, nil
}
