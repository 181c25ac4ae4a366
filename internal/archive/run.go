package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Progress is the progress of moving a session's recordings.
type Progress struct {
	// Files of Of files and Bytes of OfBytes bytes have been copied. Bytes to be copied again
	// count until their copy starts.
	Files   int   `json:"files"`
	Of      int   `json:"of"`
	Bytes   int64 `json:"bytes"`
	OfBytes int64 `json:"of_bytes"`
	// Finished lists copied files for the next attempt. It is bounded; the next attempt finds
	// the others in the archive.
	Finished []Finished `json:"finished,omitempty"`
}

// Finished is a copied file.
type Finished struct {
	Name   string `json:"name"`
	Mark   string `json:"mark"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// maxFinished bounds the JSON of [Progress.Finished] in bytes: Temporal warns about
// heartbeats from 256 KiB on.
const maxFinished = 128 << 10

// errComplete means that another worker has written the manifest.
var errComplete = errors.New("there is a manifest by now")

// run is one call of Move, Add or Save.
type run struct {
	*Mover
	folder   string
	manifest string // key of the manifest; once it exists, its files must not change
	earlier  map[string]Finished
	report   func(Progress)

	bytes    atomic.Int64
	fromURLs atomic.Int64 // bytes read from URLs
	mu       sync.Mutex
	progress Progress
	reported time.Time
}

// moved is a source with its state at the time of the copy.
type moved struct {
	source
	state state
}

// maxFailures is the number of failed items after which no other is started. If the store is
// unavailable, each would only fail slowly.
const maxFailures = 5

// all copies the items concurrently until too many have failed. It returns an error for each
// item, and one for all.
func (r *run) all(ctx context.Context, items []Item, failures int) ([]File, []moved, []error, error) {
	files, sources, faults := make([]File, len(items)), make([]moved, len(items)), make([]error, len(items))
	for i := range items {
		if k := items[i].Kept; k != nil {
			items[i].Name = strings.TrimPrefix(k.Name, r.folder+"recordings/")
			continue
		}
		faults[i] = r.check(&items[i])
	}
	names := assign(items)
	failed := 0
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
		enough := failed >= failures
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
				failed++
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

// slot waits for a free transfer.
func (r *run) slot(ctx context.Context, item Item) (release func(), err error) {
	if item.URL != "" {
		return r.urls.acquire(ctx, r.folder)
	}
	return func() { r.turn.Release(1) }, r.turn.Acquire(ctx, 1)
}

// kept returns a saved file if it is still in the archive.
func (r *run) kept(ctx context.Context, file File) (File, error) {
	there, err := r.store.look(ctx, file.Name)
	if err != nil {
		return File{}, fmt.Errorf("look for %s, saved before, in the archive: %w", file.Name, err)
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

// finish records a copied file.
func (r *run) finish(f Finished) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Files++
	if r.earlier[f.Name] != f {
		r.progress.Finished = append(r.progress.Finished, f)
	}
	total := 0
	for i, f := range slices.Backward(r.progress.Finished) {
		if total += 150 + 2*len(f.Name); total > maxFinished { // as JSON, its name escaped
			r.progress.Finished = slices.Delete(r.progress.Finished, 0, i+1)
			break
		}
	}
	r.reportNow(true)
}

// wrote records n copied bytes.
func (r *run) wrote(n int64) {
	r.bytes.Add(n)
	if r.mu.TryLock() {
		r.reportNow(false)
		r.mu.Unlock()
	}
}

// reportNow reports the progress, at most once a second unless forced.
func (r *run) reportNow(force bool) {
	if r.report == nil || !force && time.Since(r.reported) < time.Second {
		return
	}
	r.reported = time.Now()
	p := r.progress
	p.Bytes = r.bytes.Load()
	p.Finished = slices.Clone(p.Finished)
	r.report(p)
}
