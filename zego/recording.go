package zego

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// EventRecording is the event name of a [Recording]. The callback itself has no event
// name. It is recognized by its fields app_id, task_id and event_type.
const EventRecording = "recording"

// RecordingEvent is the event_type of a [Recording]. Values without a constant
// here are valid, because ZEGO may add values.
type RecordingEvent uint32

// The event types that ZEGO documents ("Recording status callback").
const (
	// RecordingUploaded means that the upload has ended. The status of each file shows
	// whether it succeeded.
	RecordingUploaded RecordingEvent = 1
	// RecordingAborted means that the task ended by itself: see [Recording.QuitReason].
	// That is the usual end of a task that nobody stops.
	RecordingAborted RecordingEvent = 2
	// RecordingImageFailed means that an image for background or watermark could not
	// be loaded.
	RecordingImageFailed RecordingEvent = 3
	// RecordingNoStream means that nobody publishes in the room. ZEGO repeats it every
	// 30 s until somebody publishes.
	RecordingNoStream RecordingEvent = 4
	// RecordingEnded means that the recording ended normally.
	RecordingEnded RecordingEvent = 5
	// RecordingStreamMissing means that a stream to be recorded doesn't exist.
	RecordingStreamMissing RecordingEvent = 6
	// RecordingUploading means that the recording has stopped and is being uploaded.
	RecordingUploading RecordingEvent = 7
	// RecordingPlaylist names the M3U8 file of a recording that is uploaded while it runs.
	RecordingPlaylist RecordingEvent = 102
	RecordingPaused   RecordingEvent = 201
	RecordingResumed  RecordingEvent = 202
)

// Recording reports an event of a cloud recording task. It doesn't name the session of
// the room. ZEGO sends it at most three times, five seconds apart, in no particular order
// with the room's other callbacks.
type Recording struct {
	Common
	// TaskID identifies the task. It has 16 characters.
	TaskID string
	// RoomID is the recorded room's name, as in [RoomClose].
	RoomID string
	// EventType is what happened.
	EventType RecordingEvent
	// Sequence counts the task's callbacks from 0.
	Sequence uint64
	// Files are the files of a RecordingUploaded. There are none if nobody published.
	Files []RecordedFile
	// QuitReason is the quit_reason of a RecordingAborted, or 0: 3 means that nobody
	// published for the task's MaxIdleTime, and 4 that it reached its MaxRecordTime.
	QuitReason uint32
}

// FileStatus is the state of a recorded file. Values without a constant here are
// valid.
type FileStatus uint32

// The states of a file that ZEGO documents.
const (
	// FileUploaded means that the file is in the app's own bucket.
	FileUploaded FileStatus = 3
	// FileInBackup means that the file is in ZEGO's backup storage, which keeps it for
	// [BackupKept].
	FileInBackup FileStatus = 4
	// FileFailed means that both uploads failed, and the file is lost.
	FileFailed FileStatus = 5
)

// BackupKept is how long ZEGO's backup storage keeps a file.
const BackupKept = 72 * time.Hour

// RecordedFile is one file of a recording task.
type RecordedFile struct {
	// FileID is the file's name, such as "TaskId_RoomId_UserId_StreamId_Type_UTC.mp4": see
	// [ParseFileName] and [ValidFileID].
	FileID string
	// URL is the file's address in the app's bucket or in ZEGO's backup storage. It may
	// be empty.
	URL string
	// Format is "mp4", "flv", "hls", "aac", "jpg" or another.
	Format string
	// Size is in bytes, or 0 if unknown.
	Size int64
	// Duration is the playing time.
	Duration time.Duration
	// UserID and StreamID identify the recorded user and stream. In a mixed recording both
	// are the mixed stream's ID.
	UserID, StreamID string
	// Begin is when the recording begins, by ZEGO's clock, in UTC. It is zero if unknown.
	Begin time.Time
	// MediaTrackType is 1 for audio, 2 for video, 3 for both, and 0 if unknown.
	MediaTrackType uint32
	// Status is the state of the file.
	Status FileStatus
}

// Bounds of a recording callback.
const (
	// maxDuration is 31 years in milliseconds, a ninth of the longest [time.Duration].
	maxDuration = 1e12
	// maxURL is the maximum length of a file's URL in bytes, as in browsers.
	maxURL = 8192
	// maxFiles is more than fit into a body of 1 MiB with the documented fields.
	maxFiles = 4096
)

// taskIDLen is the length of a task's ID.
const taskIDLen = 16

var (
	recordingFields = fieldsOf("task_id", "room_id", "event_type", "sequence", "detail")
	detailFields    = fieldsOf("file_info", "quit_reason")
	fileFields      = fieldsOf("file_id", "file_url", "output_file_format", "file_size", "duration", "user_id", "stream_id",
		"media_track_type", "status", "begin_timestamp")
)

func (r *reader) recording(common Common) Event {
	r.read(recordingFields)
	rec := &Recording{
		Common:    common,
		TaskID:    r.text("task_id"),
		RoomID:    r.text("room_id"),
		EventType: RecordingEvent(r.unsigned("event_type", math.MaxUint32)),
		Sequence:  r.optionalUnsigned("sequence", math.MaxInt64, 0),
	}
	if r.err == nil && !ValidTaskID(rec.TaskID) { // it becomes a part of files' names
		r.fail("task_id", fmt.Sprintf("found %s, want %d letters, digits, - or _", clip([]byte(rec.TaskID)), taskIDLen))
	}
	switch rec.EventType {
	case RecordingUploaded:
		r.within("detail", detailFields, func(detail *reader) {
			detail.list("file_info", maxFiles, fileFields, func(file *reader) { rec.Files = append(rec.Files, file.recordedFile()) })
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

func (r *reader) recordedFile() RecordedFile {
	f := RecordedFile{
		FileID:         r.fileID("file_id"),
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

// ValidTaskID reports whether s has the form of a recording task's ID: 16 letters,
// digits, - or _.
func ValidTaskID(s string) bool {
	return len(s) == taskIDLen && !strings.ContainsFunc(s, func(c rune) bool { return !isIDRune(c) })
}

// ValidFileID reports whether s can be a file's name and a part of keys: 1 to 1024 bytes
// without control characters, and no path with empty parts, "." or "..". Slashes and
// backslashes are valid, because the room's ID in it may have them.
func ValidFileID(s string) bool {
	p := "/" + strings.ReplaceAll(s, `\`, "/")
	return s != "" && len(s) <= maxText && !strings.ContainsFunc(s, unicode.IsControl) && path.Clean(p) == p
}

// fileID returns the required name of a file.
func (r *reader) fileID(name string) string {
	id := r.text(name)
	if r.err == nil && !ValidFileID(id) {
		r.fail(name, fmt.Sprintf("found %s, want a name without empty parts, . and .. between slashes", clip([]byte(id))))
	}
	return id
}

func isIDRune(c rune) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_'
}

// FileName holds the parts of a recorded file's name.
type FileName struct {
	// TaskID is the ID of the recording task.
	TaskID string
	// Middle is "RoomId_UserId_StreamId", or "RoomId_MixOutputStreamId" in a mixed
	// recording. Each part may contain "_", so Middle can't be split with certainty: see
	// [FileName.OfRoom].
	Middle string
	// Type is "V" for video, "A" for audio or "VA" for both.
	Type string
	// Begin is when the recording begins, to the millisecond and in UTC.
	Begin time.Time
}

var fileName = regexp.MustCompile(`(?s)^([\w-]{16})_(.+)_(VA?|A)_(\d{14})(\d{3})(?:[^\pL\pN]|$)`)

// ParseFileName parses the name of a recorded file (ZEGO's OutputFileRule 1). The name is
// the last part of the file's key. ParseFileName ignores what follows the time, such as
// ".mp4".
func ParseFileName(name string) (FileName, bool) {
	m := fileName.FindStringSubmatch(name)
	if m == nil {
		return FileName{}, false
	}
	begin, err := time.Parse("20060102150405.000", m[4]+"."+m[5])
	return FileName{m[1], m[2], m[3], begin}, err == nil
}

// OfRoom reports whether the file may belong to the room. It may belong to several rooms:
// "a_b_s" is user "b" in room "a", or mixed stream "s" in room "a_b".
func (f FileName) OfRoom(roomID string) bool {
	return strings.HasPrefix(f.Middle, roomID+"_")
}
