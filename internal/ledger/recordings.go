package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// RecordingTask is a recording task with its files.
type RecordingTask struct {
	AppID uint32 `json:"appid"`
	// TaskID names the task.
	TaskID string `json:"task_id"`
	// RoomID is the recorded room's name.
	RoomID string `json:"room_id"`
	// First and Last are when the first and the last callback were sent, by ZEGO's clock. The
	// task began before First.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Uploaded reports whether a callback listed the files and no later one shows that the task
	// continues.
	Uploaded bool `json:"uploaded"`
	// Ended reports whether a callback announced the end.
	Ended bool `json:"ended"`
	// Answered reports whether ZEGO's API has confirmed the end and located all files.
	Answered bool `json:"answered,omitempty"`
	// RoomSessionID is set if Assigned: the session that an operator or the app assigned the
	// task to, or that it was archived with. Announced reports that the app did so, possibly
	// before any callback.
	RoomSessionID uint64 `json:"room_session_id,string,omitempty"`
	Assigned      bool   `json:"assigned"`
	Announced     bool   `json:"announced,omitempty"`
	// ArchivedAt is when the task was archived, by our clock. It is zero before that, and
	// again if files may have changed since.
	ArchivedAt time.Time `json:"archived_at,omitzero"`
	// Changes counts the changes of the files, and the assignments.
	Changes int64 `json:"-"`
	// Files lists the files by name.
	Files []RecordedFile `json:"files,omitempty"`
}

// RoomLife is one session of a room.
type RoomLife struct {
	RoomSessionID uint64
	// Created is when the room was created, Login is the earliest login, and Closed is when
	// the room was destroyed. Times are of ZEGO's clock, and zero if unknown.
	Created, Login, Closed time.Time
}

// EndRoom records when a session closed, which bounds the other sessions of its room.
func (l *Ledger) EndRoom(ctx context.Context, s session.Session) error {
	k := keyOf(s.ID)
	_, err := l.exec(ctx, `
		INSERT INTO room_ends (appid, room_session_id, room_id, room_close_time) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		k.app, k.session, s.RoomID, s.RoomCloseTime.UnixMilli())
	return wrap(err, "record the end of session %s", k.session)
}

// RecordingsOf returns the recording tasks that may belong to a session: those of its room with
// a callback after since, and those assigned to the session. It also returns the sessions of
// the room with events after since.
func (l *Ledger) RecordingsOf(ctx context.Context, s session.Session, since time.Time) (tasks []RecordingTask, lives []RoomLife, err error) {
	if lives, err = l.Lives(ctx, s.AppID, s.RoomID, since); err != nil {
		return nil, nil, err
	}
	k := keyOf(s.ID)
	tasks, err = l.recordingTasks(ctx, `appid = $1 AND (room_id = $2 AND last_time >= $3 OR room_session_id = $4)`,
		k.app, s.RoomID, since.UnixMilli(), k.session)
	return tasks, lives, wrap(err, "ask for the recordings of room %q", s.RoomID)
}

// Lives returns the sessions of a room that were open since a time.
func (l *Ledger) Lives(ctx context.Context, appID uint32, roomID string, since time.Time) ([]RoomLife, error) {
	lives, err := list(ctx, l, func(r row) (life RoomLife, err error) {
		err = r.Scan((*sessionColumn)(&life.RoomSessionID), (*timeColumn)(&life.Created), (*timeColumn)(&life.Login), (*timeColumn)(&life.Closed))
		return life, err
	}, `
		SELECT s.room_session_id, s.room_create_time,
			coalesce((SELECT min(login_time) FROM stays WHERE stays.appid = s.appid AND stays.room_session_id = s.room_session_id AND login_time <> 0), 0),
			coalesce((SELECT room_close_time FROM room_ends e WHERE e.appid = s.appid AND e.room_session_id = s.room_session_id), 0)
		FROM sessions s WHERE s.appid = $1 AND s.room_id = $2 AND s.seen_at >= $3
		UNION
		SELECT e.room_session_id, coalesce(s.room_create_time, 0),
			coalesce((SELECT min(login_time) FROM stays WHERE stays.appid = e.appid AND stays.room_session_id = e.room_session_id AND login_time <> 0), 0),
			e.room_close_time
		FROM room_ends e LEFT JOIN sessions s ON s.appid = e.appid AND s.room_session_id = e.room_session_id
		WHERE e.appid = $1 AND e.room_id = $2 AND e.room_close_time >= $3`, int64(appID), roomID, since.UnixMilli())
	slices.SortFunc(lives, func(a, b RoomLife) int { return cmp.Compare(a.RoomSessionID, b.RoomSessionID) })
	return lives, wrap(err, "ask for the sessions of room %q", roomID)
}

// RecordingTask returns a task. The error wraps [ErrNoRecording] if no callback named it.
func (l *Ledger) RecordingTask(ctx context.Context, appID uint32, taskID string) (RecordingTask, error) {
	tasks, err := l.recordingTasks(ctx, "appid = $1 AND task_id = $2", int64(appID), taskID)
	if err == nil && len(tasks) == 0 {
		err = ErrNoRecording
	}
	if err != nil {
		return RecordingTask{}, fmt.Errorf("task %s of app %d: %w", taskID, appID, err)
	}
	return tasks[0], nil
}

func scanTask(r row) (t RecordingTask, err error) {
	var uploaded, alive, ended, announced, answered int64
	var session string
	err = r.Scan(&t.AppID, &t.TaskID, &t.RoomID, (*timeColumn)(&t.First), (*timeColumn)(&t.Last), &uploaded, &alive, &ended,
		&session, (*sessionColumn)(&t.RoomSessionID), &announced, &answered, (*timeColumn)(&t.ArchivedAt), &t.Changes)
	t.Answered = answered == 1
	t.Uploaded, t.Ended, t.Assigned, t.Announced = uploaded > alive || t.Answered, ended == 1, session != "", announced == 1
	return t, err
}

// taskKey identifies a recording task.
type taskKey struct {
	app  uint32
	task string
}

// recordingTasks reads tasks with their files, ordered by ID.
func (l *Ledger) recordingTasks(ctx context.Context, where string, args ...any) ([]RecordingTask, error) {
	tasks, err := list(ctx, l, scanTask, `
		SELECT appid, task_id, room_id, first_time, last_time, uploaded, alive, ended, room_session_id, room_session_id, announced, answered, archived_at, changes
		FROM recording_tasks WHERE `+where+" ORDER BY appid, task_id", args...)
	if err != nil || len(tasks) == 0 {
		return nil, err
	}
	at := map[taskKey]*RecordingTask{}
	for i := range tasks {
		at[taskKey{tasks[i].AppID, tasks[i].TaskID}] = &tasks[i]
	}
	var of taskKey
	return tasks, each(ctx, l, func(r row) (f RecordedFile, err error) {
		var duration int64
		err = r.Scan(&of.app, &of.task, &f.FileID, &f.Sequence, &f.Status, &f.URL, &f.Format, &f.Size, &duration, &f.UserID, &f.StreamID, &f.MediaTrackType,
			(*timeColumn)(&f.Begin), (*timeColumn)(&f.ReportedAt), &f.Saved, &f.Contradicted)
		f.Duration = time.Duration(duration) * time.Millisecond
		return f, err
	}, func(f RecordedFile) error {
		if t := at[of]; t != nil { // otherwise the task is new
			t.Files = append(t.Files, f)
		}
		return nil
	}, `
		SELECT appid, task_id, file_id, sequence, status, url, format, size, duration, user_id, stream_id, track, begin_time, reported_time, saved,
			CASE WHEN status IN (3, 4) AND other_sequence > sequence THEN other_status ELSE 0 END
		FROM recording_files WHERE (appid, task_id) IN (SELECT appid, task_id FROM recording_tasks WHERE `+where+`) ORDER BY appid, task_id, file_id`, args...)
}

// SaveRecording stores where a file from ZEGO's backup storage was saved, so that it is not
// downloaded again.
func (l *Ledger) SaveRecording(ctx context.Context, appID uint32, taskID, fileID, saved string) error {
	_, err := l.exec(ctx, "UPDATE recording_files SET saved = $1 WHERE appid = $2 AND task_id = $3 AND file_id = $4",
		saved, int64(appID), taskID, fileID)
	return wrap(err, "note that %s was saved", fileID)
}

// ArchivedRecordings records that a session was archived with these tasks, which then belong to
// no other session. A task that has changed since it was read counts as not archived.
func (l *Ledger) ArchivedRecordings(ctx context.Context, s session.Session, tasks []RecordingTask) error {
	k, now := keyOf(s.ID), time.Now().UnixMilli()
	return l.in(ctx, func(tx transaction) error {
		waiting, err := list(ctx, tx, value[string], "SELECT task_id FROM recording_tasks WHERE appid = $1 AND room_id = $2 AND archived_at = 0 AND look_at <> 0 AND look_at <> $3",
			k.app, s.RoomID, int64(handedOver))
		if err != nil {
			return fmt.Errorf("list the room's recordings: %w", err)
		}
		archived := map[string]int64{} // changes, by ID
		for _, t := range tasks {
			archived[t.TaskID] = t.Changes
		}
		// All writers use the same order, so that they never deadlock.
		for _, id := range slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(waiting, maps.Keys(archived))))) {
			query, args := "UPDATE recording_tasks SET look_at = 0 WHERE appid = $1 AND task_id = $2", []any{k.app, id}
			if changes, ok := archived[id]; ok {
				query, args = "UPDATE recording_tasks SET room_session_id = $3, archived_at = $4 WHERE appid = $1 AND task_id = $2 AND archived_at = 0 AND changes = $5", append(args, k.session, now, changes)
			}
			if _, err := tx.exec(ctx, query, args...); err != nil {
				return fmt.Errorf("note that recording task %s was archived: %w", id, err)
			}
		}
		_, err = tx.exec(ctx, `
			INSERT INTO room_ends (appid, room_session_id, room_id, room_close_time, close_reason, reconciled, archived_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (appid, room_session_id) DO UPDATE SET close_reason = excluded.close_reason, reconciled = excluded.reconciled, archived_at = excluded.archived_at`,
			k.app, k.session, s.RoomID, s.RoomCloseTime.UnixMilli(), s.CloseReason, oneIf(s.Reconciled), now)
		return wrap(err, "note that the recordings of session %s were archived", k.session)
	})
}

// Archived returns how a session was closed, and whether its recordings were archived.
func (l *Ledger) Archived(ctx context.Context, id session.ID) (session.Session, bool, error) {
	k := keyOf(id)
	s, err := one(ctx, l, func(r row) (session.Session, error) {
		s := session.Session{ID: id}
		return s, r.Scan(&s.RoomID, (*timeColumn)(&s.RoomCloseTime), &s.CloseReason, &s.Reconciled)
	}, "SELECT room_id, room_close_time, close_reason, reconciled = 1 FROM room_ends WHERE appid = $1 AND room_session_id = $2 AND archived_at <> 0", k.app, k.session)
	if errors.Is(err, sql.ErrNoRows) {
		return s, false, nil
	}
	return s, err == nil, wrap(err, "read whether the recordings of session %s were archived", k)
}

// Errors about one recording task.
var (
	ErrNoRecording       = errors.New("no callback reported such a recording task")
	ErrRecordingArchived = errors.New("the recording task was archived with another session already")
	ErrTaskID            = errors.New("not the ID of a recording task")
)

// AssignRecording assigns a task to a session on behalf of an operator, or to no session if
// roomSessionID is 0. It also states that no more callbacks follow.
func (l *Ledger) AssignRecording(ctx context.Context, id session.ID, taskID string) error {
	k := keyOf(id)
	done, err := l.exec(ctx, "UPDATE recording_tasks SET room_session_id = $1, announced = 0, look_at = 0, changes = changes + 1 WHERE appid = $2 AND task_id = $3 AND (archived_at = 0 OR room_session_id = $1)",
		k.session, k.app, taskID)
	if err != nil {
		return fmt.Errorf("assign recording task %s: %w", taskID, err)
	}
	if done == 1 {
		return nil
	}
	if _, err := l.RecordingTask(ctx, id.AppID, taskID); err != nil {
		return err
	}
	return fmt.Errorf("task %s of app %d: %w", taskID, id.AppID, ErrRecordingArchived)
}

// AnnounceRecording assigns a task to a session on behalf of the app that started it, possibly
// before any callback. The session's run waits for the task's files.
func (l *Ledger) AnnounceRecording(ctx context.Context, id session.ID, taskID string) error {
	if !zego.ValidTaskID(taskID) {
		return fmt.Errorf("%w: found %q, want 16 letters, digits, - or _", ErrTaskID, taskID)
	}
	k := keyOf(id)
	done, err := l.exec(ctx, `
		INSERT INTO recording_tasks (appid, task_id, room_id, first_time, last_time, uploaded, alive, ended, room_session_id, announced, archived_at)
		VALUES ($2, $3, '', $4, $4, $5, $5, 0, $1, 1, 0)
		ON CONFLICT (appid, task_id) DO UPDATE SET room_session_id = excluded.room_session_id, announced = 1, look_at = 0, changes = recording_tasks.changes + 1
		WHERE recording_tasks.archived_at = 0 OR recording_tasks.room_session_id = excluded.room_session_id`,
		k.session, k.app, taskID, time.Now().UnixMilli(), int64(none))
	if err == nil && done == 0 {
		err = ErrRecordingArchived
	}
	return wrap(err, "assign recording task %s of app %d", taskID, id.AppID)
}
