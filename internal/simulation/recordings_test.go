package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

const (
	// lateRecordings begins the Workflow ID of runs that archive late recordings.
	lateRecordings = "late-recordings-"
	// lateAgain is the longest time until a late recording is looked at again.
	lateAgain = time.Hour
)

// rules are how long the step waits for recordings.
var rules = recordings.Rules{Grace: 3 * time.Minute, Stable: time.Minute, Poll: 10 * time.Second, Deadline: 20 * time.Minute}

// recordingOf returns a callback about a recording, whose files are in the folder of the session.
func recordingOf(c zego.Common, a action, room string, begin time.Time) *zego.Recording {
	task := fmt.Sprintf("task-%d-%d-xxxxxxxxx", a.session, a.task)[:16]
	r := &zego.Recording{Common: c, TaskID: task, RoomID: room, EventType: zego.RecordingUploading, Sequence: uint64(a.nth)}
	if a.status != 0 {
		name := fmt.Sprintf("%s_%d.mp4", task, a.file)
		folder := session.ID{AppID: c.AppID, RoomSessionID: uint64(firstSession + a.session)}.Folder()
		r.EventType = zego.RecordingUploaded
		r.Files = []zego.RecordedFile{{FileID: name, URL: "https://bucket.test/" + folder + name, Format: "mp4", Size: int64(len(content(name))), Begin: begin.Add(time.Minute), Status: a.status}}
	}
	return r
}

func content(name string) string { return strings.Repeat(name, 20+len(name)) }

// upload puts the files that a callback names into ZEGO's bucket, once.
func (k *worker) upload(a action) {
	for _, f := range k.w.event(a).(*zego.Recording).Files {
		if f.Status != zego.FileUploaded {
			continue
		}
		k.mu.Lock()
		again := k.uploads[f.FileID]
		k.uploads[f.FileID] = true
		k.mu.Unlock()
		if !again {
			k.putFile(session.ID{AppID: app, RoomSessionID: uint64(firstSession + a.session)}, f.FileID, content(f.FileID))
		}
	}
}

// putFile writes a recording of a session.
func (k *worker) putFile(id session.ID, name, content string) {
	path := filepath.Join(k.dir, "recordings", filepath.FromSlash(id.Folder()), name)
	part := filepath.Join(k.dir, name+".part") // no step must find half a file
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(part, []byte(content), 0o600), os.Rename(part, path)); err != nil {
		panic(err)
	}
}

// deletes reports whether recordings are deleted from ZEGO's bucket once they are archived.
func (k *worker) deletes() bool { return k.w.chance("deletes").IntN(2) == 0 }

// recordings returns the step that archives recordings.
func (p *workerProcess) recordings() *steps.Recordings {
	r := &steps.Recordings{Source: p.k.source, Archive: p.k.archive, Options: archive.Options{DeleteSources: p.k.deletes()}}
	if p.k.w.recorded() {
		r.Finding = steps.Finding{Ledger: p.ledger, Rules: rules}
		var copied atomic.Int64
		r.Observe = func(int64) { // copies take their time
			time.Sleep(between(p.k.w.chance("copied", p.number, int(copied.Add(1))), 0, 3*time.Second))
		}
	}
	return r
}

// maxMore bounds the files that ZEGO reports of a session at such a moment.
const maxMore = 3

// more reports another file of a session soon, while its recordings are archived or a run for
// them is started.
func (k *worker) more(id session.ID) {
	k.mu.Lock()
	var last *ledger.Event
	for _, e := range k.events {
		if e.Recording != nil && len(e.Recording.Files) > 0 && strings.Contains(e.Recording.Files[0].URL, "/"+id.Folder()) {
			last = &e
		}
	}
	n := k.reports[id]
	chance := k.w.chance("more", sessionOf(id.RoomSessionID), n)
	if last == nil || k.done || n == maxMore || chance.IntN(2) == 0 {
		k.mu.Unlock()
		return
	}
	k.reports[id]++
	k.mu.Unlock()
	k.aside(func() {
		time.Sleep(between(chance, 0, 6*time.Second))
		r := *last.Recording
		f := r.Files[0]
		f.URL = strings.TrimSuffix(f.URL, f.FileID)
		f.FileID = fmt.Sprintf("%s_more-%d.mp4", r.TaskID, n)
		f.URL, f.Size, f.Status = f.URL+f.FileID, int64(len(content(f.FileID))), zego.FileUploaded
		r.EventType, r.Sequence, r.Files = zego.RecordingUploaded, int64(10+n), []ledger.RecordedFile{f}
		e := *last
		e.Recording = &r
		k.putFile(id, f.FileID, content(f.FileID))
		if err := k.Record(context.Background(), []ledger.Event{e}); err != nil {
			k.w.broken("%v", err)
		}
	})
}

// aside calls f in a goroutine. awaitAsides waits until none is left; unlike a WaitGroup, it may
// wait while another begins.
func (k *worker) aside(f func()) {
	k.asides.Add(1)
	go func() {
		defer k.asides.Add(-1)
		f()
	}()
}

func (k *worker) awaitAsides() {
	for k.asides.Load() > 0 {
		time.Sleep(time.Second)
	}
}

// announce signals the runs that wait for recordings.
func (k *worker) announce(events []ledger.Event) {
	for _, e := range events {
		if e.Recording != nil && len(e.Recording.Files) > 0 {
			k.aside(func() { _ = k.notifier.Notify(context.Background(), e.AppID, e.Recording.TaskID, e.RoomID, e.SentAt) })
		}
	}
}

// startLate starts a run that archives late recordings, unless one is open.
func (k *worker) startLate(ctx context.Context, s session.Session) (bool, error) {
	k.more(s.ID)
	defer func() { // the answer takes its time
		k.lateStarts++
		time.Sleep(between(k.w.chance("late start", k.lateStarts), 0, 20*time.Second))
	}()
	_, err := k.client.ExecuteWorkflow(ctx, workflows.LateRecordingsOptions(s, taskQueue), workflows.LateRecordings, s)
	if started := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &started) {
		return false, nil
	}
	return err == nil, err
}

// reported returns the files of a session that the ledger's callbacks name: those that ZEGO
// uploaded, and those that it lost.
func (k *worker) reported(id session.ID) (uploaded, lost []string) {
	status := map[string]zego.FileStatus{}
	for _, e := range k.events {
		if e.Recording == nil {
			continue
		}
		for _, f := range e.Recording.Files {
			if strings.Contains(f.URL, "/"+id.Folder()) && status[f.FileID] != zego.FileUploaded {
				status[f.FileID] = f.Status
			}
		}
	}
	for name, s := range status {
		if s == zego.FileUploaded {
			uploaded = append(uploaded, name)
		} else {
			lost = append(lost, name)
		}
	}
	return uploaded, lost
}

// checkArchive checks that the newest manifest of a session lists its recordings, and that they
// are whole.
func (k *worker) checkArchive(s session.Session) error {
	m, err := archive.Latest(context.Background(), k.archive, s.Folder())
	if err != nil {
		return err
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name[strings.LastIndexByte(f.Name, '/')+1:])
	}
	if !k.w.recorded() && (!slices.Equal(names, k.files[s.ID]) || m.Number > 1) {
		return fmt.Errorf("manifest %d lists %q, want %q", m.Number, names, k.files[s.ID])
	}
	uploaded, lost := k.reported(s.ID)
	if k.w.files += len(uploaded); m.Number > 1 {
		k.w.late++
	}
	for _, name := range uploaded {
		if !slices.Contains(names, name) {
			return fmt.Errorf("manifest %d lists %q, and not %s", m.Number, names, name)
		}
	}
	for _, name := range lost {
		if !slices.Contains(names, name) && !slices.Contains(m.Lost, name) {
			return fmt.Errorf("manifest %d lists %q, and not %s, which ZEGO lost", m.Number, m.Lost, name)
		}
	}
	if slices.Sort(names); len(slices.Compact(slices.Clone(names))) < len(names) {
		return fmt.Errorf("manifest %d lists %q: one file twice", m.Number, names)
	}
	for _, f := range m.Files {
		if _, err := os.Stat(filepath.Join(k.dir, "recordings", filepath.FromSlash(f.Source))); k.deletes() == (err == nil) {
			return fmt.Errorf("%s was archived, CLOSEOUT_RECORDINGS_DELETE is %t, and looking for it in ZEGO's bucket gives %v", f.Source, k.deletes(), err)
		}
	}
	mover, err := archive.NewMover(k.source, k.archive, archive.Options{})
	if err != nil {
		return err
	}
	faults, err := mover.Verify(context.Background(), m, nil)
	if err != nil || len(faults) > 0 {
		return fmt.Errorf("the archive has the faults %v, %v", faults, err)
	}
	return nil
}
