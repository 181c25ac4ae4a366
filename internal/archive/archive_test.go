package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/internal/testenv"
)

const folder = "1/18446744073709551615/"

// world has two buckets and a Mover that archives recordings from one in the other.
type world struct {
	*testing.T
	*Mover
	copied atomic.Int64 // number of objects
}

func newWorld(t *testing.T, options Options) *world {
	t.Helper()
	open := func(bucketURL string) *blob.Bucket {
		b, err := memblob.OpenBucket(nil), error(nil)
		if bucketURL != "" {
			b, err = OpenBucket(t.Context(), bucketURL)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	m, err := NewMover(open(options.SourceURL), open(options.ArchiveURL), options)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Mover: m}
	m.Observe = func(int64) { w.copied.Add(1) }
	return w
}

// again returns a world with the same buckets and another Mover, as a second worker has.
func (w *world) again() *world {
	w.Helper()
	m, err := NewMover(w.Source, w.Archive, w.options)
	if err != nil {
		w.Fatal(err)
	}
	other := &world{T: w.T, Mover: m}
	m.Observe = func(int64) { other.copied.Add(1) }
	return other
}

func folderURL(t *testing.T) string {
	return "file://" + filepath.ToSlash(t.TempDir()) + "?create_dir=true"
}

// everyStore runs a test with the archive in every kind of store.
func everyStore(t *testing.T, test func(w *world)) {
	for name, options := range map[string]func(t *testing.T) Options{
		"memory":  func(*testing.T) Options { return Options{} },
		"folders": func(t *testing.T) Options { return Options{SourceURL: folderURL(t), ArchiveURL: folderURL(t)} },
		"folder to S3": func(t *testing.T) Options {
			return Options{SourceURL: folderURL(t), ArchiveURL: testenv.StartS3(t).URL("archive")}
		},
		"within S3": func(t *testing.T) Options {
			s := testenv.StartS3(t)
			return Options{SourceURL: s.URL("recordings"), ArchiveURL: s.URL("archive") + "&prefix=kept/"}
		},
	} {
		t.Run(name, func(t *testing.T) { test(newWorld(t, options(t))) })
	}
}

// put writes a recording to the source bucket, as ZEGO does, and returns its item.
func (w *world) put(name string, content []byte) Item {
	w.Helper()
	key := folder + name
	if err := w.Source.WriteAll(context.Background(), key, content, nil); err != nil {
		w.Fatal(err)
	}
	return Item{Key: key, Name: name, Size: int64(len(content))}
}

var head = Manifest{AppID: 1, RoomID: "lobby", RoomSessionID: 18446744073709551615, RoomCloseTime: time.UnixMilli(1499676989909).UTC()}

func (w *world) move(earlier Progress, items ...Item) (Manifest, error) {
	return w.Move(w.Context(), folder, head, func(context.Context) ([]Item, error) { return items, nil }, earlier, nil)
}

// moved moves the items and returns the manifest. An error ends the test.
func (w *world) moved(items ...Item) Manifest {
	w.Helper()
	m, err := w.move(Progress{}, items...)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

func (w *world) get(key string) []byte {
	w.Helper()
	b, err := w.Archive.ReadAll(context.Background(), key)
	if err != nil {
		w.Fatal(err)
	}
	return b
}

func (w *world) remove(key string) {
	w.Helper()
	if err := w.Archive.Delete(context.Background(), key); err != nil {
		w.Fatal(err)
	}
}

// keys returns all keys of the archive.
func (w *world) keys() (keys []string) {
	w.Helper()
	for list := w.Archive.List(nil); ; {
		o, err := list.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return keys
		}
		if err != nil {
			w.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// random returns content that depends on seed.
func random(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func TestMovedFilesAreInManifestAndArchive(t *testing.T) {
	everyStore(t, func(w *world) {
		contents := map[string][]byte{
			"b_V.mp4": random(1, 3*partSize+17), "a/a_A.aac": []byte("audio"), "empty.txt": nil, "part.mp4": random(2, partSize), "more.mp4": random(3, partSize+1),
		}
		var items []Item
		for name, content := range contents {
			items = append(items, w.put(name, content))
		}
		about := About{DurationMS: 1500, TaskID: "0123456789abcdef", BeginTime: time.UnixMilli(1499676900123).UTC(), UserID: "u", StreamID: "s", TrackType: "VA"}
		for i := range items {
			items[i].About = about
		}
		m := w.moved(items...)
		if m.Version != Version || m.RoomID != "lobby" || len(m.Files) != len(contents) || w.copied.Load() != int64(len(contents)) {
			w.Errorf("manifest %+v, %d copied", m, w.copied.Load())
		}
		for _, f := range m.Files {
			name := strings.TrimPrefix(f.Name, folder+"recordings/")
			content, ok := contents[name]
			if want := (File{Name: folder + "recordings/" + name, Source: folder + name, Size: int64(len(content)), SHA256: sumOf(content), About: about}); !ok || f != want {
				w.Errorf("file %+v, want %+v", f, want)
			}
			if !bytes.Equal(w.get(f.Name), content) {
				w.Errorf("%s has another content", f.Name)
			}
		}
		first := w.get(folder + "manifest.json")
		for _, want := range []string{`"version": 1`, `"room_session_id": "18446744073709551615"`, `"duration_ms": 1500`, `"begin_time": "2017-07-10T08:55:00.123Z"`} {
			if !bytes.Contains(first, []byte(want)) {
				w.Errorf("there is no %s in %s", want, first)
			}
		}
		if keys := w.keys(); len(keys) != len(contents)+1 {
			w.Errorf("the archive has %q", keys)
		}

		// Move returns an existing manifest without asking for items, even if some came late.
		again, err := w.Move(w.Context(), folder, head, func(context.Context) ([]Item, error) { return nil, errors.New("asked") }, Progress{}, nil)
		if err != nil || len(again.Files) != len(contents) || !bytes.Equal(w.get(folder+"manifest.json"), first) {
			w.Errorf("again: %+v, %v", again, err)
		}

		// The manifest's bytes depend neither on the worker nor on the order of the items.
		w.remove(folder + "manifest.json")
		slices.Reverse(items)
		w.again().moved(items...)
		if second := w.get(folder + "manifest.json"); !bytes.Equal(second, first) {
			w.Errorf("the second time: %s, and the first: %s", second, first)
		}
	})
}

// A file that a killed attempt left is used if it is complete.
func TestCompleteFileIsNotCopiedAgain(t *testing.T) {
	content := random(1, partSize+100)
	flipped := bytes.Clone(content)
	flipped[partSize] ^= 1
	everyStore(t, func(w *world) {
		item := w.put("a.mp4", content)
		name := folder + "recordings/a.mp4"
		var last Progress
		report := func(p Progress) { last = p }
		all := func(context.Context) ([]Item, error) { return []Item{item}, nil }
		if _, err := w.Move(w.Context(), folder, head, all, Progress{}, report); err != nil {
			w.Fatal(err)
		}
		if last.Files != 1 || last.Of != 1 || last.Bytes != item.Size || last.OfBytes != item.Size || len(last.Finished) != 1 {
			w.Errorf("progress %+v", last)
		}
		for _, tt := range []struct {
			name    string
			change  func()
			earlier Progress
			copies  bool
		}{
			{"the heartbeat knows of it", func() {}, last, false},
			{"the heartbeat is lost", func() {}, Progress{}, false},
			{"nothing is left", func() { w.remove(name) }, last, true},
			{"a bit is flipped, and the heartbeat lost", func() { overwrite(w, name, flipped) }, Progress{}, true},
			{"a part is missing", func() { overwrite(w, name, content[:partSize]) }, last, true},
			{"the source was uploaded anew", func() { w.put("a.mp4", flipped) }, last, true},
		} {
			w.Run(tt.name, func(t *testing.T) {
				_ = w.Archive.Delete(t.Context(), folder+"manifest.json")
				tt.change()
				other := w.again()
				m, err := other.move(tt.earlier, item)
				if err != nil {
					t.Fatal(err)
				}
				if copied := other.copied.Load() == 1; copied != tt.copies {
					t.Errorf("copied: %v, want %v", copied, tt.copies)
				}
				got := w.get(name)
				if source, err := w.Source.ReadAll(t.Context(), item.Key); err != nil || !bytes.Equal(got, source) || m.Files[0].SHA256 != sumOf(source) {
					t.Errorf("the archive has something else: %v", err)
				}
			})
		}
	})
}

// overwrite changes the content of an object in the archive, as damage or another program does.
func overwrite(w *world, key string, content []byte) {
	w.Helper()
	if s, ok := w.store.(*folderStore); ok {
		if err := os.WriteFile(filepath.Join(s.folder.dir, key), content, 0o600); err != nil {
			w.Fatal(err)
		}
		return
	}
	a, err := w.Archive.Attributes(context.Background(), key)
	if err != nil {
		w.Fatal(err)
	}
	// The store computes the checksum of what it receives, so that checksum matches. The changed
	// metadata shows that the object is another one.
	if err := w.Archive.WriteAll(context.Background(), key, content, &blob.WriterOptions{Metadata: map[string]string{metaSource: a.Metadata[metaSource] + "x"}}); err != nil {
		w.Fatal(err)
	}
}

func TestNamesThatAFileSystemTakesForOneFoldToOne(t *testing.T) {
	for _, same := range [][]string{
		{"a.mp4", "A.MP4"}, {"é/x", "e\u0301/x", "É/X"}, {"xệy", "xe\u0323\u0302y", "xe\u0302\u0323y", "xê\u0323y", "xẹ\u0302y"}, {"각각é", "\u1100\u1161\u11a8각e\u0301"},
		{"Straße", "STRASSE", "STRAẞE"}, {"\u212a.mp4", "k.mp4"}, {"\u212b.mp4", "Å.mp4", "å.mp4", "a\u030a.mp4"}, {"ﬁle", "FILE"}, {"Ωmega", "\u2126mega"},
		{"が", "か\u3099"}, {"a/\u0301b", "A/\u0301B"}, {"İ", "i\u0307"},
	} {
		for _, name := range same {
			if fold(name) != fold(same[0]) {
				t.Errorf("%+q folds to %q, %+q to %q", name, fold(name), same[0], fold(same[0]))
			}
		}
	}
	for _, others := range [][2]string{{"会议.mp4", "会谈.mp4"}, {"é/x", "é/y"}, {"é1", "é2"}, {"é", "é/é"}} {
		if fold(others[0]) == fold(others[1]) {
			t.Errorf("%q and %q fold to %q", others[0], others[1], fold(others[0]))
		}
	}
}

func TestNamesStayInTheSessionAndAreNeverShared(t *testing.T) {
	long := strings.Repeat("ü", 300)
	names := []string{
		"T_room_1_user_2_stream_V_20260101000000000.mp4", "a b.mp4", "ünï/cödé 会议.mp4", "A.mp4", "a.mp4", "../../etc/passwd", "..", ".", "", "a/../b.mp4", "a/./b.mp4",
		"/absolute.mp4", "trailing/", "a//b.mp4", "x\x00y\n.mp4", "back\\slash", "a", "a/b", "A/c", "x.attrs", "__0x2f__.mp4", long + ".mp4", long + "/x.mp4",
		strings.Repeat("d/", 500) + "deep.mp4", "\xff\xfe.mp4", "é.mp4", "e\u0301.mp4", "con", "a%2E", "a.", "manifest.json", "Straße", "STRASSE", "v..", "v../w",
	}
	everyStore(t, func(w *world) {
		var items []Item
		for i, name := range names {
			item := w.put(fmt.Sprintf("source-%02d", i), []byte(name))
			item.Name = name
			items = append(items, item)
		}
		m := w.moved(items...)
		seen, source := map[string]bool{}, map[string]string{}
		for _, f := range m.Files {
			if !strings.HasPrefix(f.Name, folder+"recordings/") || strings.Contains(f.Name, "..") || len(f.Name) > 1000 || seen[fold(f.Name)] {
				w.Errorf("name %q", f.Name)
			}
			seen[fold(f.Name)] = true
			source[f.Source] = f.Name
			if i := slices.IndexFunc(items, func(i Item) bool { return i.Key == f.Source }); string(w.get(f.Name)) != names[i] && names[i] != "" {
				w.Errorf("%q is %q", f.Name, w.get(f.Name))
			}
		}
		if len(seen) != len(names) || len(w.keys()) != len(names)+1 {
			w.Errorf("%d of %d names, %d objects", len(seen), len(names), len(w.keys()))
		}
		for i, kept := range map[int]string{0: names[0], 1: "a b.mp4", 2: names[2], 3: "A.mp4", 5: ".%2E/.%2E/etc/passwd"} {
			want := folder + "recordings/" + kept
			if got := source[items[i].Key]; got != want {
				w.Errorf("%q became %q, want %q", names[i], got, want)
			}
		}
		// Nothing was written outside the session's folder.
		for _, key := range w.keys() {
			if !strings.HasPrefix(key, folder) {
				w.Errorf("%q is in the archive", key)
			}
		}
		if s, ok := w.store.(*folderStore); ok {
			if err := filepath.WalkDir(filepath.Dir(s.folder.dir), func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), "source-") && !strings.HasPrefix(path, filepath.Join(s.folder.dir, folder)) {
					w.Errorf("%s was written", path)
				}
				return err
			}); err != nil {
				w.Error(err)
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"a\x01a/b\x01A", "..\x01.\x01", "\x00\x01\xff\x01__0x2f__", strings.Repeat("é/", 400) + "\x01" + strings.Repeat("x", 900)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wanted string) {
		var items []Item
		for i, name := range strings.Split(wanted, "\x01") {
			items = append(items, Item{Key: fmt.Sprint(i), Name: name})
		}
		names := assign(items)
		taken, folders := map[string]bool{}, map[string]bool{}
		for _, name := range names {
			if taken[fold(name)] || name == "" || len(name) > 1000 || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
				t.Fatalf("%q of %q", name, names)
			}
			taken[fold(name)] = true
			segments := strings.Split(name, "/")
			for i, s := range segments {
				if s == "" || s == "." || s == ".." || len(s) > 255-len(".attrs") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
					t.Fatalf("%q", name)
				}
				if i > 0 {
					folders[fold(strings.Join(segments[:i], "/"))] = true
				}
			}
		}
		for name := range taken {
			if folders[name] {
				t.Fatalf("%q is a file and a folder", name)
			}
		}
	})
}

// corrupting is a store that calls flip after each write, until it has done so times times.
type corrupting struct {
	store
	times atomic.Int64
	flip  func(key string)
}

func (c *corrupting) put(ctx context.Context, key string, content *content) error {
	err := c.store.put(ctx, key, content)
	if c.times.Add(-1) >= 0 && err == nil {
		c.flip(key)
	}
	return err
}

func TestFlippedBitInTheArchiveIsDetectedAndCopiedAgain(t *testing.T) {
	for times, want := range map[int64]string{1: "", 2: "", 3: errDiffers.Error()} {
		t.Run(fmt.Sprint(times), func(t *testing.T) {
			w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: folderURL(t)})
			content := random(1, 1<<20)
			item := w.put("a.mp4", content)
			files := w.store.(*folderStore)
			c := &corrupting{store: files, flip: func(key string) {
				b := w.get(key)
				b[len(b)/2] ^= 1
				if err := os.WriteFile(filepath.Join(files.folder.dir, key), b, 0o600); err != nil {
					t.Error(err)
				}
			}}
			c.times.Store(times)
			w.store = c
			m, err := w.move(Progress{}, item)
			if want != "" {
				if err == nil || !strings.Contains(err.Error(), want) || len(w.keys()) != 0 {
					t.Errorf("error %v, and the archive has %q", err, w.keys())
				}
				return
			}
			if err != nil || m.Files[0].SHA256 != sumOf(content) || !bytes.Equal(w.get(m.Files[0].Name), content) {
				t.Errorf("manifest %+v, error %v", m, err)
			}
		})
	}
}

// A source that changes while it is copied is copied again. One that always changes is an error.
func TestSourceChangedDuringItsCopyIsNoticed(t *testing.T) {
	everyStore(t, func(w *world) {
		item := w.put("a.mp4", random(1, 1000))
		last := random(2, 1000)
		c := &corrupting{store: w.store, flip: func(string) { w.put("a.mp4", last) }}
		c.times.Store(1)
		w.store = c
		if m := w.moved(item); m.Files[0].SHA256 != sumOf(last) || !bytes.Equal(w.get(m.Files[0].Name), last) {
			w.Errorf("the first state was archived")
		}
		c.times.Store(1 << 30)
		w.remove(folder + "manifest.json")
		c.flip = func(string) { w.put("a.mp4", random(uint64(c.times.Load()), 1000)) } //nolint:gosec // any number
		if m, err := w.move(Progress{}, w.put("a.mp4", random(3, 1000))); !errors.Is(err, errChanged) {
			w.Errorf("manifest %+v, error %v", m, err)
		}
		if slices.Contains(w.keys(), folder+"manifest.json") {
			w.Error("there is a manifest")
		}
	})
}

func TestTwoWorkersMakeOneManifest(t *testing.T) {
	everyStore(t, func(w *world) {
		var items []Item
		for i := range 8 {
			items = append(items, w.put(fmt.Sprintf("%d.mp4", i), random(uint64(i), 10_000)))
		}
		// The heads differ, so that the test sees a replaced manifest.
		heads := [2]Manifest{head, head}
		heads[1].RoomID = "other"
		var manifests [2]Manifest
		var faults [2]error
		var both sync.WaitGroup
		for i, worker := range []*world{w, w.again()} {
			both.Go(func() {
				manifests[i], faults[i] = worker.Move(w.Context(), folder, heads[i], func(context.Context) ([]Item, error) { return items, nil }, Progress{}, nil)
			})
		}
		both.Wait()
		var written Manifest
		if err := json.Unmarshal(w.get(folder+"manifest.json"), &written); err != nil {
			w.Fatal(err)
		}
		for i, m := range manifests {
			if faults[i] != nil || m.RoomID != written.RoomID || len(m.Files) != 8 {
				w.Errorf("worker %d: %v %+v", i, faults[i], m)
			}
		}
		if faults, err := w.Verify(w.Context(), written, nil); err != nil || len(faults) > 0 {
			w.Errorf("faults %v, %v", faults, err)
		}
	})
}

// A worker that has finished removes the session's unfinished files, also those of other workers.
func TestSlowerWorkerUsesTheOthersManifest(t *testing.T) {
	everyStore(t, func(w *world) {
		item := w.put("a.mp4", random(1, 10_000))
		var want Manifest
		m, err := w.Move(w.Context(), folder, head, func(context.Context) ([]Item, error) { return []Item{item}, nil }, Progress{}, func(Progress) {
			if want.Version == 0 { // the first worker is in the middle of its copy
				want = w.again().moved(item)
			}
		})
		if err != nil || want.Version == 0 || !reflect.DeepEqual(m, want) {
			w.Errorf("%v; got %+v, want %+v", err, m, want)
		}
	})
}

// Of concurrent writers of a manifest, exactly one succeeds.
func TestManifestReplacesNoOther(t *testing.T) {
	everyStore(t, func(w *world) {
		var created atomic.Int64
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				switch err := w.store.create(context.Background(), folder+"manifest.json", []byte{byte('0' + i)}); {
				case err == nil:
					created.Add(1)
				case !errors.Is(err, errExists):
					w.Errorf("%d: %v", i, err)
				}
			})
		}
		all.Wait()
		if created.Load() != 1 {
			w.Errorf("created %d times", created.Load())
		}
	})
}

func TestUnreadableManifestIsLeftAlone(t *testing.T) {
	for content, want := range map[string]string{"{": "unexpected end", "{}": "its version is 0", `{"version": 3}`: "its version is 3", "null": "its version is 0"} {
		w := newWorld(t, Options{})
		if err := w.Archive.WriteAll(t.Context(), folder+"manifest.json", []byte(content), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.move(Progress{}, w.put("a", nil)); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), want) || string(w.get(folder+"manifest.json")) != content {
			t.Errorf("%s: %v", content, err)
		}
	}
}

func TestVerifyReportsFaults(t *testing.T) {
	everyStore(t, func(w *world) {
		var items []Item
		for _, name := range []string{"flipped", "good", "longer", "missing"} {
			items = append(items, w.put(name, []byte("a recording "+name)))
		}
		m := w.moved(items...)
		in := folder + "recordings/"
		overwrite(w, in+"flipped", []byte("b recording flipped"))
		overwrite(w, in+"longer", []byte("a recording longer and longer"))
		w.remove(in + "missing")
		faults, err := w.Verify(w.Context(), m, nil)
		if err != nil || len(faults) != 3 || faults[0].Name != in+"flipped" || !strings.Contains(faults[0].What, "SHA-256") ||
			!strings.Contains(faults[1].What, "it has 29 bytes, and had 18") || faults[2] != (Fault{in + "missing", "it is missing"}) {
			w.Errorf("faults %+v, %v", faults, err)
		}
		var sessions []string
		for s, err := range Sessions(w.Context(), w.Archive) {
			if err != nil {
				w.Fatal(err)
			}
			sessions = append(sessions, s)
		}
		if !slices.Equal(sessions, []string{folder}) {
			w.Errorf("sessions %q", sessions)
		}
	})
}

// Sources are deleted only if that is configured, if there is a manifest, and if they still have
// the archived content.
func TestSourcesAreDeletedOnlyWhenTheyAreSafe(t *testing.T) {
	everyStore(t, func(w *world) {
		left := func() (names []string) {
			for list := w.Source.List(nil); ; {
				o, err := list.Next(context.Background())
				if err != nil {
					return names
				}
				names = append(names, strings.TrimPrefix(o.Key, folder))
			}
		}
		items := []Item{w.put("a", []byte("a")), w.put("b", []byte("b"))}
		w.moved(items...)
		if got := left(); len(got) != 2 {
			w.Fatalf("without being asked to, all but %q was deleted", got)
		}

		// As if an earlier run had been killed before it deleted sources: "a" has its archived
		// content, "b" was uploaded anew, and "c" is new.
		w.options.DeleteSources = true
		w.put("b", []byte("B"))
		w.put("c", []byte("c"))
		w.moved(items...)
		if got := left(); !slices.Equal(got, []string{"b", "c"}) {
			w.Errorf("%q are left", got)
		}

		w.remove(folder + "manifest.json")
		c := &failing{store: w.store}
		w.store = c
		items = []Item{w.put("a", []byte("a")), w.put("b", []byte("b"))}
		if _, err := w.move(Progress{}, items...); err == nil || len(left()) != 3 {
			w.Errorf("without a manifest %q are left, error %v", left(), err)
		}
		w.store = c.store
		w.moved(items...)
		if got := left(); !slices.Equal(got, []string{"c"}) {
			w.Errorf("with a manifest %q are left", got)
		}
	})
}

// failing is a store that can't write a manifest.
type failing struct{ store }

func (failing) create(context.Context, string, []byte) error { return errors.New("no manifest") }

// If one item fails, the others are moved, and the failure is reported.
func TestFailedItemDelaysNoOther(t *testing.T) {
	everyStore(t, func(w *world) {
		items := []Item{w.put("a", []byte("a")), {Key: folder + "none", Name: "none"}, w.put("b", []byte("b")), {Key: folder + "a", Name: "size", Size: 7}}
		_, err := w.move(Progress{}, items...)
		if err == nil || !strings.Contains(err.Error(), "archive "+folder+"none: look at it") || !strings.Contains(err.Error(), "it has 1 bytes, and should have 7") {
			w.Errorf("error %v", err)
		}
		if keys := w.keys(); len(keys) != 2 {
			w.Errorf("the archive has %q", keys)
		}
	})
}

// Files in ZEGO's backup storage are read over HTTPS, even if connections are cut.
func TestBackupStorageIsReadOverHTTPS(t *testing.T) {
	content := random(1, 3<<20)
	var cuts atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone.mp4" {
			http.NotFound(w, r)
			return
		}
		if r.URL.Path == "/empty.mp4" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(nil))
			return
		}
		w.Header().Set("ETag", `"e"`)
		if cuts.Add(1)%3 == 0 {
			w = &cutShort{w, 1 << 20}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	everyStore(t, func(w *world) {
		w.options.Client = server.Client()
		m, err := w.move(Progress{}, Item{URL: server.URL + "/backup/T_1_V.mp4?Signature=hunter2", Size: int64(len(content))}, Item{URL: server.URL + "/empty.mp4", Name: "empty"})
		if err != nil {
			w.Fatal(err)
		}
		if f := m.Files[0]; f.Name != folder+"recordings/T_1_V.mp4" || f.Source != server.URL+"/backup/T_1_V.mp4" || f.SHA256 != sumOf(content) || !bytes.Equal(w.get(f.Name), content) {
			w.Errorf("file %+v", f)
		}
		w.remove(folder + "manifest.json")
		_, err = w.again().move(Progress{}, Item{URL: server.URL + "/gone.mp4?Signature=hunter2"})
		if err == nil || !strings.Contains(err.Error(), "404") || strings.Contains(err.Error(), "hunter2") {
			w.Errorf("error %v", err)
		}
	})
	w := newWorld(t, Options{})
	for _, url := range []string{"http://example.com/a", "file:///etc/passwd", "https:///a", "a"} {
		if _, err := w.move(Progress{}, Item{URL: url}); !errors.Is(err, ErrImpossible) {
			t.Errorf("%s: %v", url, err)
		}
	}
	// Addresses that aren't public are refused.
	for _, host := range []string{
		server.URL, "https://169.254.169.254", "https://[::1]", "https://10.0.0.1", "https://0.0.0.0", "https://0.1.2.3",
		"https://100.100.100.200", "https://192.0.0.192", "https://[::ffff:169.254.169.254]", "https://[64:ff9b::a9fe:a9fe]", "https://[fd00:ec2::254]",
		"https://[2002:a9fe:a9fe::1]", "https://[::a9fe:a9fe]", "https://[2001::a9fe:a9fe]", "https://[fec0::1]", "https://[2001:db8::1]", "https://[64:ff9b:1::1]", "https://168.63.129.16",
		"https://192.0.2.1", "https://[fe80::1]", "https://[ff02::1]", "https://[100::1]",
	} {
		if _, err := w.move(Progress{}, Item{URL: host + "/a"}); err == nil || !strings.Contains(err.Error(), "no public address") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// cutShort is a response that is cut off once it exceeds left bytes.
type cutShort struct {
	http.ResponseWriter
	left int
}

func (c *cutShort) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

// drip is the body of a response. Each byte arrives after a pause.
type drip struct {
	ctx   context.Context
	pause time.Duration
	left  int
}

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-time.After(d.pause):
		d.left--
		return copy(p, "x"), nil
	}
}

// A transfer may take longer than the stall timeout if something arrives often enough.
func TestProgressPreventsATimeout(t *testing.T) {
	defer func(d time.Duration) { stallTimeout = d }(stallTimeout)
	stallTimeout = time.Second
	const size = 10
	for pause, want := range map[time.Duration]error{stallTimeout - 1: nil, stallTimeout + 1: errStalled} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Options{Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, ContentLength: size, Body: io.NopCloser(&drip{r.Context(), pause, size})}, nil
			})}})
			begun := time.Now()
			m, err := w.move(Progress{}, Item{URL: "https://example.com/a"})
			if !errors.Is(err, want) || want == nil && (m.Files[0].Size != size || time.Since(begun) != size*pause) {
				t.Errorf("a byte each %v: %+v after %v, error %v, want %v", pause, m.Files, time.Since(begun), err, want)
			}
		})
	}
}

func TestLinkIsTheObjectsURL(t *testing.T) {
	for bucketURL, want := range map[string]string{
		"":                             "",
		"s3://b?region=x&prefix=kept/": "s3://b/kept/1/2/a b.mp4",
		"file:///var/archive":          "/var/archive/1/2/a b.mp4",
	} {
		if got := Link(bucketURL, "1/2/a b.mp4"); got != want {
			t.Errorf("%s: %s, want %s", bucketURL, got, want)
		}
	}
}

// A container has a read-only root, and a systemd unit may have no temporary folder.
func TestNoStepNeedsATemporaryFolder(t *testing.T) {
	for name, options := range map[string]Options{
		"folders": {SourceURL: folderURL(t), ArchiveURL: folderURL(t)},
		"S3":      {SourceURL: folderURL(t), ArchiveURL: newFakeS3(t).url("archive", "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", "/proc/no/such/folder")
			options.DeleteSources = true
			w := newWorld(t, options)
			m := w.moved(w.put("small.mp4", random(1, 1000)), w.put("large.mp4", random(2, partSize+1)))
			if faults, err := w.Verify(t.Context(), m, nil); err != nil || len(faults) > 0 {
				t.Errorf("faults %v, %v", faults, err)
			}
			if err := Probe(t.Context(), w.Source, w.Archive, w.options); err != nil {
				t.Error(err)
			}
		})
	}
}

// Text from others is bounded and on one line when it reaches errors, results and names. It has no
// characters that move a terminal's cursor or change the text's direction.
func TestForeignTextIsCleanedAtTheBorder(t *testing.T) {
	const evil = "\x1b]0;owned\a\u202egpj.\u2028x\r\n"
	plain := func(what, text string) {
		t.Helper()
		if strings.ContainsAny(text, "\x1b\a\r\n\u202e\u2028") || len(text) > 6*maxError {
			t.Errorf("%s: %q", what, text)
		}
	}
	s := newFakeS3(t)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.url("archive", "")})
	item := w.put("a.mp4", []byte("x"))
	item.Name = "b\u202e\u2028.mp4"
	m := w.moved(item)
	plain("name", m.Files[0].Name)
	s.before = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(rw, "<Error><Code>AccessDenied</Code><Message><![CDATA[%s]]></Message></Error>", strings.NewReplacer("\x1b", "\u009b", "\a", "").Replace(evil)+strings.Repeat("x", 1<<20))
		return true
	}
	_, err := w.move(Progress{}, item)
	plain("move", fmt.Sprint(err))
	if errors.Unwrap(err) != nil {
		t.Error("the error has a cause, whose text Temporal would keep")
	}
	_, faults := w.Save(t.Context(), folder, nil, []Item{{Key: "no" + evil}})
	plain("save", fmt.Sprint(faults[0]))
	_, err = w.Add(t.Context(), folder, m, []Item{{Key: "no" + evil}}, Progress{}, nil)
	plain("add", fmt.Sprint(err))
	for _, err := range List(t.Context(), w.Archive, "", false) {
		plain("list", fmt.Sprint(err))
	}
	all, err := w.Verify(t.Context(), m, nil)
	if len(all) != 1 || err != nil {
		t.Fatal(all, err)
	}
	plain("verify", all[0].What)
	if got := text("https://b.example/x?X-Amz-Signature=hunter2&a=b"); got != "https://b.example/x?X-Amz-Signature=...&a=b" {
		t.Error(got)
	}
}
