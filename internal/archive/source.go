package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// source is a recording to copy.
type source interface {
	String() string // name in the manifest, without secrets
	stat(ctx context.Context) (state, error)
	open(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// state identifies a version of a source's content.
type state struct {
	size int64
	etag string
	time time.Time
	kind string // content type
}

// mark returns a digest of the source and its state. It is stored with the object in the archive.
func (s state) mark(src source) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s\n%d", src, s.size, s.etag, s.time.UnixNano()))
	return hex.EncodeToString(sum[:16])
}

// id returns the item's source as in the manifest.
func (i Item) id() string { return cmp.Or(i.Key, bare(i.URL)) }

// check sets the item's name, or returns why it cannot be copied.
func (m *Mover) check(item *Item) error {
	if (item.Key == "") == (item.URL == "") {
		return fmt.Errorf("%w: an item has the key %q and the URL %q, want one of the two", ErrImpossible, item.Key, bare(item.URL))
	}
	base := item.Key
	if item.URL != "" {
		u, err := url.Parse(item.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !ownMachine(m.options.Hosts, u.Hostname())) {
			return fmt.Errorf("%w: %q is not a URL with the scheme https", ErrImpossible, bare(item.URL))
		}
		base = u.Path
	}
	if item.Name == "" {
		item.Name = path.Base(base)
	}
	return nil
}

// ErrImpossible means that an item cannot be copied and a retry is useless.
var ErrImpossible = errors.New("can't be archived")

func (m *Mover) source(item Item) source {
	if item.Key != "" {
		return &object{m.Source, item.Key}
	}
	return &remote{m.options.Client, item.URL}
}

// object is a source in a bucket.
type object struct {
	bucket *blob.Bucket
	key    string
}

func (o *object) String() string { return o.key }

func (o *object) stat(ctx context.Context) (state, error) {
	a, err := o.bucket.Attributes(ctx, o.key)
	if err != nil {
		return state{}, fmt.Errorf("look at it: %w", err)
	}
	return state{a.Size, a.ETag, a.ModTime, a.ContentType}, nil
}

func (o *object) open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	if offset == 0 {
		return o.bucket.NewReader(ctx, o.key, nil)
	}
	return o.bucket.NewRangeReader(ctx, o.key, offset, -1, nil)
}

// deletable reports whether a source is in the app's own folder. Other folders may be shared by
// apps.
func (m *Mover) deletable(manifest Manifest, key string) bool {
	own := strconv.FormatUint(uint64(manifest.AppID), 10) + "/"
	if strings.HasPrefix(key, own) {
		return true
	}
	if m.options.AppFolder != nil {
		own = m.options.AppFolder(manifest.AppID)
	}
	below := Below(m.options.SourceURL, m.options.ArchiveURL)
	return own != "" && strings.HasPrefix(key, own) && (below == "" || !strings.HasPrefix(key, below))
}

// deleteSources deletes the sources of a manifest's files if they are unchanged: in the same state
// as at the copy or, after a crash, with the same content.
func (m *Mover) deleteSources(ctx context.Context, manifest Manifest, sources []moved) error {
	marks := map[string]string{}
	for _, s := range sources {
		if o, ok := s.source.(*object); ok {
			marks[o.key] = s.state.mark(o)
		}
	}
	var faults []error
	for _, f := range manifest.Files {
		if strings.HasPrefix(f.Source, "https://") || !m.deletable(manifest, f.Source) {
			continue
		}
		o := &object{m.Source, f.Source}
		now, err := o.stat(ctx)
		switch mark, known := marks[o.key]; {
		case err != nil:
			faults = append(faults, missing(err))
			continue
		case known && now.mark(o) != mark, now.size != f.Size, !known && sources != nil:
			continue
		case !known:
			sums := &sums{sha256: sha256.New()}
			if err := m.sum(ctx, o, sums, nil); err != nil {
				faults = append(faults, missing(err))
				continue
			}
			if sums.hex() != f.SHA256 {
				continue
			}
		}
		if err := missing(o.bucket.Delete(ctx, o.key)); err != nil {
			faults = append(faults, fmt.Errorf("delete %s, which was archived: %w", o.key, err))
		}
	}
	return errors.Join(faults...)
}

// missing returns nil for the error of a missing object.
func missing(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return err
}

// remote is a source read over HTTPS, from ZEGO's backup storage, which keeps files that ZEGO
// could not upload for some days.
type remote struct {
	client *http.Client
	url    string
}

func (r *remote) String() string { return bare(r.url) }

// bare returns a URL without its credentials.
func bare(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// get requests the content between two offsets.
func (r *remote) get(ctx context.Context, from, to int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	wanted := "bytes=" + strconv.FormatInt(from, 10) + "-"
	if to >= from {
		wanted += strconv.FormatInt(to, 10)
	}
	req.Header.Set("Range", wanted)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := r.client.Do(req)
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL
	}
	if err != nil {
		return nil, fmt.Errorf("get it: %w", err)
	}
	return resp, nil
}

func (r *remote) stat(ctx context.Context) (state, error) {
	resp, err := r.get(ctx, 0, 0) // a signed URL may allow only GET
	if err != nil {
		return state{}, err
	}
	defer resp.Body.Close()
	size := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return state{}, fmt.Errorf("get it: %s, with the range %q, want one with a size", answered(resp), resp.Header.Get("Content-Range"))
		}
	default:
		return state{}, fmt.Errorf("get it: %s", answered(resp))
	}
	if size < 0 {
		return state{}, errors.New("get it: the answer doesn't say how large it is")
	}
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	return state{size, resp.Header.Get("ETag"), modified, resp.Header.Get("Content-Type")}, nil
}

func (r *remote) open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	resp, err := r.get(ctx, offset, -1)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-"),
		resp.StatusCode == http.StatusOK && offset == 0:
		return resp.Body, nil
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset == 0: // it is empty
		_ = resp.Body.Close()
		return http.NoBody, nil
	}
	_ = resp.Body.Close()
	return nil, fmt.Errorf("get it from byte %d on: %s", offset, answered(resp))
}

// answered returns an error with the status alone, without the server's text.
func answered(resp *http.Response) string {
	return fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}
