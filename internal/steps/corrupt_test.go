package steps_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"gocloud.dev/blob/memblob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/steps"
)

// An S3 store reports success but keeps other content of the same size or of another size. The step
// detects that before it writes the manifest.
func TestArchiveDetectsCorruption(t *testing.T) {
	content := []byte("a recording")
	for kept, want := range map[string]string{
		"b recording": "checksum",
		"a record":    "archived with 8",
	} {
		t.Run(kept, func(t *testing.T) {
			var written, manifest atomic.Bool
			store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					_, _ = io.Copy(io.Discard, r.Body)
					written.Store(true)
					manifest.CompareAndSwap(false, strings.HasSuffix(r.URL.Path, "manifest.json"))
					w.Header().Set("ETag", `"not an MD5"`)
					return
				}
				if !written.Load() || strings.HasSuffix(r.URL.Path, "manifest.json") {
					w.WriteHeader(http.StatusNotFound)
					if r.Method == http.MethodGet {
						_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
					}
					return
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(kept)))
				w.Header().Set("ETag", `"not an MD5"`)
				if r.Method == http.MethodGet {
					_, _ = io.WriteString(w, kept)
				}
			}))
			defer store.Close()
			for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PROFILE": ""} {
				t.Setenv(name, value)
			}
			where := "s3://archive?region=us-east-1&use_path_style=true&endpoint=" + store.URL
			target, err := archive.OpenBucket(t.Context(), where)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			r := &steps.Recordings{Source: memblob.OpenBucket(nil), Archive: target}
			r.Options.ArchiveURL = where
			put(t, r.Source, folder+"a.mp4", bytes.Clone(content))
			if done, err := run[activities.Archived](t, newEnv(), r.ArchiveRecordings); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("result %+v, error %v, want one with %q", done, err, want)
			}
			if !written.Load() || manifest.Load() {
				t.Errorf("recording written: %v, manifest written: %v", written.Load(), manifest.Load())
			}
		})
	}
}
