// Package archive moves a session's recordings to the archive, and verifies them there.
//
// A [Mover] copies several objects concurrently with bounded memory, verifies each, and
// writes the [Manifest] last. It may be killed at any time and started again. It does not
// copy an object again that is complete in the archive and unchanged at its source.
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

	"gocloud.dev/blob"
	"golang.org/x/sync/semaphore"
)

// Options are the options of a [Mover]. The zero value is usable.
type Options struct {
	// SourceURL and ArchiveURL are the URLs of the buckets. Without them, only the features
	// common to all stores are used.
	SourceURL, ArchiveURL string
	// Transfers bounds the concurrent copies of a Mover. Each takes about 11 MiB. Default:
	// [DefaultTransfers].
	Transfers int
	// Class, Tags and Encryption are the storage class, tags and encryption of the
	// recordings, in the store's own words: see [Options.Check].
	Class      string
	Tags       map[string]string
	Encryption string
	// AppFolder, if set, returns another folder of an app in the recordings bucket besides
	// "<appid>/", or "".
	AppFolder func(appID uint32) string
	// DeleteSources deletes sources in the bucket once the manifest is written.
	DeleteSources bool
	// Hosts are the hosts that URLs may be read from, see [ParseHosts]; none: all.
	Hosts []string
	// Client reads URLs. The default only connects to public addresses.
	Client *http.Client
}

// DefaultTransfers is the default of [Options.Transfers].
const DefaultTransfers = 4

// Item is a recording to move. It has a Key or a URL, or is Kept or Lost.
type Item struct {
	// Key is the key of an object in the bucket of the recordings.
	Key string
	// URL is an https URL.
	URL string
	// Name is the wanted name below the session's recordings. The default is the last
	// part of the key or URL.
	Name string
	// Size is the expected size in bytes; 0 if unknown.
	Size int64
	// Kept is the file that [Mover.Save] returned for the item. Its source may be deleted.
	Kept *File
	// Lost marks a recording that was never uploaded. The manifest names it.
	Lost bool
	About
}

// Mover moves recordings from one bucket to another.
type Mover struct {
	Source  *blob.Bucket // the bucket that recordings are uploaded to
	Archive *blob.Bucket // the bucket that keeps them
	// Observe, if set, is called with the size of each file that was copied.
	Observe func(size int64)

	options Options
	store   store
	turn    *semaphore.Weighted
	urls    *slots
	buffers sync.Pool // of *[]byte, readSize large
}

// NewMover returns a Mover between two buckets. It returns an error for options that the
// archive's store does not support.
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
// returns its manifest. head is the manifest without files. If there is a manifest already,
// Move does not call items and only deletes sources. earlier is the progress of an earlier
// attempt. Move calls report with its own progress from time to time, not concurrently.
//
// The error joins the errors of all failed items. The others are copied, and another call
// continues from there. If ctx ends, the error wraps its cause.
func (m *Mover) Move(ctx context.Context, folder string, head Manifest, items func(context.Context) ([]Item, error), earlier Progress, report func(Progress)) (_ Manifest, err error) {
	defer func() { err = foreign(err) }()
	switch there, err := Latest(ctx, m.Archive, folder); {
	case err == nil && m.options.DeleteSources:
		return there, m.deleteSources(ctx, there, nil)
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

// Add is like [Mover.Move] for items that arrived after the session's manifest was written. It
// writes the next manifest, which also lists the files of the one before. before is the
// result of [Latest]. Without a new item, Add only deletes sources.
func (m *Mover) Add(ctx context.Context, folder string, before Manifest, items []Item, earlier Progress, report func(Progress)) (after Manifest, err error) {
	defer func() { err = foreign(err) }()
	items = slices.DeleteFunc(slices.Clone(items), before.has)
	if len(items) == 0 {
		if m.options.DeleteSources {
			return before, m.deleteSources(ctx, before, nil)
		}
		return before, nil
	}
	head := before
	head.Number, head.Files = before.next(), nil
	head.Lost = slices.DeleteFunc(slices.Clone(before.Lost), func(lost string) bool { // no longer lost
		return slices.ContainsFunc(items, func(item Item) bool {
			return !item.Lost && (item.Name == lost || strings.HasSuffix(item.Name, "/"+lost))
		})
	})
	after, err = m.move(ctx, folder, head, append(before.items(), items...), earlier, report)
	if err == nil && slices.ContainsFunc(items, func(item Item) bool { return !after.has(item) }) {
		err = fmt.Errorf("another worker wrote %s meanwhile", head.Key(folder))
	}
	return after, err
}

// items returns the files of the manifest as items of the next one.
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
	files, sources, faults, err := r.all(ctx, all, maxFailures)
	if err == nil {
		err = errors.Join(faults...)
	}
	if err != nil {
		// A faster worker has removed unfinished files, too.
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
	// Read it back, because a store may corrupt it.
	there, err := Read(ctx, m.Archive, key)
	switch {
	case errors.Is(err, ErrNone):
		return Manifest{}, fmt.Errorf("%s was written and isn't there", key)
	case err != nil || others:
		return there, err
	}
	if kept, err := there.encode(); err != nil || !bytes.Equal(kept, content) {
		return Manifest{}, fmt.Errorf("%s was written and reads differently: another process writes there, too", key)
	}
	m.store.tidy(ctx, folder)
	if m.options.DeleteSources {
		return there, m.deleteSources(ctx, there, sources)
	}
	return there, nil
}

// Save copies items before the others of their session, because their sources expire. It
// returns a file for each item, to be set as its Kept from then on, or an error. The items
// must include those saved before, so that no other takes their names. before is the
// session's manifest or nil. Save tries all items even if many fail, because this may be the
// last chance.
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
