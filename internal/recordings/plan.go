package recordings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Rules set how long a step waits for recordings.
type Rules struct {
	// Grace is how long after the end of the room the step waits for a first sign of a
	// recording.
	Grace time.Duration
	// Stable is how long files without a callback must stay unchanged to count as complete.
	Stable time.Duration
	// Poll is the first pause between two attempts. It grows to 15 minutes.
	Poll time.Duration
	// Deadline is how long the step waits for missing files.
	Deadline time.Duration
}

// maxPause is the longest pause between two attempts. Days of them fit into a history.
const maxPause = 15 * time.Minute

// MaxDuration bounds a recording with the time before and after it: 48 hours at most, plus
// a day without a stream.
const MaxDuration = 96 * time.Hour

// Facts are the input of a [Plan]. The first block comes from the ledger. The second block
// holds the results of earlier lookups.
type Facts struct {
	Session session.Session
	Folder  string // the session's own, "<appid>/<room_session_id>/"
	Place   Place
	Owned   Owned
	Lives   []ledger.RoomLife
	Tasks   []ledger.RecordingTask
	Refused []ledger.UnreadableCallback
	Named   bool      // whether Tasks includes all tasks that ZEGO's API lists for the room
	Late    bool      // whether there is a manifest; then only announced files are added
	Listed  []Listed  // the files of the manifest
	Waited  Waited    // the earlier attempts
	Now     time.Time // of the Workflow's clock

	Faults  map[*ledger.RecordedFile]Fault // why a file could not be saved
	Objects map[string][]Object            // by listed prefix
	Keys    map[string]*Object             // by looked-up key; nil if there is no object
	Rooms   map[Room][]uint64              // sessions of other rooms at a time
}

// Listed is a file that a manifest lists.
type Listed struct{ TaskID, Source string }

// Waited describes the earlier attempts and holds the note of the last one.
type Waited struct {
	Elapsed time.Duration
	Times   int
	Note    string
}

// Fault is why a file could not be saved from ZEGO's backup storage.
type Fault struct {
	Text  string
	Final bool // whether a retry is useless
}

// Object is an object in the bucket.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time
}

// Room names a room at a time.
type Room struct {
	ID string
	At time.Time
}

// File is a file of the session.
type File struct {
	Object   Object               // without a key if it is in ZEGO's backup storage, or saved
	Name     string               // relative to the session's recordings
	TaskID   string               // empty if unknown
	Reported *ledger.RecordedFile // from its callback; nil without one
}

// Plan says what to do about a session's recordings. If the first block is not empty, look
// those up and plan again; the second block is not decided yet.
type Plan struct {
	Save  []File   // files to save from ZEGO's backup storage first
	List  []string // prefixes to list
	Look  []string // keys to look up
	Rooms []Room   // rooms to look up sessions of

	Move    []File                 // files to archive
	Lost    []string               // files that ZEGO did not upload
	Mine    []ledger.RecordingTask // tasks of the session
	Blocked string                 // why an operator has to decide, or empty
	Wait    *Wait                  // what to wait for, or nil
}

// Wait says what to wait for.
type Wait struct {
	For   string
	Pause time.Duration
	Note  string
	Early bool // nothing is known to be missing yet
}

// needs reports whether the plan needs lookups.
func (p *Plan) needs() bool { return len(p.Save)+len(p.List)+len(p.Look)+len(p.Rooms) > 0 }

// planner makes a Plan.
type planner struct {
	Facts
	Plan
	tasks   []*ledger.RecordingTask // of the session
	known   map[string]bool         // tasks with callbacks
	open    map[string]bool         // tasks of the session that have not ended
	others  map[string]bool         // tasks of other sessions
	taken   map[string]bool         // keys of Move
	loose   []Object                // objects of Move without a callback
	backup  []*ledger.RecordedFile  // files only in ZEGO's backup storage
	retry   bool                    // whether a retry may save some of backup
	missing []string                // what to wait for
	stuck   []string                // what an operator has to decide
}

// Plan returns what to do. It depends on the facts alone.
func (r Rules) Plan(f Facts) Plan {
	p := &planner{Facts: f, known: map[string]bool{}, open: map[string]bool{}, others: map[string]bool{}, taken: map[string]bool{}}
	for i := range f.Tasks {
		p.task(&f.Tasks[i])
	}
	// Save first, even if the bucket fails: its failure may be why ZEGO could not upload.
	if p.needs() {
		return p.Plan
	}
	for _, t := range p.tasks {
		p.files(t)
	}
	if !f.Late {
		p.objects()
		for _, u := range f.Refused {
			p.stick("recording task %q: its callback was refused: %s: %s", u.TaskID, u.Field, u.Problem)
		}
	}
	if !p.needs() {
		p.decide(r)
	}
	return p.Plan
}

func (p *planner) miss(format string, args ...any) {
	p.missing = append(p.missing, printable.Foreign(fmt.Sprintf(format, args...), maxName))
}

func (p *planner) stick(format string, args ...any) {
	p.stuck = append(p.stuck, printable.Foreign(fmt.Sprintf(format, args...), maxName))
}

// task adds a task with callbacks to the plan.
func (p *planner) task(t *ledger.RecordingTask) {
	of, candidates := Match(p.Session, p.Lives, *t)
	p.known[t.TaskID] = true
	switch of {
	case Another:
		// Files in the session's folder belong to the session, unless an operator or the app
		// has assigned the task to another one.
		there := *t
		there.Files = []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{URL: "/" + p.Folder}}}
		of, _ = Match(p.Session, p.Lives, there)
		p.others[t.TaskID] = of == Another && !(t.Assigned && t.RoomSessionID == 0)
	case Maybe:
		if !p.Late { // otherwise its files decide
			p.miss("recording task %s: it may be of this session, and no file is reported yet", t.TaskID)
		}
	case Ambiguous:
		p.stick("recording task %s may be of session %s; assign it to one", t.TaskID, either(candidates))
		for i := range t.Files {
			if f := &t.Files[i]; f.Status == zego.FileInBackup && f.Saved == "" {
				p.backup = append(p.backup, f)
			}
		}
	case Mine:
		p.tasks = append(p.tasks, t)
		p.Mine = append(p.Mine, *t)
		switch {
		case t.Uploaded:
		case t.Assigned && !t.Announced: // an operator expects no more callbacks of it
			p.open[t.TaskID] = true
		default:
			p.miss("recording task %s: no callback has reported its upload", t.TaskID)
		}
		for i := range t.Files {
			if f := &t.Files[i]; !p.listed(t, f) && (f.Saved != "" || f.Status == zego.FileInBackup) {
				p.backedUp(t, f)
			}
		}
	}
}

// backedUp adds a file that is or was in ZEGO's backup storage.
func (p *planner) backedUp(t *ledger.RecordingTask, f *ledger.RecordedFile) {
	file := File{Name: f.FileID, TaskID: t.TaskID, Reported: f}
	fault, tried := p.Faults[f]
	switch {
	case f.Saved != "":
		p.Move = append(p.Move, file)
		return
	case !tried:
		p.Save = append(p.Save, file)
	case Left(*f, p.Now) <= 0 || fault.Final:
		p.stick("%s: in ZEGO's backup storage until %s, can't be saved: %s", f.FileID, f.ReportedAt.Add(zego.BackupKept).Format(time.RFC3339), fault.Text)
	default:
		p.retry = true
		p.miss("%s: in ZEGO's backup storage, not saved yet: %s", f.FileID, fault.Text)
	}
	p.backup = append(p.backup, f)
}

// listed reports whether the manifest lists a file. Its source may be deleted.
func (p *planner) listed(t *ledger.RecordingTask, f *ledger.RecordedFile) bool {
	return isListed(p.Listed, t.TaskID, f)
}

func isListed(listed []Listed, taskID string, f *ledger.RecordedFile) bool {
	return slices.ContainsFunc(listed, func(there Listed) bool {
		return there.TaskID == taskID && strings.HasSuffix("/"+there.Source, "/"+f.FileID)
	})
}

// AllListed reports whether a manifest with these files lists all files of a task, or lists them
// as lost.
func AllListed(t ledger.RecordingTask, listed []Listed, lost []string) bool {
	for i := range t.Files {
		f := &t.Files[i]
		if !isListed(listed, t.TaskID, f) && (f.Status != zego.FileFailed || !slices.Contains(lost, f.FileID)) {
			return false
		}
	}
	return true
}

// files adds the files of a task of the session.
func (p *planner) files(t *ledger.RecordingTask) {
	if !zego.ValidTaskID(t.TaskID) {
		p.stick("%q isn't the ID of a recording task", t.TaskID)
		return
	}
	objects, below := map[string]Object{}, map[string]string{}
	for _, folder := range p.folders(t) {
		if !p.Owned.Has(folder + t.TaskID + "_") {
			continue
		}
		for _, o := range p.list(folder + t.TaskID + "_") {
			if _, ok := objects[o.Key]; !ok {
				objects[o.Key], below[o.Key] = o, strings.TrimPrefix(o.Key, folder)
			}
		}
	}
	if p.needs() {
		return
	}
	for i := range t.Files {
		f := &t.Files[i]
		switch {
		case p.listed(t, f), f.Saved != "", f.Status == zego.FileInBackup: // considered before
		case f.Status == zego.FileUploaded:
			o, ok := p.locate(t.TaskID, objects, f)
			switch {
			case !ok:
				contradiction := ""
				if f.Contradicted != 0 {
					contradiction = fmt.Sprintf(" (a later callback says status %d)", f.Contradicted)
				}
				p.miss("%s, which was uploaded by ZEGO's word%s and isn't in the bucket", printable.Foreign(f.FileID, maxName/2), contradiction)
			case f.Size != 0 && f.Format != "hls" && o.Size != f.Size:
				p.miss("%s, which has %d bytes in the bucket and %d by ZEGO's word", printable.Foreign(f.FileID, maxName/2), o.Size, f.Size)
			default:
				p.take(File{Object: o, Name: f.FileID, TaskID: t.TaskID, Reported: f})
			}
		case f.Status == zego.FileFailed:
			p.Lost = append(p.Lost, f.FileID)
		default:
			p.miss("%s, which has the unknown status %d", printable.Foreign(f.FileID, maxName/2), f.Status)
		}
	}
	if t.Uploaded { // files without a callback, such as the parts of a playlist
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			p.take(File{Object: objects[key], Name: below[key], TaskID: t.TaskID})
		}
	}
}

// list returns the objects below a prefix, or adds the prefix to the lookups.
func (p *planner) list(prefix string) []Object {
	objects, ok := p.Objects[prefix]
	if !ok && !slices.Contains(p.List, prefix) {
		p.List = append(p.List, prefix)
	}
	return objects
}

// maxFolders bounds the folders in which to look for a task's files. A task has one, its
// OutputFolder, but URLs may or may not begin with the bucket.
const maxFolders = 8

// folders returns the possible folders of a task's files, likeliest first.
func (p *planner) folders(t *ledger.RecordingTask) []string {
	folders := []string{p.Folder, p.Place.Prefix, ""}
	for i := range t.Files {
		for _, folder := range p.foldersOf(&t.Files[i]) {
			if len(folders) < maxFolders && !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		}
	}
	return slices.Concat(folders[3:], folders[:3])
}

// foldersOf returns the folders that the file's URL may name. Its first part may be the
// bucket.
func (p *planner) foldersOf(f *ledger.RecordedFile) (folders []string) {
	folder, ok := strings.CutSuffix(strings.TrimPrefix(Path(f.URL), "/"), f.FileID)
	if !ok {
		return nil
	}
	_, below, _ := strings.Cut(folder, "/")
	for _, folder := range []string{folder, below} {
		if p.Owned.Has(folder + f.FileID) {
			folders = append(folders, folder)
		}
	}
	return folders
}

// locate returns the object of a file in one of the task's folders.
func (p *planner) locate(taskID string, objects map[string]Object, f *ledger.RecordedFile) (Object, bool) {
	folders := append(p.foldersOf(f), p.Folder, p.Place.Prefix, "")
	for _, folder := range folders {
		if o, ok := objects[folder+f.FileID]; ok {
			return o, true
		}
	}
	if name, _, ok := FileName(f.FileID); strings.HasPrefix(f.FileID, taskID+"_") || ok && name.TaskID != taskID {
		return Object{}, false // not uploaded yet, or of another task
	}
	for _, folder := range folders { // the name does not follow the pattern
		key := folder + f.FileID
		if !p.Owned.Has(key) {
			continue
		}
		switch o, ok := p.Keys[key]; {
		case !ok:
			p.Look = append(p.Look, key)
			return Object{}, false
		case o != nil:
			return *o, true
		}
	}
	return Object{}, false
}

// take adds a file to Move unless its object is there already.
func (p *planner) take(f File) bool {
	if p.taken[f.Object.Key] {
		return false
	}
	p.taken[f.Object.Key] = true
	if name, ok := strings.CutPrefix(f.Object.Key, p.Folder); ok {
		f.Name = name
	}
	p.Move = append(p.Move, f)
	return true
}
