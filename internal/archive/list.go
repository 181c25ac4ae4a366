package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"gocloud.dev/blob"
)

const (
	listPage = 1000 // S3's maximum
	// maxEmptyPages in a row is how many a store may send that looks for what it has.
	maxEmptyPages = 100
)

// errListing is of a listing that can't be gone through to its end: what it lacks
// would be taken for missing.
var errListing = errors.New("the store broke its listing off")

// pages are those of a listing, as the store sent them.
type pages struct {
	seen  map[string]bool // what they began with
	empty int             // in a row
}

type pagesKey struct{}

// pagesOf returns those of the listing that the context is of.
func pagesOf(ctx context.Context) *pages {
	p, _ := ctx.Value(pagesKey{}).(*pages)
	return p
}

// add reports whether the listing goes on, by what a page begins with.
func (p *pages) add(first string) error {
	switch {
	case p == nil:
		return nil
	case first == "":
		if p.empty++; p.empty > maxEmptyPages {
			return fmt.Errorf("%w: %d pages in a row were empty", errListing, p.empty)
		}
		return nil
	case p.seen[first]:
		return fmt.Errorf("%w: it sent the page that begins with %s again", errListing, first)
	}
	p.empty, p.seen[first] = 0, true
	return nil
}

// List lists what is in a bucket below a prefix; with folders, those are listed in the
// place of what is in them. A listing that breaks off, or would never end, is an error.
func List(ctx context.Context, bucket *blob.Bucket, prefix string, folders bool) iter.Seq2[*blob.ListObject, error] {
	return func(yield func(*blob.ListObject, error) bool) {
		ctx := context.WithValue(ctx, pagesKey{}, &pages{seen: map[string]bool{}})
		o := &blob.ListOptions{Prefix: prefix}
		if folders {
			o.Delimiter = "/"
		}
		for token := blob.FirstPageToken; ; {
			objects, next, err := bucket.ListPage(ctx, token, listPage, o)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, foreign(err))
				return
			}
			for _, object := range objects {
				if !yield(object, nil) {
					return
				}
			}
			if token = next; len(next) == 0 {
				return
			}
		}
	}
}
