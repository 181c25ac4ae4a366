package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
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
	// Told is when a callback first reported the current status, by ZEGO's clock.
	Told time.Time `json:"-"`
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

// writeTask adds what is told of a task, in any order. Sequences are none if it isn't told.
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
	fileColumns = "appid, task_id, file_id, sequence, status, url, format, size, duration, user_id, stream_id, track, begin_time, told_time"
)

// lookAgain marks a task whose files may differ from its archive. Callbacks arrive in any
// order, so even an early one may arrive after the archive.
func lookAgain(ctx context.Context, tx transaction, appID uint32, taskID string) error {
	_, err := tx.exec(ctx, "UPDATE recording_tasks SET archived_at = 0, look_at = 0 WHERE appid = $1 AND task_id = $2 AND (archived_at <> 0 OR look_at <> 0)", int64(appID), taskID)
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
			told_time = CASE WHEN excluded.status = recording_files.status THEN recording_files.told_time ELSE excluded.told_time END,
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
		UPDATE recording_files SET told_time = given.told_time FROM `+from+`
		WHERE recording_files.appid = given.appid AND recording_files.task_id = given.task_id AND recording_files.file_id = given.file_id
			AND recording_files.status = given.status AND recording_files.told_time > given.told_time`, args...)
	return rows > 0, err
}

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
		&session, (*sessionColumn)(&t.RoomSessionID), &announced, &answered, (*timeColumn)(&t.ArchivedAt))
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
		SELECT appid, task_id, room_id, first_time, last_time, uploaded, alive, ended, room_session_id, room_session_id, announced, answered, archived_at
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
			(*timeColumn)(&f.Begin), (*timeColumn)(&f.Told), &f.Saved, &f.Contradicted)
		f.Duration = time.Duration(duration) * time.Millisecond
		return f, err
	}, func(f RecordedFile) error {
		if t := at[of]; t != nil { // otherwise the task is new
			t.Files = append(t.Files, f)
		}
		return nil
	}, `
		SELECT appid, task_id, file_id, sequence, status, url, format, size, duration, user_id, stream_id, track, begin_time, told_time, saved,
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
// no other session.
func (l *Ledger) ArchivedRecordings(ctx context.Context, s session.Session, taskIDs []string) error {
	k, now := keyOf(s.ID), time.Now().UnixMilli()
	return l.in(ctx, func(tx transaction) error {
		waiting, err := list(ctx, tx, value[string], "SELECT task_id FROM recording_tasks WHERE appid = $1 AND room_id = $2 AND archived_at = 0 AND look_at <> 0 AND look_at <> $3",
			k.app, s.RoomID, int64(handedOver))
		if err != nil {
			return fmt.Errorf("list the room's recordings: %w", err)
		}
		for _, task := range slices.Compact(slices.Sorted(slices.Values(append(waiting, taskIDs...)))) {
			query, args := "UPDATE recording_tasks SET look_at = 0 WHERE appid = $1 AND task_id = $2", []any{k.app, task}
			if slices.Contains(taskIDs, task) {
				query, args = "UPDATE recording_tasks SET room_session_id = $3, archived_at = $4 WHERE appid = $1 AND task_id = $2 AND archived_at = 0", append(args, k.session, now)
			}
			if _, err := tx.exec(ctx, query, args...); err != nil {
				return fmt.Errorf("note that recording task %s was archived: %w", task, err)
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

// mayBeLate is the condition for tasks t with files that may belong to an archived session. $1
// is the current time.
const mayBeLate = `t.archived_at = 0 AND t.look_at < 576460752303423488 AND t.look_at <= $1
	AND EXISTS (SELECT 1 FROM recording_files f WHERE f.appid = t.appid AND f.task_id = t.task_id)
	AND (EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = t.appid AND e.room_id = t.room_id AND e.archived_at <> 0)
		OR EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = t.appid AND e.room_session_id = t.room_session_id AND e.archived_at <> 0))`

// LateRecordings lists up to limit tasks with files that are not archived and may belong to an
// archived session. They have a callback since the given time, are ordered by their last
// one, and come behind the task after. [Ledger.HandOver], [Ledger.NotLate] and
// [Ledger.LateAt] take a task off the list.
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
func (l *Ledger) HandOver(ctx context.Context, appID uint32, taskID string) error {
	return l.lookAt(ctx, taskID, "UPDATE recording_tasks SET look_at = $1 WHERE appid = $2 AND task_id = $3", int64(handedOver), int64(appID), taskID)
}

// NotLate records that there was no archive to add the task to. The task is late again only
// after its room gets an archive, it is assigned, or its files change.
func (l *Ledger) NotLate(ctx context.Context, appID uint32, taskID string, at time.Time) error {
	return l.lookAt(ctx, taskID, `UPDATE recording_tasks SET look_at = $4 WHERE appid = $1 AND task_id = $2 AND look_at < $4
		AND NOT EXISTS (SELECT 1 FROM room_ends e WHERE e.appid = $1 AND e.room_id = recording_tasks.room_id AND e.archived_at > $3)`,
		int64(appID), taskID, at.Add(-clockSkew).UnixMilli(), int64(notLate))
}

// LateAt makes the task late again at the given time, or earlier when its room gets an archive.
func (l *Ledger) LateAt(ctx context.Context, appID uint32, taskID string, at time.Time) error {
	return l.lookAt(ctx, taskID, "UPDATE recording_tasks SET look_at = $1 WHERE appid = $2 AND task_id = $3", at.UnixMilli(), int64(appID), taskID)
}

func (l *Ledger) lookAt(ctx context.Context, taskID, query string, args ...any) error {
	_, err := l.exec(ctx, query, args...)
	return wrap(err, "note when to look at recording task %s", taskID)
}

// Errors about one recording task.
var (
	ErrNoRecording       = errors.New("no callback told of such a recording task")
	ErrRecordingArchived = errors.New("the recording task was archived with another session already")
	ErrTaskID            = errors.New("not the ID of a recording task")
)

// AssignRecording assigns a task to a session on behalf of an operator, or to no session if
// roomSessionID is 0. It also states that no more callbacks follow.
func (l *Ledger) AssignRecording(ctx context.Context, id session.ID, taskID string) error {
	k := keyOf(id)
	done, err := l.exec(ctx, "UPDATE recording_tasks SET room_session_id = $1, announced = 0, look_at = 0 WHERE appid = $2 AND task_id = $3 AND (archived_at = 0 OR room_session_id = $1)",
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
		ON CONFLICT (appid, task_id) DO UPDATE SET room_session_id = excluded.room_session_id, announced = 1, look_at = 0
		WHERE recording_tasks.archived_at = 0 OR recording_tasks.room_session_id = excluded.room_session_id`,
		k.session, k.app, taskID, time.Now().UnixMilli(), int64(none))
	if err == nil && done == 0 {
		err = ErrRecordingArchived
	}
	return wrap(err, "assign recording task %s of app %d", taskID, id.AppID)
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
