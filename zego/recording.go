package zego

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// EventRecording is the event name of a [Recording]. ZEGO's callback has none: it
// is known by its fields app_id, task_id and event_type.
const EventRecording = "recording"

// RecordingEvent is the event_type of a [Recording]. Values without a constant
// here are valid: ZEGO announces that it may add some.
type RecordingEvent uint32

// The event types that ZEGO documents ("Recording status callback").
const (
	// RecordingUploaded means that the files were uploaded, as far as they could be.
	RecordingUploaded RecordingEvent = 1
	// RecordingAborted means that the task ended without being told to; see
	// [Recording.QuitReason]. That is the usual end where nobody stops it.
	RecordingAborted RecordingEvent = 2
	// RecordingImageFailed means that an image for background or watermark could not
	// be loaded.
	RecordingImageFailed RecordingEvent = 3
	// RecordingNoStream means that nobody publishes in the room. It comes within 30 s
	// of that, and every 30 s as long as it lasts.
	RecordingNoStream RecordingEvent = 4
	// RecordingEnded means that the recording ended as it should.
	RecordingEnded RecordingEvent = 5
	// RecordingStreamMissing means that a stream to be recorded doesn't exist.
	RecordingStreamMissing RecordingEvent = 6
	// RecordingUploading means that the recording has stopped and is being uploaded.
	RecordingUploading RecordingEvent = 7
	// RecordingPlaylist gives the M3U8 file of what is uploaded while it is recorded.
	RecordingPlaylist RecordingEvent = 102
	// RecordingPaused and RecordingResumed mean what they say.
	RecordingPaused  RecordingEvent = 201
	RecordingResumed RecordingEvent = 202
)

// Recording says what happened to a task of the cloud recording. Nothing in it
// names the life of the room. ZEGO sends it three times at most, five seconds
// apart, in no particular order with the room's other callbacks.
type Recording struct {
	Common
	// TaskID names the task, in 16 characters.
	TaskID string
	// ClientTaskID is what the app called the task when it started it, ClientTaskId of
	// StartRecord. ZEGO's page of the callback doesn't have it; where it isn't sent it
	// is empty.
	ClientTaskID string
	// RoomID is the recorded room's name, as in [RoomClose].
	RoomID string
	// EventType is what happened.
	EventType RecordingEvent
	// Sequence counts the task's callbacks from 0.
	Sequence uint64
	// Files are those of a RecordingUploaded; none if nobody published.
	Files []RecordedFile
	// QuitReason is that of a RecordingAborted: 3 means that nobody published for the
	// task's MaxIdleTime, 4 that it came to its MaxRecordTime. 0 if there is none.
	QuitReason uint32
}

// FileStatus is what became of a recorded file. Values without a constant here are
// valid.
type FileStatus uint32

// The states of a file that ZEGO documents.
const (
	// FileUploaded means that the file is in the app's own bucket.
	FileUploaded FileStatus = 3
	// FileInBackup means that it isn't, but in ZEGO's backup storage, which keeps it
	// for [BackupKept].
	FileInBackup FileStatus = 4
	// FileFailed means that it could be uploaded to neither, and is lost.
	FileFailed FileStatus = 5
)

// BackupKept is for how long ZEGO's backup storage keeps a file.
const BackupKept = 72 * time.Hour

// RecordedFile is one file of a recording task.
type RecordedFile struct {
	// FileID is its name: "TaskId_RoomId_UserId_StreamId_Type_UTC.mp4" and the like,
	// see [ParseFileName].
	FileID string
	// URL is where it is: in the app's bucket, or in ZEGO's backup storage. It may be
	// empty.
	URL string
	// Format is such as "mp4", "flv", "hls", "aac" and "jpg".
	Format string
	// Size is in bytes; 0 if it isn't known.
	Size int64
	// Duration is how long it plays.
	Duration time.Duration
	// UserID and StreamID say who was recorded; of a mixed recording both are the
	// mixed stream's ID.
	UserID, StreamID string
	// Begin is when it begins, by ZEGO's clock, in UTC; zero if that isn't known.
	Begin time.Time
	// MediaTrackType is 1 for audio, 2 for video and 3 for both; 0 if it isn't known.
	MediaTrackType uint32
	// Status is what became of it.
	Status FileStatus
}

// maxDuration is what is left of a longer one, in milliseconds: 31 years, of which
// a [time.Duration] holds nine times as many.
const maxDuration = 1e12

// maxURL is the most bytes that a file's URL may have: as many as a browser takes.
const maxURL = 8192

// maxFiles is how many files a callback may list: more than fit into a body of a
// megabyte with the fields that ZEGO documents.
const maxFiles = 4096

// recording reads the fields of a recording callback.
func (r *reader) recording(common Common) Event {
	r.read(recordingFields)
	rec := &Recording{
		Common:       common,
		TaskID:       r.taskID("task_id"),
		ClientTaskID: r.optionalText("client_task_id", maxText),
		RoomID:       r.text("room_id"),
		EventType:    RecordingEvent(r.unsigned("event_type", math.MaxUint32)),
		Sequence:     r.optionalUnsigned("sequence", math.MaxInt64, 0),
	}
	switch rec.EventType {
	case RecordingUploaded:
		r.within("detail", detailFields, func(detail *reader) {
			detail.list("file_info", fileFields, func(file *reader) { rec.Files = append(rec.Files, file.recordedFile()) })
		})
	case RecordingAborted:
		if v := r.value("detail"); v != nil && v[0] == '{' {
			r.within("detail", detailFields, func(detail *reader) {
				rec.QuitReason = uint32(detail.optionalUnsigned("quit_reason", math.MaxUint32, 0))
			})
		}
	}
	return rec
}

var (
	recordingFields = []field{{"task_id"}, {"client_task_id"}, {"room_id"}, {"event_type"}, {"sequence"}, {"detail"}}
	detailFields    = []field{{"file_info"}, {"quit_reason"}}
	fileFields      = []field{{"file_id"}, {"file_url"}, {"output_file_format"}, {"file_size"}, {"duration"}, {"user_id"}, {"stream_id"},
		{"media_track_type"}, {"status"}, {"begin_timestamp"}}
)

func (r *reader) recordedFile() RecordedFile {
	f := RecordedFile{
		FileID:         r.text("file_id"),
		URL:            r.optionalText("file_url", maxURL),
		Format:         r.optionalText("output_file_format", maxText),
		Size:           int64(r.optionalUnsigned("file_size", math.MaxInt64, 0)),
		Duration:       time.Duration(min(r.optionalUnsigned("duration", math.MaxInt64, 0), maxDuration)) * time.Millisecond,
		UserID:         r.optionalText("user_id", maxText),
		StreamID:       r.optionalText("stream_id", maxText),
		MediaTrackType: uint32(r.optionalUnsigned("media_track_type", math.MaxUint32, 0)),
		Status:         FileStatus(r.optionalUnsigned("status", math.MaxUint32, 0)),
		Begin:          r.optionalMillis("begin_timestamp"),
	}
	if name, ok := ParseFileName(f.FileID); ok && f.Begin.IsZero() {
		f.Begin = name.Begin
	}
	return f
}

// taskID is text for the ID of a recording task. It becomes a part of the names of
// files, so it has to be of the form that ZEGO documents.
func (r *reader) taskID(name string) string {
	s := r.text(name)
	if r.err == nil && !ValidTaskID(s) {
		r.fail(name, fmt.Sprintf("found %s, want %d letters, digits, - or _", clip([]byte(s)), taskIDLen))
	}
	return s
}

// ValidTaskID reports whether s has the form of a recording task's ID: 16 letters,
// digits, - or _.
func ValidTaskID(s string) bool {
	return len(s) == taskIDLen && !strings.ContainsFunc(s, func(c rune) bool { return !isIDRune(c) })
}

func isIDRune(c rune) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_'
}

// within reads the fields of an object in a field; of an empty one if the field is
// missing or null.
func (r *reader) within(name string, fields []field, read func(*reader)) {
	v := r.value(name)
	if v == nil {
		v = []byte("{}")
	}
	inner := reader{path: r.spelling(name), index: -1, sum: r.sum, unknown: r.unknown, err: r.err}
	inner.inside(v, fields, read)
	r.err = inner.err
}

// list reads the fields of each object in an array in a field; of none if the field
// is missing or null.
func (r *reader) list(name string, fields []field, read func(*reader)) {
	v := r.value(name)
	if v == nil || r.err != nil {
		return
	}
	if v[0] != '[' {
		r.fail(name, "found "+kind(v)+", want an array")
		return
	}
	inner := reader{path: r.spelling(name), index: -1, sum: r.sum, unknown: r.unknown}
	s := scanner{b: v}
	_ = s.elements(1, func(element []byte) error { // it is valid
		if inner.index++; inner.index == maxFiles {
			r.fail(name, fmt.Sprintf("found more than %d elements", maxFiles))
			return r.err
		}
		inner.inside(element, fields, read)
		return inner.err
	})
	r.err = cmp.Or(r.err, inner.err)
}

// inside reads the fields of one object.
func (r *reader) inside(v []byte, fields []field, read func(*reader)) {
	if r.err != nil {
		return
	}
	if v[0] != '{' {
		r.err = &FieldError{strings.TrimSuffix(r.where(), "."), "found " + kind(v) + ", want an object"}
		return
	}
	r.object, r.values, r.found = v, [maxFields][]byte{}, [maxFields]string{}
	r.sum.text("{")
	if r.read(fields); r.err == nil {
		read(r)
	}
	r.sum.text("}")
}

// FileName is what the name of a recorded file tells.
type FileName struct {
	// TaskID is the recording task's.
	TaskID string
	// Middle is the rest, in which nothing can be told apart for sure, as all of it may
	// hold "_": "RoomId_UserId_StreamId" or, of a mixed recording,
	// "RoomId_MixOutputStreamId"; see [FileName.OfRoom].
	Middle string
	// Type is "V" for video, "A" for audio or "VA" for both.
	Type string
	// Begin is when it begins, to the millisecond and in UTC.
	Begin time.Time
}

// taskIDLen is the length of a task's ID.
const taskIDLen = 16

// ParseFileName takes the name of a recorded file apart (ZEGO's OutputFileRule 1).
// It is the last part of the file's key, whatever the folder; what follows the
// time, such as ".mp4", doesn't matter.
func ParseFileName(name string) (FileName, bool) {
	if len(name) <= taskIDLen || name[taskIDLen] != '_' || strings.ContainsRune(name[:taskIDLen], '/') {
		return FileName{}, false
	}
	f := FileName{TaskID: name[:taskIDLen]}
	rest := name[taskIDLen+1:]
	for {
		// From the end, as all but the last two parts may hold "_", and an extension may.
		at := strings.LastIndexByte(rest, '_')
		if at < 0 {
			return FileName{}, false
		}
		begin, ok := parseUTC(rest[at+1:])
		rest = rest[:at]
		if !ok {
			continue
		}
		at = strings.LastIndexByte(rest, '_')
		if at <= 0 {
			return FileName{}, false
		}
		f.Middle, f.Type, f.Begin = rest[:at], rest[at+1:], begin
		return f, f.Type == "V" || f.Type == "A" || f.Type == "VA"
	}
}

// parseUTC reads the time yyyyMMddHHmmssSSS at the start of s, at the end of which
// or in front of a character that is none of a name it has to stand.
func parseUTC(s string) (time.Time, bool) {
	const digits = 17
	if len(s) < digits || len(s) > digits && (unicode.IsLetter(rune(s[digits])) || unicode.IsDigit(rune(s[digits]))) {
		return time.Time{}, false
	}
	t, err := time.Parse("20060102150405.000", s[:14]+"."+s[14:digits])
	return t, err == nil && strings.IndexFunc(s[:digits], func(c rune) bool { return c < '0' || c > '9' }) < 0
}

// OfRoom says whether the file may be one of the room. It certainly isn't if not;
// but if so, it may also be one of another room: "a_b_s" is of a user "b" in the
// room "a", or of a mixed stream "s" in the room "a_b".
func (f FileName) OfRoom(roomID string) bool {
	return strings.HasPrefix(f.Middle, roomID+"_")
}

// MarshalJSON writes the callback's body as ZEGO sends it. Use it to play ZEGO
// against one's own handler; set Signature with [Sign] before.
func (r Recording) MarshalJSON() ([]byte, error) {
	type file struct {
		FileID         string     `json:"file_id"`
		FileURL        string     `json:"file_url,omitempty"`
		Format         string     `json:"output_file_format,omitempty"`
		FileSize       int64      `json:"file_size"`
		Duration       int64      `json:"duration"`
		UserID         string     `json:"user_id"`
		StreamID       string     `json:"stream_id"`
		Begin          int64      `json:"begin_timestamp,omitempty"`
		MediaTrackType uint32     `json:"media_track_type,omitempty"`
		Status         FileStatus `json:"status"`
	}
	detail := map[string]any{}
	switch r.EventType {
	case RecordingUploaded:
		status, files := 1, []file{}
		for _, f := range r.Files {
			if f.Status != FileUploaded {
				status = 2
			}
			out := file{f.FileID, f.URL, f.Format, f.Size, f.Duration.Milliseconds(), f.UserID, f.StreamID, 0, f.MediaTrackType, f.Status}
			if !f.Begin.IsZero() {
				out.Begin = f.Begin.UnixMilli()
			}
			files = append(files, out)
		}
		detail["upload_status"], detail["file_info"] = status, files
	case RecordingAborted:
		detail["quit_reason"] = r.QuitReason
	}
	b, err := json.Marshal(struct {
		AppID        uint32         `json:"app_id"`
		TaskID       string         `json:"task_id"`
		ClientTaskID string         `json:"client_task_id,omitempty"`
		RoomID       string         `json:"room_id"`
		EventType    RecordingEvent `json:"event_type"`
		Message      string         `json:"message"`
		Nonce        string         `json:"nonce"`
		Timestamp    string         `json:"timestamp"`
		Signature    string         `json:"signature"`
		Sequence     uint64         `json:"sequence"`
		Detail       any            `json:"detail"`
	}{
		r.AppID, r.TaskID, r.ClientTaskID, r.RoomID, r.EventType, "", r.Nonce,
		strconv.FormatInt(r.Timestamp, 10), r.Signature, r.Sequence, detail,
	})
	if err != nil {
		return nil, fmt.Errorf("encode recording callback: %w", err)
	}
	return b, nil
}
