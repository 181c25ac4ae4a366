package steps_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/zego"
)

// everything is a bucket that has every key, and records which keys are requested.
type everything struct {
	driver.Bucket
	mu                    sync.Mutex
	asked, deleted, heads []string
}

func (b *everything) note(to *[]string, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*to = append(*to, key)
}

func (b *everything) ErrorCode(err error) gcerrors.ErrorCode {
	if errors.Is(err, fs.ErrNotExist) {
		return gcerrors.NotFound
	}
	return gcerrors.Unknown
}

func (b *everything) Close() error { return nil }

func (b *everything) Attributes(_ context.Context, key string) (*driver.Attributes, error) {
	b.note(&b.asked, key)
	b.note(&b.heads, key)
	return &driver.Attributes{Size: 5, ModTime: closed, ETag: "e", AsFunc: func(any) bool { return false }}, nil
}

func (b *everything) ListPaged(_ context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	b.note(&b.asked, o.Prefix)
	page := &driver.ListPage{}
	for _, key := range []string{o.Prefix + "x", "zego/kept/7/1/manifest.json", "8/1/" + fileID(taskID, 1), o.Prefix + fileID(taskID, 2)} {
		if strings.HasPrefix(key, o.Prefix) {
			page.Objects = append(page.Objects, &driver.ListObject{Key: key, Size: 5, ModTime: closed, AsFunc: func(any) bool { return false }})
		}
	}
	return page, nil
}

func (b *everything) NewRangeReader(_ context.Context, key string, _, _ int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	b.note(&b.asked, key)
	return &sound{strings.NewReader("sound")}, nil
}

func (b *everything) Delete(_ context.Context, key string, _ *driver.DeleteOptions) error {
	b.note(&b.deleted, key)
	return nil
}

type sound struct{ io.Reader }

func (s *sound) Close() error { return nil }
func (s *sound) As(any) bool  { return false }
func (s *sound) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{Size: 5, ModTime: closed, ContentType: "x"}
}

// shared returns a world whose bucket has every key and also holds the archive.
func shared(t *testing.T, prefix string) (*world, *everything) {
	t.Helper()
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "l.db"))
	var err error
	if w.Finding.Prefix, err = recordings.ParsePrefix(prefix); err != nil {
		t.Fatal(err)
	}
	files := (&url.URL{Scheme: "file", Path: filepath.ToSlash(t.TempDir())}).String()
	w.Options = archive.Options{SourceURL: files, ArchiveURL: files + "/zego/kept?create_dir=true", DeleteSources: true}
	if w.Archive, err = archive.OpenBucket(t.Context(), w.Options.ArchiveURL); err != nil {
		t.Fatal(err)
	}
	all := &everything{}
	w.Source = blob.NewBucket(all)
	return w, all
}

// outside returns the requested keys outside the app's folder and the prefix, and the deleted keys
// outside the app's folder.
func (b *everything) outside() (keys []string) {
	for _, key := range b.asked {
		if own := strings.HasPrefix(key, "7/") || strings.HasPrefix(key, "zego/") && !strings.HasPrefix(key, "zego/kept/"); !own || strings.Contains("/"+key+"/", "/../") {
			keys = append(keys, key)
		}
	}
	for _, key := range b.deleted {
		if !strings.HasPrefix(key, "7/") {
			keys = append(keys, "deleted "+key)
		}
	}
	return keys
}

// No callback makes the step request a key outside the app's folder and the prefix, or delete one
// outside the app's folder.
func FuzzNoCallbackReachesAnothersKeys(f *testing.F) {
	for _, url := range []string{"", "https://b.example/8/858012925204410417/x.mp4", "https://s.example/b/8/1/x.mp4", "https://b.example/zego/kept/7/1/manifest.json", "https://b.example/../8/1/x.mp4",
		"https://b.example/7/858012925204410417/x.mp4", "https://b.example/7/%2e%2e/8/1/x.mp4", "https://b.example//x.mp4", "/8/1/x.mp4", "8/1/x.mp4", "https://b.example/7/../8/x.mp4"} {
		for _, name := range []string{"x.mp4", "8/1/x.mp4", "manifest.json", "../8/1/x.mp4", "kept/7/1/manifest.json", "7/1/../../8/1/x", fileID(taskID, 3), fileID("ZZZZZZZZZZZZZZZZ", 3), "8/1/" + fileID(taskID, 3)} {
			f.Add(taskID, name, url)
		}
	}
	for _, task := range []string{"8/1/", "../8/1/aaaaaaaaa", "zego/kept/7/1/ma", "", "8/1/aaaaaaaaaaaa", "aaaaaaaaaaaaaaa/"} {
		f.Add(task, task+"_x.mp4", "https://b.example/7/858012925204410417/"+task+"_x.mp4")
	}
	f.Fuzz(func(t *testing.T, task, name, url string) {
		w, all := shared(t, "zego/")
		u := file(name, zego.FileUploaded, url)
		u.Begin = closed.Add(-time.Minute)
		w.callback(task, zego.RecordingUploaded, 0, 0, u)
		first, err := w.run(3 * time.Minute)
		if err == nil && first.Waiting != nil {
			_, _ = w.run(13*time.Minute, first.Waiting.Note)
		}
		if keys := all.outside(); len(keys) > 0 {
			t.Errorf("asked for %q", keys)
		}
	})
}

// A room's name can't move the prefix into another app's folder.
func TestRoomNamedLikeAnotherAppBlocksTheStep(t *testing.T) {
	w, all := shared(t, "{{.room_id}}/")
	w.task.Session.RoomID = "8/1"
	w.blocks(3*time.Minute, "another app's folder", "want {{.appid}}/ in front")
	if len(all.asked) > 0 {
		t.Errorf("asked for %q", all.asked)
	}
}

// The number of requests grows linearly with the number of files.
func TestRequestsAreAsManyAsFiles(t *testing.T) {
	w, all := shared(t, "zego/")
	const n = 200
	var files []zego.RecordedFile
	for i := range n {
		u := file(fmt.Sprintf("%d.mp4", i), zego.FileUploaded, fmt.Sprintf("https://b.example/7/%d/%d.mp4", i, i))
		u.Begin = closed.Add(-time.Minute)
		files = append(files, u)
	}
	w.callback(taskID, zego.RecordingUploaded, 0, 0, files...)
	if _, err := w.run(3 * time.Minute); err != nil && !activities.IsBlocked(err) {
		t.Fatal(err)
	}
	if len(all.heads) < n || len(all.heads) > 8*n || len(all.asked) > 16*n {
		t.Errorf("%d HEAD, %d requests for %d files", len(all.heads), len(all.asked), n)
	}
}

// The manifest lists all lost files. A result, a wait and a blocked step name only as many as fit
// into Temporal's limits.
func TestResultIsBoundedHoweverMuchIsLost(t *testing.T) {
	const most = 256 << 10
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "l.db"))
	long := strings.Repeat("<é>", 120)
	var lost, missing []zego.RecordedFile
	for i := range 1500 {
		f := file(fmt.Sprintf("%s%d", long, i), zego.FileFailed, "")
		f.Begin = closed.Add(-time.Minute)
		lost = append(lost, f)
		f.FileID, f.Status = fmt.Sprintf("%s%d", long, 10_000+i), zego.FileUploaded
		missing = append(missing, f)
	}
	for i := range 3 {
		w.callback(fmt.Sprintf("lost%012d", i), zego.RecordingUploaded, 0, 0, lost...)
	}
	done, err := w.run(3 * time.Minute)
	b, _ := json.Marshal(done)
	if err != nil || done.LostFiles != 4500 || len(b) > most || len(done.String()) > most {
		t.Errorf("%d lost in a result of %d bytes, %v", done.LostFiles, len(b), err)
	}
	if m, err := archive.Latest(t.Context(), w.Archive, w.task.Session.Folder()); err != nil || len(m.Lost) != 4500 {
		t.Errorf("the manifest has %d lost, %v", len(m.Lost), err)
	}
	w = newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "l.db"))
	w.callback(taskID, zego.RecordingUploaded, 0, 0, missing...)
	if waits, err := json.Marshal(w.waits(3 * time.Minute)); err != nil || len(waits) > 8<<10 {
		t.Errorf("it waits for %d bytes, %v", len(waits), err)
	}
	if _, err := w.run(80 * time.Hour); !activities.IsBlocked(err) || len(err.Error()) > 8<<10 {
		t.Errorf("blocked by %d bytes", len(fmt.Sprint(err)))
	}
}
