package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/closeouthq/closeout/zego"
)

// Version is the version of manifests.
const Version = 1

// Manifest lists what was archived of a session. It is written last, so that an
// archive that has one is complete, and made of the session and its files alone,
// so that it is the same whoever writes it, and when.
type Manifest struct {
	// Version is the version of this format: 1.
	Version int `json:"version"`
	// Number is 2 for the manifest that a late recording made, and so on; the first
	// one has none. The one with the highest number is complete.
	Number int `json:"number,omitempty"`
	// AppID, RoomID and RoomSessionID name the session.
	AppID         uint32 `json:"appid"`
	RoomID        string `json:"room_id"`
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason and RoomCloseTime say how and when it ended.
	CloseReason   zego.CloseReason `json:"close_reason"`
	RoomCloseTime time.Time        `json:"room_close_time"`
	// Files are the recordings, by name.
	Files []File `json:"files"`
	// Lost are the recordings that there were and that are nowhere, by the names that
	// ZEGO gave them.
	Lost []string `json:"lost,omitempty"`
}

// File is one archived recording.
type File struct {
	// Name is its key in the archive.
	Name string `json:"name"`
	// Source is where it was copied from: a key in the bucket of the recordings, or a
	// URL, without what proves that it may be read.
	Source string `json:"source"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is of its content, in hex.
	SHA256 string `json:"sha256"`
	About
}

// About is what is known of a recording beside its content. What isn't known is
// empty, and left out of the manifest.
type About struct {
	// DurationMS is how long it plays, in milliseconds.
	DurationMS int64 `json:"duration_ms,omitempty"`
	// TaskID is the recording task's.
	TaskID string `json:"task_id,omitempty"`
	// BeginTime is when the recording began, by ZEGO's clock.
	BeginTime time.Time `json:"begin_time,omitzero"`
	// UserID and StreamID say who was recorded.
	UserID   string `json:"user_id,omitempty"`
	StreamID string `json:"stream_id,omitempty"`
	// TrackType says what was: audio, video or both.
	TrackType string `json:"track_type,omitempty"`
}

// Bytes is how large the files are together.
func (m Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// encode gives the manifest as it is written.
func (m Manifest) encode() ([]byte, error) {
	slices.SortFunc(m.Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// Key is where the manifest is in a session's folder, "<appid>/<room_session_id>/".
func (m Manifest) Key(folder string) string { return manifestKey(folder, m.Number) }

func manifestKey(folder string, number int) string {
	if number <= 1 {
		return folder + "manifest.json"
	}
	return fmt.Sprintf("%smanifest-%d.json", folder, number)
}

// next is the number of the manifest after this one.
func (m Manifest) next() int { return max(m.Number, 1) + 1 }

// has tells whether the manifest lists the item.
func (m Manifest) has(item Item) bool {
	switch {
	case item.Lost:
		return slices.Contains(m.Lost, item.Name)
	case item.Kept != nil:
		return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == item.Kept.Name })
	}
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Source == item.id() })
}

// Latest reads the manifest of a session that lists all of its recordings: the
// one with the highest number. Errors are those of [Read].
func Latest(ctx context.Context, bucket *blob.Bucket, folder string) (Manifest, error) {
	latest, err := Read(ctx, bucket, manifestKey(folder, 1))
	for n := 2; err == nil; n++ {
		key := manifestKey(folder, n)
		m, fault := Read(ctx, bucket, key)
		switch {
		case errors.Is(fault, ErrNone):
			return latest, nil
		case fault == nil && m.Number != n:
			fault = fmt.Errorf("%s: %w: its number is %d", key, ErrUnreadable, m.Number)
		}
		latest, err = m, fault
	}
	return Manifest{}, err
}

// ErrUnreadable is that there is something else where a manifest should be, which
// no retry will mend.
var ErrUnreadable = errors.New("it is no manifest that this version of Closeout can read; see what it is, then put it right, or move it away to have it written anew")

// ErrNone is that there is no manifest.
var ErrNone = errors.New("there is no manifest")

// Read reads a manifest. The error wraps [ErrNone] where there is
// none, and [ErrUnreadable] where it is something else.
func Read(ctx context.Context, bucket *blob.Bucket, key string) (m Manifest, err error) {
	defer func() { err = foreign(err) }()
	b, err := bucket.ReadAll(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return m, fmt.Errorf("%s: %w", key, ErrNone)
	}
	if err != nil {
		return m, fmt.Errorf("read the manifest %s: %w", key, err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w: %w", key, ErrUnreadable, err)
	}
	if m.Version != Version {
		return m, fmt.Errorf("%s: %w: its version is %d, want %d", key, ErrUnreadable, m.Version, Version)
	}
	return m, nil
}
