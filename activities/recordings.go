package activities

import (
	"bytes"
	"context"
	"crypto/md5" // #nosec G501 -- the checksum that object stores keep.
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/closeouthq/closeout/zego"
)

// Recordings moves a session's recordings to where they are kept.
type Recordings struct {
	// Source is the bucket that ZEGO's cloud recording uploads to. A session's
	// files are those below [SessionFolder].
	Source *blob.Bucket
	// Archive is the bucket that keeps them. A session's files go to
	// SessionFolder + "recordings/", with a [Manifest] at [ManifestKey].
	Archive *blob.Bucket
	// Observe, if set, is told of each file that was copied, and its size in bytes.
	Observe func(size int64)
}

// SessionFolder is where a session's objects lie in both buckets:
// "<appid>/<room_session_id>/". An app that starts a recording sets the task's
// OutputFolder to it, as nothing else in a recording tells the session.
func SessionFolder(s Session) string {
	return strconv.FormatUint(uint64(s.AppID), 10) + "/" + strconv.FormatUint(s.RoomSessionID, 10) + "/"
}

// ManifestKey is where the archive has a session's [Manifest].
func ManifestKey(s Session) string { return SessionFolder(s) + "manifest.json" }

// Manifest lists what was archived of a session. It is written last, so that an
// archive that has one is complete, and made of the session and its files alone,
// so that it is the same whoever writes it, and when.
type Manifest struct {
	// Version is the version of this format, 1.
	Version int `json:"version"`
	// AppID, RoomID and RoomSessionID name the session.
	AppID         uint32 `json:"appid"`
	RoomID        string `json:"room_id"`
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason and RoomCloseTime say how and when it ended.
	CloseReason   zego.CloseReason `json:"close_reason"`
	RoomCloseTime time.Time        `json:"room_close_time"`
	// Files are the recordings, by name.
	Files []File `json:"files"`
}

// File is one archived recording.
type File struct {
	// Name is its key in the archive.
	Name string `json:"name"`
	// Source is its key in the bucket that it was copied from.
	Source string `json:"source"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is of its content, in hex.
	SHA256 string `json:"sha256"`
}

// Archived is what came of archiving a session.
type Archived struct {
	// Manifest is the manifest's key in the archive.
	Manifest string `json:"manifest"`
	// Files is how many recordings there are.
	Files int `json:"files"`
	// Bytes is how large they are together.
	Bytes int64 `json:"bytes"`
}

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

// errStopping makes room for another worker: with the files that are finished in
// its heartbeat, the next attempt goes on from there.
var errStopping = errors.New("the worker is stopping, the next attempt goes on from here")

// ArchiveRecordings copies the session's recordings to the archive, checks each
// and writes the manifest. It heartbeats. After a crash it goes on where it was,
// and where there is a manifest there is nothing left to do.
func (r *Recordings) ArchiveRecordings(ctx context.Context, task Task) (Archived, error) {
	s := task.Session
	folder := SessionFolder(s)
	manifestKey := ManifestKey(s)
	manifest, err := r.manifest(ctx, manifestKey)
	if err == nil {
		return manifest.Archived(), nil
	}
	if gcerrors.Code(err) != gcerrors.NotFound {
		return Archived{}, fmt.Errorf("read the manifest %s: %w", manifestKey, err)
	}

	manifest = Manifest{1, s.AppID, s.RoomID, s.RoomSessionID, s.CloseReason, s.RoomCloseTime, []File{}}
	progress := resume(ctx)
	for list := r.Source.List(&blob.ListOptions{Prefix: folder}); ; {
		object, err := list.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Archived{}, fmt.Errorf("list the recordings in %s: %w", folder, err)
		}
		if strings.HasSuffix(object.Key, "/") { // what object stores show as a folder
			continue
		}
		name := folder + "recordings/" + strings.TrimPrefix(object.Key, folder)
		file, done := progress.finished(object, name)
		if !done {
			if file, err = r.archive(ctx, progress, object, name); err != nil {
				return Archived{}, fmt.Errorf("archive %s: %w", object.Key, err)
			}
			progress.finish(ctx, file)
		}
		manifest.Files = append(manifest.Files, file)
	}

	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return Archived{}, fmt.Errorf("encode the manifest: %w", err)
	}
	if err := r.Archive.WriteAll(ctx, manifestKey, append(b, '\n'), &blob.WriterOptions{ContentType: "application/json"}); err != nil {
		return Archived{}, fmt.Errorf("write the manifest %s: %w", manifestKey, err)
	}
	return manifest.Archived(), nil
}

// Archived says what the manifest lists.
func (m Manifest) Archived() Archived {
	a := Archived{Manifest: ManifestKey(Session{AppID: m.AppID, RoomSessionID: m.RoomSessionID}), Files: len(m.Files)}
	for _, f := range m.Files {
		a.Bytes += f.Size
	}
	return a
}

func (r *Recordings) manifest(ctx context.Context, key string) (m Manifest, err error) {
	b, err := r.Archive.ReadAll(ctx, key)
	if err != nil {
		return m, err
	}
	err = json.Unmarshal(b, &m)
	return m, err
}

// archive sees to it that the archive has the object under the name, whole.
func (r *Recordings) archive(ctx context.Context, progress *progress, object *blob.ListObject, name string) (File, error) {
	want := File{Name: name, Source: object.Key, Size: object.Size}
	stored, err := r.Archive.Attributes(ctx, name)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return r.copy(ctx, progress, object, want)
	case err != nil:
		return File{}, fmt.Errorf("look for %s in the archive: %w", name, err)
	case stored.Size != object.Size:
		return r.copy(ctx, progress, object, want)
	}

	// An earlier attempt copied it and died before it could say so. Objects
	// appear whole or not at all, yet this one may be of an older upload.
	kept, err := checksum(ctx, progress, r.Archive, name)
	if err != nil {
		return File{}, err
	}
	source := object.MD5
	if len(source) == 0 {
		sums, err := checksum(ctx, progress, r.Source, object.Key)
		if err != nil {
			return File{}, err
		}
		source = sums.md5
	}
	if !bytes.Equal(kept.md5, source) {
		return r.copy(ctx, progress, object, want)
	}
	want.SHA256 = hex.EncodeToString(kept.sha256)
	return want, nil
}

// copy copies the object and checks what the archive then has.
func (r *Recordings) copy(ctx context.Context, progress *progress, object *blob.ListObject, want File) (File, error) {
	from, err := r.Source.NewReader(ctx, object.Key, nil)
	if err != nil {
		return File{}, fmt.Errorf("open it: %w", err)
	}
	defer from.Close()
	// Cancelled before Close, a writer leaves nothing behind.
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	to, err := r.Archive.NewWriter(writing, want.Name, &blob.WriterOptions{ContentType: from.ContentType()})
	if err != nil {
		return File{}, fmt.Errorf("create %s in the archive: %w", want.Name, err)
	}
	read, err := transfer(ctx, progress, to, from)
	if err != nil {
		cancel()
		_ = to.Close()
		return File{}, fmt.Errorf("copy it: %w", err)
	}
	if err := to.Close(); err != nil {
		return File{}, fmt.Errorf("write %s to the archive: %w", want.Name, err)
	}

	stored, err := r.Archive.Attributes(ctx, want.Name)
	if err != nil {
		return File{}, fmt.Errorf("check %s in the archive: %w", want.Name, err)
	}
	kept := stored.MD5
	if !bytes.Equal(kept, read.md5) {
		// The store has no MD5, or one that isn't of the content (as S3 has for what
		// it encrypts with a customer's key): only reading it back tells.
		sums, err := checksum(ctx, progress, r.Archive, want.Name)
		if err != nil {
			return File{}, err
		}
		kept = sums.md5
	}
	switch {
	case read.size != object.Size || stored.Size != object.Size:
		return File{}, fmt.Errorf("it was listed with %d bytes, read with %d and archived with %d", object.Size, read.size, stored.Size)
	case !bytes.Equal(kept, read.md5):
		return File{}, fmt.Errorf("its checksum is %x, and %x in the archive", read.md5, kept)
	}
	if r.Observe != nil {
		r.Observe(read.size)
	}
	want.SHA256 = hex.EncodeToString(read.sha256)
	return want, nil
}

// sums are what is known of content that went by.
type sums struct {
	size        int64
	sha256, md5 []byte
}

func checksum(ctx context.Context, progress *progress, bucket *blob.Bucket, key string) (sums, error) {
	from, err := bucket.NewReader(ctx, key, nil)
	if err != nil {
		return sums{}, fmt.Errorf("open %s to check it: %w", key, err)
	}
	defer from.Close()
	s, err := transfer(ctx, progress, io.Discard, from)
	if err != nil {
		return sums{}, fmt.Errorf("read %s to check it: %w", key, err)
	}
	return s, nil
}

// transfer copies and sums up. It heartbeats, and gives way to a worker's stop.
func transfer(ctx context.Context, progress *progress, to io.Writer, from io.Reader) (sums, error) {
	sha, md := sha256.New(), md5.New() // #nosec G401
	n, err := io.CopyBuffer(io.MultiWriter(to, sha, md), &watched{from, ctx, progress}, make([]byte, 256<<10))
	return sums{n, sha.Sum(nil), md.Sum(nil)}, err
}

// watched is a reader that heartbeats and ends when the worker stops.
type watched struct {
	io.Reader
	ctx      context.Context
	progress *progress
}

// Read implements [io.Reader].
func (w *watched) Read(p []byte) (int, error) {
	select {
	case <-activity.GetWorkerStopChannel(w.ctx):
		return 0, errStopping
	default:
	}
	n, err := w.Reader.Read(p)
	w.progress.moved(w.ctx, n)
	return n, err
}

// progress is what the activity's heartbeats carry: the files that are finished,
// for the next attempt, and the bytes moved, for people.
type progress struct {
	Finished []File `json:"finished"`
	Bytes    int64  `json:"bytes"`

	beat time.Time
}

func resume(ctx context.Context) *progress {
	p := &progress{}
	if activity.HasHeartbeatDetails(ctx) {
		// What can't be read only means that files are looked at again.
		_ = activity.GetHeartbeatDetails(ctx, p)
	}
	return p
}

// finished finds what an earlier attempt said of the object.
func (p *progress) finished(object *blob.ListObject, name string) (File, bool) {
	for _, f := range p.Finished {
		if f.Name == name && f.Source == object.Key && f.Size == object.Size {
			return f, true
		}
	}
	return File{}, false
}

func (p *progress) finish(ctx context.Context, f File) {
	p.Finished = append(p.Finished, f)
	activity.RecordHeartbeat(ctx, p)
}

func (p *progress) moved(ctx context.Context, n int) {
	p.Bytes += int64(n)
	if time.Since(p.beat) > time.Second {
		p.beat = time.Now()
		activity.RecordHeartbeat(ctx, p)
	}
}
