package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/testenv"
)

// proxy is a reverse proxy for a store. before sees each request first, and reports whether it has
// answered it.
type proxy struct {
	address string
	before  atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	copies  atomic.Int64 // number of copies by the store itself
	bare    atomic.Bool  // removes checksums from responses
}

func newProxy(t *testing.T, s *testenv.S3) *proxy {
	t.Helper()
	p := &proxy{}
	to := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: s.Address})
		r.Out.Host = r.In.Host // part of the signature
	}}
	to.ModifyResponse = func(r *http.Response) error {
		if p.bare.Load() {
			maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "X-Amz-Checksum-") })
		}
		return nil
	}
	to.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.address = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Copy-Source") != "" {
			p.copies.Add(1)
		}
		if before := p.before.Load(); before != nil && (*before)(w, r) {
			return
		}
		to.ServeHTTP(w, r)
	})
	return p
}

func (p *proxy) do(before func(w http.ResponseWriter, r *http.Request) bool) { p.before.Store(&before) }

func slowDown(w http.ResponseWriter) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprint(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
	return true
}

// If the store throttles and connections are cut, Move succeeds after some attempts, with one
// correct manifest.
func TestThrottlingStoreIsRetried(t *testing.T) {
	s := testenv.StartS3(t)
	p := newProxy(t, s)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.URLBy("archive", p.address)})
	var items []Item
	for i := range 6 {
		items = append(items, w.put(fmt.Sprintf("%d.mp4", i), random(uint64(i), i*3<<20+1)))
	}
	var n atomic.Int64
	p.do(func(w http.ResponseWriter, r *http.Request) bool {
		switch i := n.Add(1); {
		case i%7 == 3:
			return slowDown(w)
		case i%11 == 5: // in the middle of a body
			_, _ = r.Body.Read(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}
		return false
	})
	var m Manifest
	var err error
	for range 5 { // as Temporal retries
		if m, err = w.move(Progress{}, items...); err == nil {
			break
		}
		t.Log(err)
	}
	if err != nil || len(m.Files) != len(items) || n.Load() < 30 {
		t.Fatalf("manifest %+v, error %v, after %d requests", m, err, n.Load())
	}
	p.do(func(http.ResponseWriter, *http.Request) bool { return false })
	if faults, err := w.Verify(t.Context(), m, nil); err != nil || len(faults) > 0 {
		t.Errorf("faults %v, %v", faults, err)
	}
	if left := uploads(w); left != 0 {
		t.Errorf("%d uploads were left", left)
	}

	// An error that persists is returned.
	p.do(func(w http.ResponseWriter, r *http.Request) bool { return r.Method != http.MethodHead && slowDown(w) })
	w.removeManifest(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := w.Move(ctx, folder, head, func(context.Context) ([]Item, error) { return items[:1], nil }, Progress{}, nil); err == nil {
		t.Error("no error")
	}
}

// removeManifest removes the manifest without the proxy.
func (w *world) removeManifest(t *testing.T, s *testenv.S3) {
	t.Helper()
	direct, err := blob.OpenBucket(t.Context(), s.URL("archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if err := direct.Delete(t.Context(), folder+"manifest.json"); err != nil {
		t.Fatal(err)
	}
}

// uploads returns the number of multipart uploads that are neither completed nor aborted.
func uploads(w *world) int {
	w.Helper()
	store := w.store.(*s3Store)
	out, err := store.client.ListMultipartUploads(context.Background(), &s3.ListMultipartUploadsInput{Bucket: &store.bucket})
	if err != nil {
		w.Fatal(err)
	}
	return len(out.Uploads)
}

// The store is killed during an upload and started again. Complete files are used, incomplete ones
// are copied again, and no unfinished upload is left.
func TestStoreKilledDuringAnUploadDoesNoHarm(t *testing.T) {
	s := testenv.StartS3(t)
	p := newProxy(t, s)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.URLBy("archive", p.address), Transfers: 1})
	items := []Item{w.put("a.mp4", random(1, 1000)), w.put("b.mp4", random(2, 4*partSize))}
	p.do(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "2" {
			s.Kill()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // the worker dies, too
	defer cancel()
	if m, err := w.Move(ctx, folder, head, func(context.Context) ([]Item, error) { return items, nil }, Progress{}, nil); err == nil {
		t.Fatalf("manifest %+v", m)
	}
	p.do(func(http.ResponseWriter, *http.Request) bool { return false })
	s.Start()
	if left := uploads(w); left != 1 {
		t.Errorf("%d uploads were left, want one to be tidied", left)
	}
	other := w.again()
	m, err := other.move(Progress{}, items...)
	if err != nil || len(m.Files) != 2 || other.copied.Load() != 1 {
		t.Fatalf("manifest %+v, error %v, %d copied", m, err, other.copied.Load())
	}
	if faults, err := w.Verify(t.Context(), m, nil); err != nil || len(faults) > 0 {
		t.Errorf("faults %v, %v", faults, err)
	}
	if left := uploads(w); left != 0 {
		t.Errorf("%d uploads were left", left)
	}
}

// Large files within one store are copied by the store itself.
func TestStoreCopiesServerSide(t *testing.T) {
	defer func(n int64) { copyPart = n }(copyPart)
	for part, copies := range map[int64]int64{1 << 30: 1, int64(partSize): 3} {
		for _, allowed := range []bool{true, false} {
			t.Run(fmt.Sprint(part, allowed), func(t *testing.T) {
				copyPart = part
				s := testenv.StartS3(t)
				p := newProxy(t, s)
				w := newWorld(t, Options{SourceURL: s.URLBy("recordings", p.address) + "&prefix=up/", ArchiveURL: s.URLBy("archive", p.address)})
				content := random(1, 2*partSize+partSize/2)
				items := []Item{w.put("large ü+&.mp4", content), w.put("small.mp4", content[:1000])}
				if !allowed {
					p.do(func(w http.ResponseWriter, r *http.Request) bool {
						if r.Header.Get("X-Amz-Copy-Source") == "" {
							return false
						}
						w.WriteHeader(http.StatusForbidden)
						fmt.Fprint(w, "<Error><Code>AccessDenied</Code></Error>")
						return true
					})
				}
				m := w.moved(items...)
				if m.Files[0].SHA256 != sumOf(content) || !bytes.Equal(w.get(m.Files[0].Name), content) {
					t.Errorf("file %+v", m.Files[0])
				}
				if allowed && p.copies.Load() != copies {
					t.Errorf("%d requests to copy, want %d", p.copies.Load(), copies)
				}
				if left := uploads(w); left != 0 {
					t.Errorf("%d uploads were left", left)
				}
			})
		}
	}
}

// The store verifies uploads with the checksum it is sent, and Move verifies objects with the
// checksum the store keeps, without reading them back.
func TestS3SendsAndReadsChecksums(t *testing.T) {
	s := testenv.StartS3(t)
	p := newProxy(t, s)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.URLBy("archive", p.address)})
	var sent, asked, read atomic.Int64
	p.do(func(_ http.ResponseWriter, r *http.Request) bool {
		for name := range r.Header {
			if r.Method == http.MethodPut && strings.HasPrefix(name, "X-Amz-Checksum-") {
				sent.Add(1)
			}
		}
		if r.Method == http.MethodHead && r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
			asked.Add(1)
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/recordings/") {
			read.Add(1)
		}
		return false
	})
	w.moved(w.put("small.mp4", random(1, 1000)), w.put("large.mp4", random(2, partSize+1)))
	if sent.Load() < 3 || asked.Load() < 2 || read.Load() != 0 {
		t.Errorf("%d checksums sent, %d asked for, %d objects read back", sent.Load(), asked.Load(), read.Load())
	}
}

// Objects in a store that keeps no checksums are read back to verify them.
func TestStoreWithoutChecksumsIsReadBack(t *testing.T) {
	s := testenv.StartS3(t)
	p := newProxy(t, s)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.URLBy("archive", p.address)})
	p.bare.Store(true)
	var read atomic.Int64
	p.do(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/recordings/") {
			read.Add(1)
		}
		return false
	})
	content := random(2, 2*partSize+1)
	if m := w.moved(w.put("large.mp4", content)); m.Files[0].SHA256 != sumOf(content) {
		t.Errorf("manifest %+v", m)
	}
	if read.Load() == 0 {
		t.Error("it wasn't read back")
	}
}

// Storage class, encryption and tags are sent for recordings. The manifest has the bucket's default
// class.
func TestRecordingsHaveClassTagsAndEncryption(t *testing.T) {
	s := testenv.StartS3(t)
	p := newProxy(t, s)
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.URLBy("archive", p.address)})
	w.store.(*s3Store).options = Options{Class: "STANDARD_IA", Encryption: "aws:kms=key-1", Tags: map[string]string{"team": "voice + video"}}
	var recordings, manifests atomic.Int64
	p.do(func(rw http.ResponseWriter, r *http.Request) bool {
		h := r.Header
		begins := r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == "" || r.Method == http.MethodPost && r.URL.Query().Has("uploads")
		switch {
		case !begins:
		case strings.HasSuffix(r.URL.Path, "manifest.json"):
			if h.Get("X-Amz-Storage-Class") == "" && h.Get("X-Amz-Server-Side-Encryption") == "aws:kms" && h.Get("If-None-Match") == "*" {
				manifests.Add(1)
			}
		case h.Get("X-Amz-Storage-Class") == "STANDARD_IA" && h.Get("X-Amz-Server-Side-Encryption") == "aws:kms" &&
			h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id") == "key-1" && h.Get("X-Amz-Tagging") == "team=voice+%2B+video":
			recordings.Add(1)
		}
		return false
	})
	_, err := w.move(Progress{}, w.put("small.mp4", random(1, 1000)), w.put("large.mp4", random(2, partSize+1)))
	if err != nil || recordings.Load() != 2 || manifests.Load() != 1 {
		t.Errorf("sent for %d recordings and %d manifests, want 2 and 1, error %v", recordings.Load(), manifests.Load(), err)
	}
}

// zeros is a large file of zeros that takes no memory.
type zeros struct{ size, at int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.at >= z.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.size-z.at)
	clear(p[:n])
	z.at += n
	return int(n), nil
}

func (z *zeros) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += z.at
	case io.SeekEnd:
		offset += z.size
	}
	z.at = offset
	return offset, nil
}

func newServer(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Memory is bounded by transfers and buffer size, whatever the size of the files.
func TestMemoryIsBounded(t *testing.T) {
	size, count := int64(32<<20), 8
	if testing.Short() {
		size = 16 << 20
	}
	// Collect garbage often, so that the heap's size is the memory in use.
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	s := testenv.StartS3(t)
	for name, archiveURL := range map[string]string{"folder": folderURL(t), "S3": s.URL("archive")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: archiveURL})
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "video/mp4")
				http.ServeContent(w, r, "", time.Time{}, &zeros{size: size})
			}))
			defer server.Close()
			w.options.Client = server.Client()
			var items []Item
			for i := range count {
				items = append(items, Item{URL: fmt.Sprintf("%s/%d", server.URL, i), Size: size})
			}
			runtime.GC()
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			var most atomic.Uint64
			_, err := w.Move(t.Context(), folder, head, func(context.Context) ([]Item, error) { return items, nil }, Progress{}, func(Progress) {
				runtime.ReadMemStats(&now)
				most.Store(max(most.Load(), now.HeapInuse))
			})
			if err != nil {
				t.Fatal(err)
			}
			grown := int64(most.Load()) - int64(before.HeapInuse) //nolint:gosec // some MiB
			t.Logf("%d files of %d MiB took %d MiB of heap at most", count, size>>20, grown>>20)
			if most.Load() == 0 || grown > 64<<20 {
				t.Errorf("%d MiB, want 64 at most", grown>>20)
			}
		})
	}
}
