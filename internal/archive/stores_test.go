package archive

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A list that is truncated without a token, and one whose pages repeat, are errors. Otherwise half
// the files would be archived, or the list would never end.
func TestIncompleteListingIsAnError(t *testing.T) {
	for name, lie := range map[string]func(r *http.Request, page *fakePage){
		"truncated without a token": func(_ *http.Request, page *fakePage) { page.IsTruncated, page.NextContinuationToken = true, "" },
		"a token that is ignored":   func(_ *http.Request, page *fakePage) { page.IsTruncated, page.NextContinuationToken = true, "next" },
		"a new token that is ignored": func(r *http.Request, page *fakePage) {
			page.IsTruncated, page.NextContinuationToken = true, r.URL.Query().Get("continuation-token")+"x"
		},
		"nothing but tokens": func(r *http.Request, page *fakePage) {
			page.IsTruncated, page.NextContinuationToken, page.Contents = true, r.URL.Query().Get("continuation-token")+"x", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeS3(t)
			b, err := OpenBucket(t.Context(), s.url("recordings", "&prefix=zego/"))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for i := range 5 {
				if err := b.WriteAll(t.Context(), fmt.Sprintf("%s%d.mp4", folder, i), []byte("x"), nil); err != nil {
					t.Fatal(err)
				}
			}
			if keys, err := list(t.Context(), b, folder, false); err != nil || len(keys) != 5 {
				t.Fatalf("before: %q, %v", keys, err)
			}
			s.list = lie
			if keys, err := list(t.Context(), b, folder, false); !errors.Is(err, errListing) {
				t.Errorf("%d keys, error %v", len(keys), err)
			}
			if n := len(s.requests); n > 200 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A store may keep other content than it acknowledged, so the manifest is read back.
func TestManifestIsReadBackBeforeSourcesAreDeleted(t *testing.T) {
	for name, keep := range map[string]func(b []byte) []byte{
		"framed": func(b []byte) []byte {
			return slices.Concat([]byte("2ac;chunk-signature=0\r\n"), b, []byte("\r\n0\r\n"))
		},
		"cut off": func(b []byte) []byte { return b[:len(b)-10] },
		"empty":   func([]byte) []byte { return nil },
		"another": func(b []byte) []byte { return bytes.Replace(b, []byte(`"size": 11`), []byte(`"size": 12`), 1) },
		"lost":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeS3(t)
			w := newWorld(t, Options{SourceURL: s.url("recordings", ""), ArchiveURL: s.url("archive", ""), DeleteSources: true})
			item := w.put("a.mp4", []byte("a recording"))
			id := "archive/" + folder + "manifest.json"
			s.before = func(w http.ResponseWriter, r *http.Request) bool {
				if o := s.objects[id]; o != nil && keep == nil {
					delete(s.objects, id)
				} else if o != nil {
					o.content, keep = keep(o.content), func(b []byte) []byte { return b }
				}
				return false
			}
			if m, err := w.move(Progress{}, item); err == nil || !strings.Contains(err.Error(), "manifest.json") {
				t.Errorf("manifest %+v, error %v", m, err)
			}
			if s.objects["recordings/"+item.Key] == nil {
				t.Error("the source was deleted")
			}
		})
	}
}
