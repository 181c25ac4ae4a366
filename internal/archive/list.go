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
	listPage      = 1000 // S3's maximum
	maxEmptyPages = 100  // in a row; a store may send some while it searches
)

// errListing means that a listing is incomplete. Its missing objects must not count as absent.
var errListing = errors.New("the store broke its listing off")

// pages tracks the pages of a listing.
type pages struct {
	seen  map[string]bool // their first keys
	empty int             // in a row
}

type pagesKey struct{}

// pagesOf returns the pages of the listing in ctx.
func pagesOf(ctx context.Context) *pages {
	p, _ := ctx.Value(pagesKey{}).(*pages)
	return p
}

// add adds a page that starts with the key first. It returns an error if the listing makes no
// progress.
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

// List lists the objects below a prefix. With folders, it lists folders instead of their content.
// An incomplete or endless listing is an error.
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
