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

// Manifest lists the archived recordings of a session. It is written last, so that an
// archive with a manifest is complete. It depends on nothing but the session and its
// files, so that all workers write the same.
type Manifest struct {
	Version int `json:"version"` // of this format, 1
	// Number is absent in the first manifest, and 2 and so on in those for late recordings. The
	// manifest with the highest number is complete.
	Number int `json:"number,omitempty"`

	AppID         uint32    `json:"appid"`
	RoomID        string    `json:"room_id"`
	RoomSessionID uint64    `json:"room_session_id,string"`
	CloseReason   zego.Code `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`

	Files []File `json:"files"` // by name
	// Lost lists ZEGO's names of recordings that were never uploaded.
	Lost []string `json:"lost,omitempty"`
}

// File is an archived recording.
type File struct {
	Name string `json:"name"` // its key in the archive
	// Source is a key in the bucket of the recordings, or a URL without credentials.
	Source string `json:"source"`
	Size   int64  `json:"size"`   // in bytes
	SHA256 string `json:"sha256"` // in hex
	About
}

// About holds metadata of a recording. Unknown fields are omitted.
type About struct {
	DurationMS int64     `json:"duration_ms,omitempty"`
	TaskID     string    `json:"task_id,omitempty"`
	BeginTime  time.Time `json:"begin_time,omitzero"` // by ZEGO's clock
	UserID     string    `json:"user_id,omitempty"`   // who was recorded
	StreamID   string    `json:"stream_id,omitempty"`
	TrackType  string    `json:"track_type,omitempty"` // audio, video or both
}

// Bytes returns the size of all files.
func (m Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// encode returns the content of the manifest's object.
func (m Manifest) encode() ([]byte, error) {
	slices.SortFunc(m.Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// Key returns the manifest's key in a session's folder, "<appid>/<room_session_id>/".
func (m Manifest) Key(folder string) string { return manifestKey(folder, m.Number) }

func manifestKey(folder string, number int) string {
	if number <= 1 {
		return folder + "manifest.json"
	}
	return fmt.Sprintf("%smanifest-%d.json", folder, number)
}

// next returns the number of the next manifest.
func (m Manifest) next() int { return max(m.Number, 1) + 1 }

// has reports whether the manifest lists the item.
func (m Manifest) has(item Item) bool {
	switch {
	case item.Lost:
		return slices.Contains(m.Lost, item.Name)
	case item.Kept != nil:
		return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == item.Kept.Name })
	}
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Source == item.id() })
}

// Latest reads the manifest of a session with the highest number. Errors are as in [Read].
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

// ErrUnreadable means that the object is not a manifest. A retry is useless.
var ErrUnreadable = errors.New("this version of Closeout can't read it as a manifest; see what it is, then repair it, or move it away to have it written anew")

// ErrNone means that there is no manifest.
var ErrNone = errors.New("there is no manifest")

// Read reads a manifest. The error wraps [ErrNone] if there is none, and [ErrUnreadable] if the
// object is not a manifest.
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
