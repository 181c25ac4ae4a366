package steps

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"gocloud.dev/gcerrors"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// Finding configures how recordings are found, and how long the step waits for them.
type Finding struct {
	// Ledger stores the recording callbacks. If nil, the step archives the session's folder
	// at once.
	Ledger *ledger.Ledger
	// Prefix is another place of recordings in the bucket besides the session's folder.
	Prefix recordings.Prefix
	// API asks ZEGO about recordings without a callback. If it is nil or lacks a secret of
	// the app, the step relies on callbacks.
	API *serverapi.Client
	// Rules are how long the step waits.
	recordings.Rules
}

// plan looks up the session's recordings, saves those that ZEGO deletes after some days, and
// returns what to do. before is the manifest to add to, or nil. The error is a [notYet] if
// the step has to wait.
func (r *Recordings) plan(ctx context.Context, task activities.Task, before *Manifest) (*recordings.Plan, error) {
	facts, err := r.facts(ctx, task, before)
	if err != nil {
		return nil, err
	}
	if len(facts.Tasks) > 0 && activity.GetInfo(ctx).IsLocalActivity {
		return nil, activities.ErrNotQuick
	}
	for asked := false; ; {
		p := r.Finding.Plan(*facts)
		switch {
		case len(p.Save)+len(p.List)+len(p.Look)+len(p.Rooms) > 0:
			if err := r.lookUp(ctx, facts, p, before); err != nil {
				return nil, err
			}
		case !asked && r.asks(facts, p):
			if activity.GetInfo(ctx).IsLocalActivity {
				return nil, activities.ErrNotQuick
			}
			asked = true
			if err := r.ask(ctx, task, &facts, before); err != nil {
				return nil, err
			}
		case p.Blocked != "":
			return nil, activities.Blockedf("%s", p.Blocked)
		case p.Wait != nil:
			return nil, &notYet{&activities.Waiting{For: p.Wait.For, Pause: p.Wait.Pause, Note: p.Wait.Note}}
		default:
			return &p, nil
		}
	}
}

// facts returns the ledger's facts about a session's recordings.
func (r *Recordings) facts(ctx context.Context, task activities.Task, before *Manifest) (*recordings.Facts, error) {
	s := task.Session
	f := &recordings.Facts{Folder: s.Folder(), Late: before != nil, Now: time.Now(), Session: s,
		Faults: map[*ledger.RecordedFile]recordings.Fault{}, Objects: map[string][]recordings.Object{},
		Keys: map[string]*recordings.Object{}, Rooms: map[recordings.Room][]uint64{}}
	if w := task.Waited; w != nil {
		f.Now, f.Waited = w.Now, recordings.Waited{Elapsed: w.Now.Sub(w.Since), Times: w.Times, Note: w.Note}
	}
	if before != nil {
		for _, file := range before.Files {
			f.Listed = append(f.Listed, recordings.Listed{TaskID: file.TaskID, Source: file.Source})
		}
	}
	var err error
	if f.Place, err = r.Finding.Prefix.Of(f.Session); err != nil {
		return nil, activities.Blockedf("CLOSEOUT_RECORDINGS_PREFIX: %w", err)
	}
	var ok bool
	if f.Owned, ok = f.Place.Own(s.AppID, archive.Below(r.Options.SourceURL, r.Options.ArchiveURL)); !ok {
		return nil, activities.Blockedf("CLOSEOUT_RECORDINGS_PREFIX makes %q of the room's name, which leads to another app's folder, to the archive or to no folder; want {{.appid}}/ in front", short(f.Place.Prefix))
	}
	since := s.RoomCloseTime.Add(-recordings.MaxDuration)
	if err := r.Finding.Ledger.EndRoom(ctx, s); err != nil {
		return nil, err
	}
	if f.Tasks, f.Lives, err = r.Finding.Ledger.RecordingsOf(ctx, s, since); err != nil || before != nil {
		return f, err
	}
	for _, life := range f.Lives {
		if begin := cmp.Or(life.Created.UnixMilli(), life.Login.UnixMilli()); life.RoomSessionID == s.RoomSessionID && begin > since.UnixMilli() {
			since = time.UnixMilli(begin)
		}
	}
	f.Refused, err = r.Finding.Ledger.UnreadableRecordings(ctx, s.AppID, s.RoomID, since)
	return f, err
}

// lookUp adds the facts that a plan needs.
func (r *Recordings) lookUp(ctx context.Context, f *recordings.Facts, p recordings.Plan, before *Manifest) error {
	if len(p.Save) > 0 {
		return r.save(ctx, f, p, before)
	}
	for _, prefix := range p.List {
		f.Objects[prefix] = nil
		for o, err := range archive.List(ctx, r.Source, prefix, false) {
			if err != nil {
				return fmt.Errorf("list the recordings in %s: %w", cmp.Or(prefix, "the bucket"), err)
			}
			if f.Keep(prefix, o.Key) {
				f.Objects[prefix] = append(f.Objects[prefix], recordings.Object{Key: o.Key, Size: o.Size, ModTime: o.ModTime})
			}
		}
	}
	for _, key := range p.Look {
		switch a, err := r.Source.Attributes(ctx, key); {
		case err == nil:
			f.Keys[key] = &recordings.Object{Key: key, Size: a.Size, ModTime: a.ModTime}
		case gcerrors.Code(err) == gcerrors.NotFound:
			f.Keys[key] = nil
		default:
			return fmt.Errorf("look for %s: %w", key, err)
		}
	}
	for _, room := range p.Rooms {
		lives, err := r.Finding.Ledger.Lives(ctx, f.Session.AppID, room.ID, room.At)
		if err != nil {
			return err
		}
		f.Rooms[room] = recordings.At(lives, room.At)
	}
	return nil
}

// save copies files from ZEGO's backup storage. It passes earlier ones too, so that no file
// takes their name.
func (r *Recordings) save(ctx context.Context, f *recordings.Facts, p recordings.Plan, before *Manifest) error {
	var items []archive.Item
	for _, file := range p.Save {
		items = append(items, archive.Item{URL: file.Reported.URL, Name: file.Name, Size: file.Reported.Size, About: about(file)})
	}
	for _, file := range p.Move {
		item, err := itemOf(file)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	files, faults := r.mover.Save(ctx, f.Folder, before, items)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, file := range p.Save {
		if err := faults[i]; err != nil {
			f.Faults[file.Reported] = recordings.Fault{Text: err.Error(), Final: errors.Is(err, archive.ErrImpossible)}
			continue
		}
		saved, err := json.Marshal(files[i])
		if err != nil {
			return fmt.Errorf("encode what was saved: %w", err)
		}
		if err := r.Finding.Ledger.SaveRecording(ctx, f.Session.AppID, file.TaskID, file.Reported.FileID, string(saved)); err != nil {
			return err
		}
		file.Reported.Saved = string(saved)
	}
	return nil
}

// itemsOf returns the items that a plan moves.
func itemsOf(p *recordings.Plan) (items []archive.Item, err error) {
	for _, file := range p.Move {
		item, err := itemOf(file)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	for _, name := range p.Lost {
		items = append(items, archive.Item{Name: name, Lost: true})
	}
	return items, nil
}

func itemOf(f recordings.File) (archive.Item, error) {
	if f.Reported != nil && f.Reported.Saved != "" {
		kept := new(archive.File)
		if err := json.Unmarshal([]byte(f.Reported.Saved), kept); err != nil {
			return archive.Item{}, fmt.Errorf("read what was saved of %s: %w", f.Name, err)
		}
		return archive.Item{Name: f.Name, Kept: kept}, nil
	}
	return archive.Item{Key: f.Object.Key, Name: f.Name, Size: f.Object.Size, About: about(f)}, nil
}

// about returns a file's metadata for the manifest.
func about(f recordings.File) archive.About {
	if f.Reported == nil {
		name, _, _ := recordings.FileName(f.Name)
		return archive.About{TaskID: f.TaskID, BeginTime: name.Begin}
	}
	return archive.About{TaskID: f.TaskID, DurationMS: f.Reported.Duration.Milliseconds(), BeginTime: f.Reported.Begin,
		UserID: f.Reported.UserID, StreamID: f.Reported.StreamID, TrackType: map[uint32]string{1: "audio", 2: "video", 3: "both"}[f.Reported.MediaTrackType]}
}
