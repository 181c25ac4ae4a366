package activities

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recording"
	"github.com/closeouthq/closeout/zego"
)

// Finding says how a session's recordings are found, and for how long they are
// waited for.
type Finding struct {
	// Ledger has what callbacks told of recordings. Without one the session's folder
	// is archived as it is, at once.
	Ledger *ledger.Ledger
	// Prefix is where else recordings lie in the bucket than in the session's folder.
	Prefix recording.Prefix
	// Grace is how long after the room's end a recording may show itself. Without one
	// that is known, nothing is waited for longer.
	Grace time.Duration
	// Stable is for how long files of which no callback tells have to stay as they are
	// to be complete.
	Stable time.Duration
	// Poll is the first pause between two looks; it grows to 15 minutes.
	Poll time.Duration
	// Deadline is after how long the step is blocked if something is missing.
	Deadline time.Duration
}

// mostPause is the longest pause between two looks: days of them fit a history.
const mostPause = 15 * time.Minute

// recorded is how long a recording may take, with what comes before and after: 48
// hours at most, and a day without a stream.
const recorded = 96 * time.Hour

// A found file is one that is to be archived.
type found struct {
	object *blob.ListObject     // in the bucket
	name   string               // below the session's recordings
	task   string               // of the recording, if that is known
	told   *ledger.RecordedFile // what a callback told of it, if one did
}

// search is a look at what there is of a session's recordings.
type search struct {
	*Recordings
	task    Task
	session recording.Session
	before  *Manifest // after which they came, if they did
	now     time.Time // by the workflow's clock
	elapsed time.Duration

	place   recording.Place
	owned   recording.Owned // the keys that it may have
	lives   []ledger.RoomLife
	known   map[string]bool        // the tasks that callbacks told of
	open    map[string]bool        // those of them that are the session's and of which nobody will tell more
	others  map[string]bool        // those of them that are another's, wherever their files are
	mine    []ledger.RecordingTask // those of them that are the session's
	found   []found
	keys    map[string]bool // of found
	loose   []found         // of which no callback told
	backup  []found         // in ZEGO's backup storage alone
	unclear []found         // there as well, and of nobody knows which session
	hurry   bool            // some of backup may be saved at the next look
	lost    []string
	missing []string // what is waited for
	stuck   []string // what waiting doesn't help
}

// note is what a search has to know of the one before it.
type note struct {
	Listing string    `json:"listing"`
	Since   time.Time `json:"since"`
}

// search looks for the session's recordings. They are all there if it gives no
// Waiting. After a manifest only those are looked for that callbacks told of.
func (r *Recordings) search(ctx context.Context, task Task, before *Manifest) (*search, *Waiting, error) {
	s := &search{Recordings: r, task: task, before: before, now: time.Now(), known: map[string]bool{}, open: map[string]bool{}, others: map[string]bool{}, keys: map[string]bool{},
		session: recording.Session{AppID: task.Session.AppID, RoomID: task.Session.RoomID, RoomSessionID: task.Session.RoomSessionID, Closed: task.Session.RoomCloseTime}}
	if w := task.Waited; w != nil {
		s.now, s.elapsed = w.Now, w.Now.Sub(w.Since)
	}
	var err error
	if s.place, err = r.Finding.Prefix.Of(s.session); err != nil {
		return nil, nil, Blocked("CLOSEOUT_RECORDINGS_PREFIX: %w", err)
	}
	var ok bool
	if s.owned, ok = s.place.Own(s.session.AppID, archive.Below(r.Options.SourceURL, r.Options.ArchiveURL)); !ok {
		return nil, nil, Blocked("CLOSEOUT_RECORDINGS_PREFIX makes %q of the room's name, which leads to another app's folder, to the archive or to no folder; want {{.appid}}/ in front", short(s.place.Prefix))
	}
	tasks, lives, err := r.Finding.Ledger.RecordingsOf(ctx, s.session.AppID, s.session.RoomID, s.session.RoomSessionID, s.session.Closed, s.session.Closed.Add(-recorded))
	if err != nil {
		return nil, nil, err
	}
	s.lives = lives
	for _, t := range tasks {
		s.told(t)
	}
	if len(tasks) > 0 && activity.GetInfo(ctx).IsLocalActivity {
		return nil, nil, ErrNotQuick
	}
	// First of all, whatever becomes of the bucket: it may be for that very fault of the
	// bucket's that ZEGO couldn't upload.
	if err := s.save(ctx); err != nil {
		return nil, nil, err
	}
	for _, t := range s.mine {
		if err := s.files(ctx, t); err != nil {
			return nil, nil, err
		}
	}
	if before == nil {
		if err := s.list(ctx); err != nil {
			return nil, nil, err
		}
	}
	if before == nil {
		if err := s.unreadable(ctx); err != nil {
			return nil, nil, err
		}
	}
	waiting, err := s.wait()
	return s, waiting, err
}

// unreadable has a person asked about recordings of which ZEGO told in a callback that
// was refused, and that may be the session's.
func (s *search) unreadable(ctx context.Context) error {
	since := s.session.Closed.Add(-recorded)
	for _, life := range s.lives {
		if begin := cmp.Or(life.Created.UnixMilli(), life.Login.UnixMilli()); life.RoomSessionID == s.session.RoomSessionID && begin > since.UnixMilli() {
			since = time.UnixMilli(begin)
		}
	}
	all, err := s.Finding.Ledger.UnreadableRecordings(ctx, s.session.AppID, s.session.RoomID, since)
	for _, u := range all {
		s.stick("recording task %q, of which ZEGO told in a callback that was refused: %s: %s", u.TaskID, u.Field, u.Problem)
	}
	return err
}

// told considers a task that callbacks told of.
func (s *search) told(t ledger.RecordingTask) {
	of, candidates := recording.Whose(s.session, s.lives, t)
	s.known[t.TaskID] = true
	switch of {
	case recording.Another:
		// What is in the session's folder is the session's, unless a person or the app
		// says that it is another's. Of no session, it is nobody else's.
		there := t
		there.Files = []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{URL: "/" + SessionFolder(s.task.Session)}}}
		of, _ = recording.Whose(s.session, s.lives, there)
		s.others[t.TaskID] = of == recording.Another && !(t.Assigned && t.RoomSessionID == 0)
	case recording.Maybe:
		if s.before == nil { // else its files will tell
			s.miss("recording task %s, which may be the session's and of which no file was told yet", t.TaskID)
		}
	case recording.Ambiguous:
		s.stick("recording task %s may be of session %s; assign it to one", t.TaskID, either(candidates))
		for i := range t.Files {
			if f := &t.Files[i]; f.Status == zego.FileInBackup && f.Saved == "" {
				s.unclear = append(s.unclear, found{name: f.FileID, task: t.TaskID, told: f})
			}
		}
	case recording.Mine:
		s.mine = append(s.mine, t)
		switch {
		case t.Uploaded:
		case t.Assigned: // a person says that nothing more will be told
			s.open[t.TaskID] = true
		default:
			s.miss("recording task %s, of which no callback has told that it was uploaded", t.TaskID)
		}
		for i := range t.Files {
			f := &t.Files[i]
			if s.listed(t, f) || f.Saved == "" && f.Status != zego.FileInBackup {
				continue
			}
			backup := found{name: f.FileID, task: t.TaskID, told: f}
			if s.found = append(s.found, backup); f.Saved == "" {
				s.backup = append(s.backup, backup)
			}
		}
	}
}

// listed says that a file is archived. Its source may be deleted.
func (s *search) listed(t ledger.RecordingTask, f *ledger.RecordedFile) bool {
	return s.before != nil && slices.ContainsFunc(s.before.Files, func(there File) bool {
		return there.TaskID == t.TaskID && strings.HasSuffix("/"+there.Source, "/"+f.FileID)
	})
}

func (s *search) miss(format string, args ...any) {
	s.missing = append(s.missing, short(fmt.Sprintf(format, args...)))
}

func (s *search) stick(format string, args ...any) {
	s.stuck = append(s.stuck, short(fmt.Sprintf(format, args...)))
}

func either(sessions []uint64) string {
	var words []string
	for _, id := range sessions {
		words = append(words, fmt.Sprint(id))
	}
	return strings.Join(words, " or ")
}

// files considers the files of a task that is the session's.
func (s *search) files(ctx context.Context, t ledger.RecordingTask) error {
	if !zego.ValidTaskID(t.TaskID) {
		s.stick("%q isn't the ID of a recording task", short(t.TaskID))
		return nil
	}
	folders := s.folders(t)
	objects, below := map[string]*blob.ListObject{}, map[string]string{}
	for _, folder := range folders {
		if !s.owned.Has(folder + t.TaskID + "_") {
			continue
		}
		for object, err := range s.objects(ctx, folder+t.TaskID+"_") {
			if err != nil {
				return err
			}
			if objects[object.Key] == nil && s.owned.Has(object.Key) {
				objects[object.Key], below[object.Key] = object, strings.TrimPrefix(object.Key, folder)
			}
		}
	}
	for i := range t.Files {
		f := &t.Files[i]
		switch {
		case s.listed(t, f), f.Saved != "", f.Status == zego.FileInBackup:
			// It was considered before.
		case f.Status == zego.FileUploaded:
			object, err := s.locate(ctx, t.TaskID, objects, f)
			switch {
			case err != nil:
				return err
			case object == nil:
				s.miss("%s, which was uploaded by ZEGO's word%s and isn't in the bucket", short(f.FileID), contradiction(f))
			case f.Size != 0 && f.Format != "hls" && object.Size != f.Size:
				s.miss("%s, which has %d bytes in the bucket and %d by ZEGO's word", f.FileID, object.Size, f.Size)
			default:
				s.take(found{object: object, name: f.FileID, task: t.TaskID, told: f})
			}
		case f.Status == zego.FileFailed:
			s.lost = append(s.lost, f.FileID)
		default:
			s.miss("%s, which has the unknown status %d", f.FileID, f.Status)
		}
	}
	// What it has beside them: the parts of a playlist, the sound waves.
	for key, object := range objects {
		if t.Uploaded {
			s.take(found{object: object, name: below[key], task: t.TaskID})
		}
	}
	return nil
}

// contradiction says what another callback said of a file.
func contradiction(f *ledger.RecordedFile) string {
	if f.Contradicted == 0 {
		return ""
	}
	return fmt.Sprintf(" (a later callback says status %d)", f.Contradicted)
}

// maxFolders is in how many folders the files of a task are looked for: it has one,
// its OutputFolder, which URLs write with the bucket in front or without.
const maxFolders = 8

// folders are where the files of a task may be, the likeliest first.
func (s *search) folders(t ledger.RecordingTask) []string {
	folders := []string{SessionFolder(s.task.Session), s.place.Prefix, ""}
	for i := range t.Files {
		for _, folder := range s.foldersOf(&t.Files[i]) {
			if len(folders) < maxFolders && !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		}
	}
	return slices.Concat(folders[3:], folders[:3])
}

// foldersOf are those that the file's URL may mean, of which the first part may be
// the bucket.
func (s *search) foldersOf(f *ledger.RecordedFile) (folders []string) {
	folder, ok := strings.CutSuffix(strings.TrimPrefix(recording.Path(f.URL), "/"), f.FileID)
	if !ok {
		return nil
	}
	_, below, _ := strings.Cut(folder, "/")
	for _, folder := range []string{folder, below} {
		if s.owned.Has(folder + f.FileID) {
			folders = append(folders, folder)
		}
	}
	return folders
}

// locate finds a file in one of the folders; nil if it isn't there.
func (s *search) locate(ctx context.Context, taskID string, objects map[string]*blob.ListObject, f *ledger.RecordedFile) (*blob.ListObject, error) {
	folders := append(s.foldersOf(f), SessionFolder(s.task.Session), s.place.Prefix, "")
	for _, folder := range folders {
		if object := objects[folder+f.FileID]; object != nil {
			return object, nil
		}
	}
	if name, _, ok := fileName(f.FileID); strings.HasPrefix(f.FileID, taskID+"_") || ok && name.TaskID != taskID {
		return nil, nil // it would have been listed, or is another task's
	}
	for _, folder := range folders { // its name isn't by the rule
		if !s.owned.Has(folder + f.FileID) {
			continue
		}
		switch a, err := s.Source.Attributes(ctx, folder+f.FileID); {
		case err == nil:
			return &blob.ListObject{Key: folder + f.FileID, Size: a.Size, ModTime: a.ModTime}, nil
		case gcerrors.Code(err) != gcerrors.NotFound:
			return nil, fmt.Errorf("look for %s: %w", folder+f.FileID, err)
		}
	}
	return nil, nil
}

// take adds an object once.
func (s *search) take(f found) bool {
	if s.keys[f.object.Key] {
		return false
	}
	s.keys[f.object.Key] = true
	if name, ok := strings.CutPrefix(f.object.Key, SessionFolder(s.task.Session)); ok {
		f.name = name
	}
	s.found = append(s.found, f)
	return true
}

// list considers what is in the bucket and no callback has told of.
func (s *search) list(ctx context.Context) error {
	folder := SessionFolder(s.task.Session)
	for object, err := range s.objects(ctx, folder) {
		if err != nil {
			return err
		}
		below := strings.TrimPrefix(object.Key, folder)
		if name, _, _ := fileName(below); s.others[name.TaskID] {
			continue
		}
		s.loosely(object, below)
	}
	prefix := s.place.Prefix
	if strings.HasPrefix(prefix, folder) {
		return nil
	}
	for object, err := range s.objects(ctx, prefix) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(object.Key, folder) || !s.owned.Has(object.Key) {
			continue
		}
		below := strings.TrimPrefix(object.Key, prefix)
		if s.place.OfSession {
			s.loosely(object, below)
			continue
		}
		name, inside, ok := fileName(below)
		if !ok || !name.OfRoom(s.session.RoomID) || s.archives(prefix+inside) {
			continue
		}
		if s.known[name.TaskID] {
			if s.open[name.TaskID] {
				s.loosely(object, below)
			}
			continue
		}
		of, candidates := recording.Began(s.session, s.lives, name.Begin, prefix+inside)
		if of == recording.Another {
			continue
		}
		if !s.place.OfRoom {
			others, err := s.rooms(ctx, name)
			if err != nil {
				return err
			}
			if len(others) > 0 {
				of, candidates = recording.Ambiguous, append(append([]uint64{s.session.RoomSessionID}, candidates...), others...)
			}
		}
		if of == recording.Ambiguous {
			slices.Sort(candidates)
			s.stick("%s may be of session %s; move it to the folder <appid>/<room_session_id>/ of one", object.Key, either(slices.Compact(candidates)))
			continue
		}
		s.loosely(object, below)
	}
	return nil
}

// fileName takes apart the name of a recording that is in some folder, and gives
// that. In a room's name may be slashes, too.
func fileName(key string) (name zego.FileName, folder string, ok bool) {
	for at := 0; ; {
		if name, ok = zego.ParseFileName(key[at:]); ok {
			return name, key[:at], true
		}
		next := strings.IndexByte(key[at:], '/') + 1
		if next == 0 {
			return zego.FileName{}, "", false
		}
		at += next
	}
}

// archives says that a folder is one of an archive, which may be in the same bucket.
func (s *search) archives(folder string) bool {
	parts := strings.Split(folder, "/")
	for i := 2; i < len(parts); i++ {
		if _, err := strconv.ParseUint(parts[i-1], 10, 64); err == nil && parts[i] == "recordings" && parts[i-2] == strconv.FormatUint(uint64(s.session.AppID), 10) {
			return true
		}
	}
	return false
}

// rooms are the sessions of other rooms that a file may be of by its name.
func (s *search) rooms(ctx context.Context, name zego.FileName) (sessions []uint64, err error) {
	for i, c := range name.Middle {
		room := name.Middle[:i]
		if c != '_' || i == 0 || room == s.session.RoomID {
			continue
		}
		lives, err := s.Finding.Ledger.Lives(ctx, s.session.AppID, room, name.Begin)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, recording.At(lives, name.Begin)...)
	}
	return sessions, nil
}

// loosely takes an object of which no callback told.
func (s *search) loosely(object *blob.ListObject, name string) {
	parts, _, _ := fileName(name)
	f := found{object: object, name: name, task: parts.TaskID}
	if s.take(f) {
		s.loose = append(s.loose, f)
	}
}

// save takes out of ZEGO's backup storage what nobody has yet: it keeps it for some
// days only.
func (s *search) save(ctx context.Context) error {
	if len(s.backup) == 0 {
		return nil
	}
	items := make([]archive.Item, 0, len(s.found))
	for _, f := range s.backup {
		items = append(items, archive.Item{URL: f.told.URL, Name: f.name, Size: f.told.Size, About: f.about()})
	}
	for _, f := range s.found {
		if f.told != nil && f.told.Saved != "" {
			item, err := f.item()
			if err != nil {
				return err
			}
			items = append(items, item)
		}
	}
	files, faults := s.mover.Save(ctx, SessionFolder(s.task.Session), s.before, items)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var unsaved []found
	for i, f := range s.backup {
		if cause := faults[i]; cause != nil {
			unsaved = append(unsaved, f)
			if recording.Left(*f.told, s.now) <= 0 || errors.Is(cause, archive.ErrImpossible) {
				s.stick("%s is in ZEGO's backup storage until %s and can't be saved: %v", f.name, f.told.Told.Add(zego.BackupKept).Format(time.RFC3339), cause)
			} else {
				s.hurry = true
				s.miss("%s, which is in ZEGO's backup storage and can't be saved yet: %v", f.name, cause)
			}
			continue
		}
		saved, err := json.Marshal(files[i])
		if err != nil {
			return fmt.Errorf("encode what was saved: %w", err)
		}
		if err := s.Finding.Ledger.SaveRecording(ctx, s.session.AppID, f.task, f.told.FileID, string(saved)); err != nil {
			return err
		}
		f.told.Saved = string(saved)
	}
	s.backup = unsaved
	return nil
}

// items are what is to be moved.
func (s *search) items() (items []archive.Item, err error) {
	for _, f := range s.found {
		item, err := f.item()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	for _, name := range s.lost {
		items = append(items, archive.Item{Name: name, Lost: true})
	}
	return items, nil
}

// item is what is to be moved.
func (f found) item() (archive.Item, error) {
	if f.told != nil && f.told.Saved != "" {
		kept := new(archive.File)
		if err := json.Unmarshal([]byte(f.told.Saved), kept); err != nil {
			return archive.Item{}, fmt.Errorf("read what was saved of %s: %w", f.name, err)
		}
		return archive.Item{Name: f.name, Kept: kept}, nil
	}
	return archive.Item{Key: f.object.Key, Name: f.name, Size: f.object.Size, About: f.about()}, nil
}

// about is what is known of it.
func (f found) about() archive.About {
	about := archive.About{TaskID: f.task}
	if f.told == nil {
		if name, _, ok := fileName(f.name); ok {
			about.BeginTime = name.Begin
		}
		return about
	}
	about.DurationMS, about.BeginTime = f.told.Duration.Milliseconds(), f.told.Begin
	about.UserID, about.StreamID = f.told.UserID, f.told.StreamID
	about.TrackType = map[uint32]string{1: "audio", 2: "video", 3: "both"}[f.told.MediaTrackType]
	return about
}

// taken notes whose the recordings are that were archived, so that no other session
// takes them.
func (r *Recordings) taken(ctx context.Context, s Session, m Manifest, found *search) error {
	var tasks []string
	if found != nil {
		for _, t := range found.mine {
			tasks = append(tasks, t.TaskID)
		}
	}
	for _, f := range m.Files {
		if f.TaskID != "" && !slices.Contains(tasks, f.TaskID) {
			tasks = append(tasks, f.TaskID)
		}
	}
	return r.Finding.Ledger.ArchivedRecordings(ctx, ledger.ArchivedSession{AppID: s.AppID, RoomID: s.RoomID, RoomSessionID: s.RoomSessionID,
		CloseReason: uint32(s.CloseReason), RoomCloseTime: s.RoomCloseTime, Reconciled: s.Reconciled}, tasks)
}

// wait says whether there is something to wait for, and blocks where waiting won't
// help.
func (s *search) wait() (*Waiting, error) {
	f := s.Finding
	var before note
	if w := s.task.Waited; w != nil {
		_ = json.Unmarshal([]byte(w.Note), &before) // what can't be read is as if nothing had been there
	}
	now := note{fingerprint(s.loose), s.now}
	if now.Listing == before.Listing {
		now.Since = before.Since
	}
	noted, err := json.Marshal(now)
	if err != nil {
		return nil, fmt.Errorf("encode what was found: %w", err)
	}
	again := func(pause time.Duration, what string) *Waiting {
		until := s.now.Add(f.Deadline - s.elapsed).UTC().Format(time.RFC3339)
		return &Waiting{For: what + s.keeps() + ", until " + until, Pause: max(pause, time.Second), Note: string(noted)}
	}
	grown := f.Poll << min(s.times(), 20)
	if grown <= 0 || grown > mostPause {
		grown = mostPause
	}
	left := f.Deadline - s.elapsed
	early := f.Grace - s.elapsed
	if s.before != nil {
		early = 0 // what is looked for has shown itself
	}
	switch {
	// Who is blocked doesn't look again, and what isn't saved in time is lost.
	case len(s.stuck) > 0 && early <= 0 && (!s.hurry || left <= 0):
		return nil, Blocked("%s%s", sentence(slices.Concat(s.stuck, s.missing)), s.keeps())
	case len(s.missing) > 0 && left <= 0:
		return nil, Blocked("not all of the recordings are there after %v; missing: %s%s", f.Deadline, sentence(s.missing), s.keeps())
	case len(s.missing) > 0:
		return again(min(grown, left), sentence(slices.Concat(s.stuck, s.missing))), nil
	case early > 0:
		return again(early, "recordings that begin to show"), nil
	}
	if stays := f.Stable - s.now.Sub(now.Since); len(s.loose) > 0 && stays > 0 {
		if left <= 0 {
			return nil, Blocked("the files in the bucket still change after %v", f.Deadline)
		}
		return again(min(stays, max(left, time.Second)), fmt.Sprintf("%d files in the bucket to stay as they are", len(s.loose))), nil
	}
	return nil, nil
}

func (s *search) times() int {
	if s.task.Waited == nil {
		return 0
	}
	return s.task.Waited.Times
}

// keeps says how long ZEGO keeps what isn't saved.
func (s *search) keeps() string {
	kept, first := 0, zego.BackupKept
	for _, f := range slices.Concat(s.backup, s.unclear) {
		if left := recording.Left(*f.told, s.now); left > 0 {
			kept++
			first = min(first, left)
		}
	}
	if kept == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d in ZEGO's backup storage, for %d h more)", kept, int(first.Hours()))
}

// sentence names a few.
func sentence(what []string) string {
	const most = 5
	if more := len(what) - most; more > 0 {
		return strings.Join(what[:most], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(what, "; ")
}

// fingerprint is the same as long as the objects are.
func fingerprint(files []found) string {
	if len(files) == 0 {
		return ""
	}
	files = slices.SortedFunc(slices.Values(files), func(a, b found) int { return cmp.Compare(a.object.Key, b.object.Key) })
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d %d\n", f.object.Key, f.object.Size, f.object.ModTime.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
