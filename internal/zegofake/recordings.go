package zegofake

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// posts has the actions that are called by POST.
var posts = map[string]bool{"DescribeTasks": true, "DescribeRecordStatus": true}

// Task is a recording task in ZEGO's answers.
type Task struct {
	TaskID, RoomID string
	// Status is 1 initialising, 2 recording, 3 ended, 4 ended abnormally or 5 paused.
	Status     int
	Begin, End time.Time
	Files      []File
}

// File is one file of a task. Status is 1 recording, 2 uploading, 3 uploaded, 4 in the
// backup storage or 5 failed.
type File struct {
	ID, URL, Format, UserID, StreamID string
	Size                              int64
	Duration                          time.Duration
	Begin                             time.Time
	Status                            int
}

// Usage has the counts of one minute.
type Usage struct {
	At           time.Time
	Rooms, Users int
}

// Tasks replaces the recording tasks of an app.
func (a *API) Tasks(appID uint32, tasks ...Task) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tasks[appID] = tasks
}

// Realtime replaces the counts of an app.
func (a *API) Realtime(appID uint32, usage ...Usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.usage[appID] = usage
}

const recordingKept = 72 * time.Hour

func (a *API) describeTasks(app uint32, body []byte) (int, string, any) {
	if a.limited(fmt.Sprint(app, " recording"), 10) {
		return 300000003, "requests have exceeded the upper limit", nil
	}
	var ask struct {
		Status               int
		RoomID               string `json:"RoomId"`
		StartTime, EndTime   int64
		PageOffset, PageSize int
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return 300000004, "the parameter is invalid", nil
	}
	from, to := time.UnixMilli(ask.StartTime), time.UnixMilli(ask.EndTime)
	if ask.Status != 2 && ask.Status != 3 || !to.After(from) || to.Sub(from) > recordingKept || from.Before(a.Now().Add(-recordingKept)) || ask.PageSize < 0 || ask.PageSize > 50 {
		return 300000004, "the parameter is invalid", nil
	}
	page, size := max(ask.PageOffset, 1), ask.PageSize
	if size == 0 {
		size = 50
	}
	found := []map[string]any{}
	for _, t := range a.tasks[app] {
		ended := t.Status == 3 || t.Status == 4
		if ended == (ask.Status == 3) && t.Status != 1 && (ask.RoomID == "" || ask.RoomID == t.RoomID) && !t.Begin.Before(from) && !t.Begin.After(to) {
			found = append(found, map[string]any{"TaskId": t.TaskID, "RoomId": t.RoomID, "RecordBeginTimestamp": t.Begin.UnixMilli(), "Status": t.Status})
		}
	}
	total := len(found)
	start := min((page-1)*size, total)
	return 0, "succeed", map[string]any{"PageOffset": page, "PageSize": size, "TotalCount": total, "TaskidList": found[start:min(start+size, total)]}
}

func (a *API) recordStatus(app uint32, body []byte) (int, string, any) {
	if a.limited(fmt.Sprint(app, " recording"), 10) {
		return 300000003, "requests have exceeded the upper limit", nil
	}
	var ask struct {
		TaskID string `json:"TaskId"`
	}
	if err := json.Unmarshal(body, &ask); err != nil || len(ask.TaskID) != 16 {
		return 300000004, "the parameter is invalid", nil
	}
	i := slices.IndexFunc(a.tasks[app], func(t Task) bool { return t.TaskID == ask.TaskID && !t.Begin.Before(a.Now().Add(-recordingKept)) })
	if i < 0 {
		return 300001000, "the recording task does not exist", nil
	}
	t := a.tasks[app][i]
	answer := map[string]any{"RoomId": t.RoomID, "RecordMode": 2, "StreamType": 3, "RecordBeginTimestamp": t.Begin.UnixMilli(), "Status": t.Status}
	if !t.End.IsZero() {
		answer["RecordEndTimestamp"] = t.End.UnixMilli()
	}
	var files []map[string]any
	for _, f := range t.Files {
		file := map[string]any{"UserId": f.UserID, "UserName": f.UserID, "StreamId": f.StreamID, "FileId": f.ID, "OutputFileFormat": f.Format, "FileSize": f.Size,
			"Duration": f.Duration.Milliseconds(), "MediaTrackType": 1, "Status": f.Status}
		if f.URL != "" {
			file["FileUrl"] = f.URL
		}
		if !f.Begin.IsZero() {
			file["BeginTimestamp"] = f.Begin.UnixMilli()
		}
		files = append(files, file)
	}
	if files != nil { // without files the field isn't returned
		answer["RecordFiles"] = files
	}
	return 0, "succeed", answer
}

func (a *API) realtimeUsage(app uint32, q url.Values) (int, string, any) {
	now := a.Now()
	for kind, within := range map[string]time.Duration{" minute": time.Minute, " day": 24 * time.Hour} {
		calls := append(slices.DeleteFunc(a.lately[fmt.Sprint(app, kind)], func(t time.Time) bool { return now.Sub(t) >= within }), now)
		a.lately[fmt.Sprint(app, kind)] = calls
		if len(calls) > map[string]int{" minute": 3, " day": 480}[kind] {
			return 30002, "request frequency exceeds the limit", nil
		}
	}
	start, startErr := strconv.ParseInt(q.Get("StartTs"), 10, 64)
	end, endErr := strconv.ParseInt(q.Get("EndTs"), 10, 64)
	metrics := q["Metrics[]"]
	if startErr != nil || endErr != nil || len(metrics) == 0 {
		return 10001, "parameter format error", nil
	}
	if end == 0 {
		end = now.UnixMilli()
	}
	if end <= start || time.UnixMilli(start).Before(now.Add(-2*time.Hour)) {
		return 10002, "parameter error", nil
	}
	list := []map[string]any{}
	for _, metric := range metrics {
		values := []map[string]any{}
		for _, u := range a.usage[app] {
			if at := u.At.UnixMilli(); at < start || at > end || u.At.After(now.Add(-3*time.Minute)) {
				continue
			}
			switch metric {
			case "room_concurrent":
				values = append(values, map[string]any{"Timestamp": u.At.UnixMilli(), "Value": u.Rooms})
			case "online_user":
				values = append(values, map[string]any{"Timestamp": u.At.UnixMilli(), "Value": u.Users})
			default:
				return 10002, "parameter error", nil
			}
		}
		list = append(list, map[string]any{"Metric": metric, "Values": values})
	}
	return 0, "success", map[string]any{"Metrics": list}
}
