// Package archive moves a session's recordings to where they are kept, and tells
// whether they still are what they were.
//
// A [Mover] copies several objects at once and with bounded memory, checks each,
// and writes the [Manifest] last. It may be killed at any moment and begun again:
// what is in the archive, whole and of this very source, isn't copied again. It
// knows nothing of Temporal.
package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"golang.org/x/sync/semaphore"
)

// Options say how recordings are moved. The zero value will do.
type Options struct {
	// SourceURL and ArchiveURL are where the buckets are. They say how a store is best
	// used, beyond what all have in common; empty: only that is used.
	SourceURL, ArchiveURL string
	// Transfers is how many objects are copied at once by a [Mover], whoever uses it;
	// [DefaultTransfers] unless set. Each needs about 11 MiB.
	Transfers int
	// Class is the storage class of the recordings, in the store's own words, Tags are
	// their tags, and Encryption says how the store encrypts them: see [Options.Check].
	Class      string
	Tags       map[string]string
	Encryption string
	// AppFolder, if set, returns the folder of an app's own in the bucket of the
	// recordings beside "<appid>/", or nothing.
	AppFolder func(appID uint32) string
	// DeleteSources has sources in the bucket deleted when the manifest is there.
	DeleteSources bool
	// Hosts are those that URLs may be read from, as [ParseHosts] reads them; none: all.
	Hosts []string
	// Client reads URLs; nil: one that only goes to public addresses.
	Client *http.Client
}

// DefaultTransfers is how many objects are copied at once unless set otherwise.
const DefaultTransfers = 4

// Item is one thing to move.
type Item struct {
	// Key names an object in the bucket of the recordings; or
	Key string
	// URL is where it can be read, by https.
	URL string
	// Name is what it is to be called, below the session's recordings. It is kept
	// where that is possible; empty: as the last part of its key or URL.
	Name string
	// Size is how large it should be, in bytes; 0 if that isn't known.
	Size int64
	// Kept, if set, is what [Mover.Save] said of it: it is in the archive already, and
	// may be gone where it came from.
	Kept *File
	// Lost says that it is nowhere. The manifest names it.
	Lost bool
	About
}

// Progress is how far a session's recordings are.
type Progress struct {
	// Files and Bytes are how many were moved, of Of and OfBytes. What was there
	// already counts as moved. Bytes that were moved in vain count until they are
	// moved again.
	Files   int   `json:"files"`
	Of      int   `json:"of"`
	Bytes   int64 `json:"bytes"`
	OfBytes int64 `json:"of_bytes"`
	// Finished are those that were moved, for who goes on after a crash. It is
	// bounded; those that it lacks are found in the archive.
	Finished []Finished `json:"finished,omitempty"`
}

// Finished is a file that was moved.
type Finished struct {
	Name   string `json:"name"`
	Mark   string `json:"mark"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// maxFinished bounds what [Progress] carries, in bytes of its JSON: Temporal warns of
// heartbeats from 256 KiB on.
const maxFinished = 128 << 10

// bytes is how much of a heartbeat it takes, its names escaped.
func (f Finished) bytes() int { return 150 + 2*len(f.Name) }

// Mover moves recordings.
type Mover struct {
	// Source is the bucket that recordings are uploaded to.
	Source *blob.Bucket
	// Archive is the bucket that keeps them.
	Archive *blob.Bucket
	// Observe, if set, is told of each file that was copied, and its size in bytes.
	Observe func(size int64)

	options Options
	store   store
	turn    *semaphore.Weighted
	urls    *slots
	buffers sync.Pool // of *[]byte, readSize large
}

// NewMover makes a mover between two buckets. The error is of options that the
// archive's store doesn't have.
func NewMover(source, archive *blob.Bucket, options Options) (*Mover, error) {
	if err := options.Check(); err != nil {
		return nil, err
	}
	if options.Client == nil {
		options.Client = publicClient(options.Hosts)
	}
	options.Transfers = cmp.Or(options.Transfers, DefaultTransfers)
	m := &Mover{Source: source, Archive: archive, options: options, turn: semaphore.NewWeighted(int64(options.Transfers)), urls: newSlots(options.Transfers)}
	m.buffers.New = func() any { b := make([]byte, readSize); return &b }
	var err error
	m.store, err = m.openStore()
	return m, err
}

// Move moves the items to the folder of a session, "<appid>/<room_session_id>/", and
// returns the manifest that is then there. Head is the manifest without its files.
// Where there is a manifest already, items aren't asked for, and nothing is left to
// do but to delete sources.
// Earlier is how far an earlier attempt came, and report hears from time to time,
// not concurrently, how far this one is.
//
// The error may be of one item or of several. The others have been moved, and
// another call goes on from there. It wraps the cause of ctx's end, if that was it.
func (m *Mover) Move(ctx context.Context, folder string, head Manifest, items func(context.Context) ([]Item, error), earlier Progress, report func(Progress)) (_ Manifest, err error) {
	defer func() { err = foreign(err) }()
	switch there, err := Latest(ctx, m.Archive, folder); {
	case err == nil && m.options.DeleteSources:
		return there, m.deleteListed(ctx, there)
	case err == nil:
		return there, nil
	case !errors.Is(err, ErrNone):
		return Manifest{}, err
	}
	all, err := items(ctx)
	if err != nil {
		return Manifest{}, err
	}
	return m.move(ctx, folder, head, all, earlier, report)
}

// Add moves items that came after the session's manifest was written, and writes
// the next one, which lists what that one listed as well. Without an item that is
// new nothing is left to do but to delete sources. Otherwise it does as
// [Mover.Move] does. Before is what [Latest] gave.
func (m *Mover) Add(ctx context.Context, folder string, before Manifest, items []Item, earlier Progress, report func(Progress)) (after Manifest, err error) {
	defer func() { err = foreign(err) }()
	items = slices.DeleteFunc(slices.Clone(items), before.has)
	if len(items) == 0 {
		if m.options.DeleteSources {
			return before, m.deleteListed(ctx, before)
		}
		return before, nil
	}
	head := before
	head.Number, head.Files = before.next(), nil
	head.Lost = slices.DeleteFunc(slices.Clone(before.Lost), func(lost string) bool { // what was found after all
		return slices.ContainsFunc(items, func(item Item) bool {
			return !item.Lost && (item.Name == lost || strings.HasSuffix(item.Name, "/"+lost))
		})
	})
	after, err = m.move(ctx, folder, head, append(before.items(), items...), earlier, report)
	if err == nil && slices.ContainsFunc(items, func(item Item) bool { return !after.has(item) }) {
		err = fmt.Errorf("somebody else wrote %s meanwhile", head.Key(folder))
	}
	return after, err
}

// items are the files of the manifest, to be listed again.
func (m Manifest) items() (items []Item) {
	for _, f := range m.Files {
		items = append(items, Item{Kept: &f, Size: f.Size})
	}
	return items
}

// move moves the items and writes a manifest.
func (m *Mover) move(ctx context.Context, folder string, head Manifest, all []Item, earlier Progress, report func(Progress)) (Manifest, error) {
	key := head.Key(folder)
	all = slices.DeleteFunc(slices.Clone(all), func(item Item) bool {
		if item.Lost {
			head.Lost = append(head.Lost, item.Name)
		}
		return item.Lost
	})
	r := &run{Mover: m, folder: folder, manifest: key, earlier: map[string]Finished{}, report: report}
	r.progress.Finished = slices.Clone(earlier.Finished)
	for _, f := range earlier.Finished {
		r.earlier[f.Name] = f
	}
	r.progress.Of = len(all)
	for _, item := range all {
		r.progress.OfBytes += item.Size
	}
	files, sources, faults, err := r.all(ctx, all, mostFailures)
	if err == nil {
		err = errors.Join(faults...)
	}
	if err != nil {
		// Whoever was faster has removed what was in the making, too.
		if faster, none := Read(ctx, m.Archive, key); none == nil {
			return faster, nil
		}
		return Manifest{}, err
	}

	head.Version, head.Files = Version, files
	content, err := head.encode()
	if err != nil {
		return Manifest{}, err
	}
	err = m.store.create(ctx, key, content)
	others := errors.Is(err, errExists)
	if err != nil && !others {
		return Manifest{}, fmt.Errorf("write the manifest %s: %w", key, err)
	}
	// What a store took isn't always what it keeps.
	there, err := Read(ctx, m.Archive, key)
	switch {
	case errors.Is(err, ErrNone):
		return Manifest{}, fmt.Errorf("%s was written, and isn't there", key)
	case err != nil || others:
		return there, err
	}
	if kept, err := there.encode(); err != nil || !bytes.Equal(kept, content) {
		return Manifest{}, fmt.Errorf("%s was written and reads otherwise: somebody else writes there, too", key)
	}
	m.store.tidy(ctx, folder)
	if m.options.DeleteSources {
		return there, m.deleteMoved(ctx, there, sources)
	}
	return there, nil
}

// Save moves items ahead of the others of their session, as they will be gone
// before those are there. It returns a file for each, to be its item's Kept from
// then on, or the error for which it wasn't moved. Those that
// were saved before have to be among the items, so that none takes their place.
// Before is the manifest after which they came, if they did. However many fail, the
// others are tried: they may be there for the last time.
func (m *Mover) Save(ctx context.Context, folder string, before *Manifest, items []Item) ([]File, []error) {
	r := &run{Mover: m, folder: folder, manifest: manifestKey(folder, 1), earlier: map[string]Finished{}}
	n := len(items)
	if before != nil {
		r.manifest = manifestKey(folder, before.next())
		items = append(slices.Clone(items), before.items()...)
	}
	files, _, faults, err := r.all(ctx, items, len(items)+1)
	if err != nil {
		return make([]File, n), slices.Repeat([]error{foreign(err)}, n)
	}
	for i, err := range faults {
		faults[i] = foreign(err)
	}
	return files[:n], faults[:n]
}

// errComplete says that a manifest came meanwhile.
var errComplete = errors.New("there is a manifest by now")

// run is one call of Move.
type run struct {
	*Mover
	folder string
	// manifest is what the run is to end with. Where it is already, nobody may change
	// what it lists.
	manifest string
	earlier  map[string]Finished
	report   func(Progress)

	bytes    atomic.Int64
	fromURLs atomic.Int64 // bytes of the files that are read from URLs
	mu       sync.Mutex
	progress Progress
	reported time.Time
}

// moved is a source with the state in which it was moved.
type moved struct {
	source
	state state
}

// mostFailures is how many items may fail before no other is begun: with a store
// that is away, each would only take its time to fail.
const mostFailures = 5

// all moves the items, several at once, until so many have failed. Each that failed
// has its error; the last one is that of all.
func (r *run) all(ctx context.Context, items []Item, most int) ([]File, []moved, []error, error) {
	files, sources, faults := make([]File, len(items)), make([]moved, len(items)), make([]error, len(items))
	for i := range items {
		if k := items[i].Kept; k != nil {
			items[i].Name = strings.TrimPrefix(k.Name, r.folder+"recordings/")
			continue
		}
		faults[i] = r.check(&items[i])
	}
	names := assign(items)
	failures := 0
	var done sync.WaitGroup
	for i, item := range items {
		if faults[i] != nil {
			continue
		}
		release, err := r.slot(ctx, item)
		if err != nil {
			break
		}
		r.mu.Lock()
		enough := failures >= most
		r.mu.Unlock()
		if enough {
			release()
			break
		}
		done.Go(func() {
			defer release()
			if item.Kept != nil {
				files[i], faults[i] = r.kept(ctx, *item.Kept)
			} else {
				src := r.source(item)
				want := File{Name: r.folder + "recordings/" + names[i], Source: src.String(), About: item.About}
				file, st, err := r.move(ctx, src, item, want)
				files[i], sources[i] = file, moved{src, st}
				if err != nil {
					faults[i] = fmt.Errorf("archive %s: %w", src, err)
				}
			}
			if faults[i] != nil {
				r.mu.Lock()
				failures++
				r.mu.Unlock()
			}
		})
	}
	done.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, nil, nil, err
	}
	for _, err := range faults {
		if errors.Is(err, errComplete) {
			return nil, nil, nil, errComplete
		}
	}
	var there []string
	for _, f := range files {
		if f.Name != "" {
			there = append(there, f.Name)
		}
	}
	if err := r.store.settle(there); err != nil {
		return nil, nil, nil, err
	}
	return files, sources, faults, nil
}

// slot waits for the turn of an item.
func (r *run) slot(ctx context.Context, item Item) (release func(), err error) {
	if item.URL != "" {
		return r.urls.acquire(ctx, r.folder)
	}
	return func() { r.turn.Release(1) }, r.turn.Acquire(ctx, 1)
}

// kept finds what was saved before.
func (r *run) kept(ctx context.Context, file File) (File, error) {
	there, err := r.store.look(ctx, file.Name)
	if err != nil {
		return File{}, fmt.Errorf("look for %s, which was saved, in the archive: %w", file.Name, err)
	}
	if there.size != file.Size {
		return File{}, fmt.Errorf("%s was saved with %d bytes and has %d in the archive", file.Name, file.Size, there.size)
	}
	r.mu.Lock()
	r.progress.Files++
	r.mu.Unlock()
	r.wrote(file.Size)
	return file, nil
}

// finish notes that a file was moved.
func (r *run) finish(f Finished) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Files++
	if r.earlier[f.Name] != f {
		r.progress.Finished = append(r.progress.Finished, f)
	}
	total := 0
	for i, f := range slices.Backward(r.progress.Finished) {
		if total += f.bytes(); total > maxFinished {
			r.progress.Finished = slices.Delete(r.progress.Finished, 0, i+1)
			break
		}
	}
	r.tell(true)
}

// wrote notes that so many bytes were moved.
func (r *run) wrote(n int64) {
	r.bytes.Add(n)
	if r.mu.TryLock() {
		r.tell(false)
		r.mu.Unlock()
	}
}

// tell reports, once a second at most unless now.
func (r *run) tell(now bool) {
	if r.report == nil || !now && time.Since(r.reported) < time.Second {
		return
	}
	r.reported = time.Now()
	p := r.progress
	p.Bytes = r.bytes.Load()
	p.Finished = slices.Clone(p.Finished)
	r.report(p)
}
