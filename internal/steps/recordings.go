package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/session"
)

// Recordings has the Activities that archive recordings.
type Recordings struct {
	// Source is the bucket that ZEGO's cloud recording uploads to. Files below
	// [session.ID.Folder] belong to the session.
	Source *blob.Bucket
	// Archive is the bucket of the archive. A session's files go to the subfolder
	// recordings/ of its folder, beside the [Manifest].
	Archive *blob.Bucket
	// Options configure the copies. The zero value is valid.
	Options archive.Options
	// Finding configures the search for recordings.
	Finding Finding
	// Observe, if set, is called for each copied file with its size in bytes.
	Observe func(size int64)

	once  sync.Once
	mover *archive.Mover
	fault error
}

// Manifest lists the archived files of a session with their names, sizes and checksums. It
// is written last, so an archive with a manifest is complete. It depends on the session and
// its files alone, so every writer writes the same.
type Manifest = archive.Manifest

// File is one archived recording in a manifest.
type File = archive.File

// maxLinks bounds the links and the names of lost recordings in a result. The manifest lists
// all of them.
const maxLinks = 20

// ArchiveRecordings copies the session's recordings to the archive, verifies each and writes
// the manifest. It heartbeats, and resumes after a crash. It waits while recordings are
// missing, but at once saves those that ZEGO deletes after some days. If there is a manifest
// it does nothing: [Recordings.AddRecordings] adds later recordings.
func (r *Recordings) ArchiveRecordings(ctx context.Context, task activities.Task) (activities.Archived, error) {
	var plan *recordings.Plan
	manifest, err := r.moving(ctx, func(ctx context.Context, earlier archive.Progress, report func(archive.Progress)) (Manifest, error) {
		s := task.Session
		head := Manifest{AppID: s.AppID, RoomID: s.RoomID, RoomSessionID: s.RoomSessionID, CloseReason: s.CloseReason, RoomCloseTime: s.RoomCloseTime}
		return r.mover.Move(ctx, s.Folder(), head, func(ctx context.Context) (items []archive.Item, err error) {
			if r.Finding.Ledger == nil {
				items, err = r.folder(ctx, s)
			} else {
				plan, items, err = r.find(ctx, task, nil)
			}
			if len(items) > 0 && activity.GetInfo(ctx).IsLocalActivity {
				return nil, activities.ErrNotQuick
			}
			return items, err
		}, earlier, report)
	})
	return r.outcome(ctx, task.Session, manifest, plan, err)
}

// AddRecordings is like [Recordings.ArchiveRecordings] for recordings announced after the
// manifest was written. It writes a new manifest that lists all.
func (r *Recordings) AddRecordings(ctx context.Context, task activities.Task) (activities.Archived, error) {
	if r.Finding.Ledger == nil {
		return activities.Archived{}, activities.Blockedf("CLOSEOUT_RECORDINGS is %q, want callback or bucket: late recordings are known by their callbacks", "none")
	}
	var plan *recordings.Plan
	manifest, err := r.moving(ctx, func(ctx context.Context, earlier archive.Progress, report func(archive.Progress)) (Manifest, error) {
		folder := task.Session.Folder()
		before, err := archive.Latest(ctx, r.Archive, folder)
		if errors.Is(err, archive.ErrNone) {
			return Manifest{}, activities.Blockedf("%w, and this step only adds to one: find out who removed it", err)
		}
		if err != nil {
			return Manifest{}, err
		}
		var items []archive.Item
		if plan, items, err = r.find(ctx, task, &before); err != nil {
			return Manifest{}, err
		}
		return r.mover.Add(ctx, folder, before, items, earlier, report)
	})
	return r.outcome(ctx, task.Session, manifest, plan, err)
}

// find returns the plan for a session's recordings, and the items it moves.
func (r *Recordings) find(ctx context.Context, task activities.Task, before *Manifest) (*recordings.Plan, []archive.Item, error) {
	plan, err := r.plan(ctx, task, before)
	if err != nil {
		return nil, nil, err
	}
	items, err := itemsOf(plan)
	return plan, items, err
}

// outcome returns the step's result. It stores which session owns the archived recordings,
// so that no other session takes them.
func (r *Recordings) outcome(ctx context.Context, s session.Session, m Manifest, plan *recordings.Plan, err error) (activities.Archived, error) {
	if yet := new(notYet); errors.As(err, &yet) {
		return activities.Archived{Waiting: yet.waiting}, nil
	}
	if err == nil && r.Finding.Ledger != nil {
		var tasks []ledger.RecordingTask
		if plan != nil {
			tasks = plan.Mine
		}
		if tasks, err = r.listed(ctx, m, tasks); err == nil {
			err = r.Finding.Ledger.ArchivedRecordings(ctx, s, tasks)
		}
	}
	if err != nil {
		return activities.Archived{}, err
	}
	return r.archived(m), nil
}

// listed adds the recording tasks whose files are all in the manifest: all of them if an
// earlier attempt wrote it, and else those that are not the session's, but have files in its
// folder.
func (r *Recordings) listed(ctx context.Context, m Manifest, tasks []ledger.RecordingTask) ([]ledger.RecordingTask, error) {
	known := map[string]bool{"": true}
	for _, t := range tasks {
		known[t.TaskID] = true
	}
	var files []recordings.Listed
	for _, f := range m.Files {
		files = append(files, recordings.Listed{TaskID: f.TaskID, Source: f.Source})
	}
	for _, f := range files {
		if known[f.TaskID] {
			continue
		}
		known[f.TaskID] = true
		switch t, err := r.Finding.Ledger.RecordingTask(ctx, m.AppID, f.TaskID); {
		case errors.Is(err, ledger.ErrNoRecording): // its name is all that is known
		case err != nil:
			return nil, err
		case recordings.AllListed(t, files, m.Lost):
			tasks = append(tasks, t)
		}
	}
	return tasks, nil
}

// notYet means that the step has to wait.
type notYet struct{ waiting *activities.Waiting }

// Error implements error.
func (n *notYet) Error() string { return "waits for " + n.waiting.For }

// folder returns the objects in the session's folder.
func (r *Recordings) folder(ctx context.Context, s session.Session) (items []archive.Item, err error) {
	folder := s.Folder()
	for object, err := range archive.List(ctx, r.Source, folder, false) {
		if err != nil {
			return nil, fmt.Errorf("list the recordings in %s: %w", folder, err)
		}
		if !strings.HasSuffix(object.Key, "/") { // not a folder marker
			items = append(items, archive.Item{Key: object.Key, Name: strings.TrimPrefix(object.Key, folder), Size: object.Size})
		}
	}
	return items, nil
}

// errStopping ends an attempt when its worker stops. The next attempt resumes from the files
// in the heartbeat.
var errStopping = errors.New("the worker is stopping, the next attempt goes on from here")

// heartbeats is the interval of heartbeats.
const heartbeats = 5 * time.Second

// moving calls move, and sends its progress as heartbeats.
func (r *Recordings) moving(ctx context.Context, move func(ctx context.Context, earlier archive.Progress, report func(archive.Progress)) (Manifest, error)) (Manifest, error) {
	r.once.Do(func() {
		options := r.Options
		options.AppFolder = r.Finding.Prefix.AppFolder
		if r.mover, r.fault = archive.NewMover(r.Source, r.Archive, options); r.fault == nil {
			r.mover.Observe = r.Observe
		}
	})
	if r.fault != nil {
		return Manifest{}, activities.Blockedf("%w", r.fault)
	}

	moving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return Manifest{}, errStopping
	default:
	}
	var mu sync.Mutex
	var progress archive.Progress
	if activity.HasHeartbeatDetails(ctx) {
		// Without the details, finished files are checked again.
		_ = activity.GetHeartbeatDetails(ctx, &progress)
	}
	earlier := progress
	beat := func() {
		mu.Lock()
		defer mu.Unlock()
		activity.RecordHeartbeat(ctx, progress)
	}
	go func() { // heartbeat even while the store copies on its own
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
	manifest, err := move(moving, earlier, func(p archive.Progress) {
		mu.Lock()
		progress = p
		mu.Unlock()
		beat()
	})
	if errors.Is(err, archive.ErrUnreadable) || errors.Is(err, archive.ErrImpossible) {
		return Manifest{}, activities.Blockedf("%w", err)
	}
	if err != nil {
		return Manifest{}, err
	}
	return manifest, nil
}

// archived returns the result of a manifest, with links.
func (r *Recordings) archived(m Manifest) activities.Archived {
	a := ArchivedOf(m)
	if len(m.Files) == 0 { // most sessions; a link would only make the history larger
		return a
	}
	link := func(key string) {
		if l := archive.Link(r.Options.ArchiveURL, key); l != "" && len(a.Links) < maxLinks {
			a.Links = append(a.Links, l)
		}
	}
	link(a.Manifest)
	for _, f := range m.Files {
		link(f.Name)
	}
	return a
}

// ArchivedOf returns the result of a manifest.
func ArchivedOf(m Manifest) activities.Archived {
	a := activities.Archived{Manifest: m.Key(session.ID{AppID: m.AppID, RoomSessionID: m.RoomSessionID}.Folder()), Files: len(m.Files), Bytes: m.Bytes(), LostFiles: len(m.Lost)}
	for _, name := range m.Lost[:min(len(m.Lost), maxLinks)] {
		a.Lost = append(a.Lost, short(name))
	}
	return a
}
