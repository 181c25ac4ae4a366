package serverapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/zego"
)

const (
	// TasksKept is how long the API knows a recording task after its begin.
	TasksKept = 72 * time.Hour
	// maxPage is the maximum number of tasks in a page. maxPages bounds a list to half a
	// million tasks.
	maxPage, maxPages = 50, 10_000
)

// TaskStatus is the state of a recording task. Values without a constant here are valid.
type TaskStatus int

// The states that ZEGO documents.
const (
	TaskInitialising TaskStatus = 1
	TaskRecording    TaskStatus = 2
	TaskEnded        TaskStatus = 3
	TaskAborted      TaskStatus = 4
	TaskPaused       TaskStatus = 5
)

// Ended reports whether a task has ended, normally or not.
func (s TaskStatus) Ended() bool { return s == TaskEnded || s == TaskAborted }

// Task is a recording task.
type Task struct {
	TaskID, RoomID string
	Status         TaskStatus
	// Begin and End are by ZEGO's clock, to the millisecond and in UTC. End is zero in a
	// list, and in a task that hasn't ended.
	Begin, End time.Time
	// Files are the task's files, including files still being recorded or uploaded: see
	// [zego.FileStatus]. A list has no files.
	Files []zego.RecordedFile
}

// Complete reports whether the task has ended and the status of all its files is final.
func (t Task) Complete() bool {
	for _, f := range t.Files {
		if f.Status != zego.FileUploaded && f.Status != zego.FileInBackup && f.Status != zego.FileFailed {
			return false
		}
	}
	return t.Status.Ended()
}

// recordingPause keeps the calls to the recording API, of all actions together, below ten
// a second.
const recordingPause = 110 * time.Millisecond

// record calls the recording API.
func (c *Client) record(ctx context.Context, appID uint32, action string, body, data any) error {
	return c.call(ctx, appID, request{action: action, query: url.Values{}, limits: []limit{{"", recordingPause}},
		at: c.recording, body: body, shared: "recording", pause: recordingPause}, data)
}

// DescribeTasks calls do with each recording task that began between from and to, of one
// room, or of all rooms if room is empty. It lists tasks that have ended if ended is set,
// else tasks that are recording. It reads page by page, and stops when do returns an error.
// from may be at most [TasksKept] ago.
func (c *Client) DescribeTasks(ctx context.Context, appID uint32, room string, ended bool, from, to time.Time, do func(Task) error) error {
	status := TaskRecording
	if ended {
		status = TaskEnded
	}
	seen := 0
	for page := 1; ; page++ {
		body := map[string]any{"Status": status, "StartTime": from.UnixMilli(), "EndTime": to.UnixMilli(), "PageOffset": page, "PageSize": maxPage}
		if room != "" {
			body["RoomId"] = room
		}
		var data struct {
			TotalCount *int
			TaskidList []struct {
				TaskID               string `json:"TaskId"`
				RoomID               string `json:"RoomId"`
				RecordBeginTimestamp int64
				Status               TaskStatus
			}
		}
		if err := c.record(ctx, appID, "DescribeTasks", body, &data); err != nil {
			return err
		}
		if data.TotalCount == nil {
			return fmt.Errorf("DescribeTasks of app %d: the answer has no TotalCount", appID)
		}
		for _, t := range data.TaskidList {
			if !zego.ValidTaskID(t.TaskID) || t.RecordBeginTimestamp <= 0 {
				return fmt.Errorf("DescribeTasks of app %d: found task %s that began at %d, want an ID of 16 characters and a time", appID, strconv.Quote(clean(t.TaskID)), t.RecordBeginTimestamp)
			}
			if err := do(Task{TaskID: t.TaskID, RoomID: t.RoomID, Status: t.Status, Begin: time.UnixMilli(t.RecordBeginTimestamp).UTC()}); err != nil {
				return err
			}
		}
		if seen += len(data.TaskidList); seen >= *data.TotalCount {
			return nil
		}
		if len(data.TaskidList) == 0 || page == maxPages {
			return fmt.Errorf("DescribeTasks of app %d: found %d tasks in %d pages, want %d", appID, seen, page, *data.TotalCount)
		}
	}
}

// DescribeRecordStatus returns a recording task with its files. If the task doesn't exist,
// or began more than [TasksKept] ago, the error is an [*Error].
func (c *Client) DescribeRecordStatus(ctx context.Context, appID uint32, taskID string) (Task, error) {
	var data struct {
		RoomID                                   string `json:"RoomId"`
		RecordBeginTimestamp, RecordEndTimestamp int64
		Status                                   TaskStatus
		RecordFiles                              []struct {
			UserID, StreamID, FileID, FileURL, OutputFileFormat string
			FileSize, Duration, BeginTimestamp                  int64
			MediaTrackType                                      uint32
			Status                                              zego.FileStatus
		}
	}
	if err := c.record(ctx, appID, "DescribeRecordStatus", map[string]string{"TaskId": taskID}, &data); err != nil {
		return Task{}, err
	}
	t := Task{TaskID: taskID, RoomID: data.RoomID, Status: data.Status, Begin: fromMillis(data.RecordBeginTimestamp), End: fromMillis(data.RecordEndTimestamp)}
	if t.Status == 0 || t.Begin.IsZero() {
		return Task{}, fmt.Errorf("DescribeRecordStatus of app %d: task %s has no Status or RecordBeginTimestamp", appID, taskID)
	}
	for _, f := range data.RecordFiles {
		if !zego.ValidFileID(f.FileID) {
			return Task{}, fmt.Errorf("DescribeRecordStatus of app %d: task %s has the FileId %s, want the name of a file", appID, taskID, strconv.Quote(clean(f.FileID)))
		}
		file := zego.RecordedFile{FileID: f.FileID, URL: f.FileURL, Format: f.OutputFileFormat, Size: max(f.FileSize, 0), Duration: time.Duration(min(max(f.Duration, 0), maxDuration)) * time.Millisecond,
			UserID: f.UserID, StreamID: f.StreamID, Begin: fromMillis(f.BeginTimestamp), MediaTrackType: f.MediaTrackType, Status: f.Status}
		if name, ok := zego.ParseFileName(f.FileID); ok && file.Begin.IsZero() {
			file.Begin = name.Begin
		}
		t.Files = append(t.Files, file)
	}
	return t, nil
}

// maxDuration is 31 years and maxTime the end of the year 9999, both in milliseconds.
const (
	maxDuration = 1e12
	maxTime     = 253402300799999
)

// maxFailed is the number of failures in a row after which [Client.DescribeRecordStatuses]
// asks about no other task. A single failure may be due to its task.
const maxFailed = 3

// DescribeRecordStatuses calls do with each of the tasks, except those that don't exist or
// began more than [TasksKept] ago. It calls progress before it asks about a task. The error
// joins the errors of all tasks.
func (c *Client) DescribeRecordStatuses(ctx context.Context, appID uint32, taskIDs []string, progress func(), do func(Task) error) error {
	var faults []error
	failed := 0 // in a row
	for _, id := range taskIDs {
		progress()
		task, err := c.DescribeRecordStatus(ctx, appID, id)
		if refused := new(Error); errors.As(err, &refused) && refused.NoTask() {
			continue
		}
		if err == nil {
			err = do(task)
		}
		if err == nil {
			failed = 0
			continue
		}
		faults = append(faults, fmt.Errorf("task %s: %w", id, err))
		if failed++; failed == maxFailed || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(faults...)
}

// fromMillis converts Unix milliseconds, or returns the zero time if they are out of range.
func fromMillis(ms int64) time.Time {
	if ms <= 0 || ms > maxTime {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// RealtimeUsage is ZEGO's count of rooms and users at one minute.
type RealtimeUsage struct {
	At           time.Time
	Rooms, Users int64
}

// RealtimePause keeps GetRealtimeUsage below 480 calls a day and 3 a minute. RealtimeDelay
// is the age of its latest values.
const (
	RealtimePause = 200 * time.Second
	RealtimeDelay = 3 * time.Minute
)

// GetRealtimeUsage returns the numbers of rooms and users at each minute between from and
// to, which must be within the last two hours.
func (c *Client) GetRealtimeUsage(ctx context.Context, appID uint32, from, to time.Time) ([]RealtimeUsage, error) {
	const rooms, users = "room_concurrent", "online_user"
	var data struct {
		Metrics []struct {
			Metric string
			Values []struct {
				Timestamp int64
				Value     float64
			}
		}
	}
	query := url.Values{"Metrics[]": {rooms, users}, "StartTs": {strconv.FormatInt(from.UnixMilli(), 10)}, "EndTs": {strconv.FormatInt(to.UnixMilli(), 10)}}
	if err := c.call(ctx, appID, request{action: "GetRealtimeUsage", query: query, at: c.analytics, shared: "realtime", pause: RealtimePause}, &data); err != nil {
		return nil, err
	}
	var all []RealtimeUsage
	at := map[int64]int{}
	for _, m := range data.Metrics {
		for _, v := range m.Values {
			i, ok := at[v.Timestamp]
			if !ok {
				i = len(all)
				at[v.Timestamp], all = i, append(all, RealtimeUsage{At: fromMillis(v.Timestamp)})
			}
			if v.Value < 0 || v.Value > math.MaxInt32 || all[i].At.IsZero() {
				return nil, fmt.Errorf("GetRealtimeUsage of app %d: found the value %v at %d, want a count at a time", appID, v.Value, v.Timestamp)
			}
			switch m.Metric {
			case rooms:
				all[i].Rooms = int64(v.Value)
			case users:
				all[i].Users = int64(v.Value)
			}
		}
	}
	return all, nil
}
