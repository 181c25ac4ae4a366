package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
)

// Recordings moves a session's recordings to where they are kept.
type Recordings struct {
	// Source is the bucket that ZEGO's cloud recording uploads to. A session's
	// files are those below [SessionFolder].
	Source *blob.Bucket
	// Archive is the bucket that keeps them. A session's files go to
	// SessionFolder + "recordings/", with a [Manifest] at [ManifestKey].
	Archive *blob.Bucket
	// Options say how; the zero value will do.
	Options archive.Options
	// Finding says how a session's recordings are found, and waited for.
	Finding Finding
	// Observe, if set, is told of each file that was copied, and its size in bytes.
	Observe func(size int64)

	once  sync.Once
	mover *archive.Mover
	fault error
}

// SessionFolder is where a session's objects lie in both buckets:
// "<appid>/<room_session_id>/". An app that starts a recording sets the task's
// OutputFolder to it, as nothing else in a recording tells the session.
func SessionFolder(s Session) string {
	return strconv.FormatUint(uint64(s.AppID), 10) + "/" + strconv.FormatUint(s.RoomSessionID, 10) + "/"
}

// ManifestKey is where the archive has a session's [Manifest].
func ManifestKey(s Session) string { return SessionFolder(s) + "manifest.json" }

// Manifest lists what was archived of a session: its Files, with their names, sizes
// and checksums. It is written last, so that an archive that has one is complete,
// and made of the session and its files alone, so that it is the same whoever
// writes it, and when.
type Manifest = archive.Manifest

// File is one archived recording, as the manifest has it.
type File = archive.File

// Archived is what came of archiving a session.
type Archived struct {
	// Manifest is the manifest's key in the archive.
	Manifest string `json:"manifest"`
	// Files is how many recordings there are.
	Files int `json:"files"`
	// Bytes is how large they are together.
	Bytes int64 `json:"bytes"`
	// Links are where the manifest and the first of the recordings are: s3://bucket/key,
	// or a file's path.
	Links []string `json:"links,omitempty"`
	// Lost are the recordings that ZEGO could upload nowhere, by name.
	Lost []string `json:"lost,omitempty"`
	// Waiting says that they are not all there yet.
	Waiting *Waiting `json:"waiting,omitempty"`
}

// mostLinks bounds a result, as runs keep it. The manifest has all names.
const mostLinks = 20

// Waits implements [Waiter].
func (a Archived) Waits() *Waiting { return a.Waiting }

// String says it in a few words, for people.
func (a Archived) String() string {
	switch a.Files {
	case 0:
		return "no recordings, see " + a.Manifest
	case 1:
		return fmt.Sprintf("1 recording of %d bytes, see %s", a.Bytes, a.Manifest)
	default:
		return fmt.Sprintf("%d recordings of %d bytes, see %s", a.Files, a.Bytes, a.Manifest)
	}
}

// ArchiveRecordings copies the session's recordings to the archive, checks each
// and writes the manifest. It heartbeats. After a crash it goes on where it was,
// and where there is a manifest there is nothing left to do.
func (r *Recordings) ArchiveRecordings(ctx context.Context, task Task) (Archived, error) {
	return r.move(ctx, task.Session, func(ctx context.Context) (items []archive.Item, err error) {
		folder := SessionFolder(task.Session)
		for list := r.Source.List(&blob.ListOptions{Prefix: folder}); ; {
			object, err := list.Next(ctx)
			if errors.Is(err, io.EOF) {
				return items, nil
			}
			if err != nil {
				return nil, fmt.Errorf("list the recordings in %s: %w", folder, err)
			}
			if !strings.HasSuffix(object.Key, "/") { // what object stores show as a folder
				items = append(items, archive.Item{Key: object.Key, Name: strings.TrimPrefix(object.Key, folder), Size: object.Size})
			}
		}
	})
}

// errStopping makes room for another worker: with the files that are finished in
// its heartbeat, the next attempt goes on from there.
var errStopping = errors.New("the worker is stopping, the next attempt goes on from here")

// heartbeats is how often a step that moves recordings says that it is alive.
const heartbeats = 5 * time.Second

// move moves what is to be archived of a session, and writes the manifest. What is
// asked for only if there is no manifest yet.
func (r *Recordings) move(ctx context.Context, s Session, what func(context.Context) ([]archive.Item, error)) (Archived, error) {
	r.once.Do(func() {
		if r.mover, r.fault = archive.NewMover(r.Source, r.Archive, r.Options); r.fault == nil {
			r.mover.Observe = r.Observe
		}
	})
	if r.fault != nil {
		return Archived{}, Blocked("%w", r.fault)
	}

	moving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return Archived{}, errStopping
	default:
	}
	var mu sync.Mutex
	var progress archive.Progress
	if activity.HasHeartbeatDetails(ctx) {
		// What can't be read only means that files are looked at again.
		_ = activity.GetHeartbeatDetails(ctx, &progress)
	}
	earlier := progress
	beat := func() {
		mu.Lock()
		defer mu.Unlock()
		activity.RecordHeartbeat(ctx, progress)
	}
	go func() { // also while the store is busy by itself
		for tick := time.NewTicker(heartbeats); ; {
			select {
			case <-tick.C:
				beat()
			case <-activity.GetWorkerStopChannel(ctx):
				cancel(errStopping)
				return
			case <-moving.Done():
				tick.Stop()
				return
			}
		}
	}()
	head := Manifest{AppID: s.AppID, RoomID: s.RoomID, RoomSessionID: s.RoomSessionID, CloseReason: s.CloseReason, RoomCloseTime: s.RoomCloseTime}
	manifest, err := r.mover.Move(moving, SessionFolder(s), head, what, earlier, func(p archive.Progress) {
		mu.Lock()
		progress = p
		mu.Unlock()
		beat()
	})
	if errors.Is(err, archive.ErrUnreadable) || errors.Is(err, archive.ErrImpossible) {
		return Archived{}, Blocked("%w", err)
	}
	if err != nil {
		return Archived{}, err
	}
	return r.archived(manifest), nil
}

// archived says what a manifest lists, and where that is.
func (r *Recordings) archived(m Manifest) Archived {
	a := ArchivedOf(m)
	link := func(key string) {
		if l := archive.Link(r.Options.ArchiveURL, key); l != "" && len(a.Links) < mostLinks {
			a.Links = append(a.Links, l)
		}
	}
	link(a.Manifest)
	for _, f := range m.Files {
		link(f.Name)
	}
	return a
}

// ArchivedOf says what a manifest lists.
func ArchivedOf(m Manifest) Archived {
	return Archived{Manifest: ManifestKey(Session{AppID: m.AppID, RoomSessionID: m.RoomSessionID}), Files: len(m.Files), Bytes: m.Bytes()}
}
