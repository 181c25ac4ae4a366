package archive

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// dialect is the set of requests that a store refuses, as documented or observed.
type dialect struct {
	bare   bool // stores no checksums of S3's protocol
	refuse func(r request) (status int, code string)
}

// request is a request as the store receives it.
type request struct {
	*http.Request
	pathStyle bool
}

func (r request) chunked() bool {
	return strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") || r.Header.Get("X-Amz-Trailer") != "" ||
		strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-")
}

func (r request) has(header string) bool { return len(r.Header.Values(header)) > 0 }

func (r request) signs(header string) bool {
	_, list, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	return slices.Contains(strings.Split(list, ";"), header)
}

func (r request) copiesPart() bool {
	return r.has("X-Amz-Copy-Source") && r.URL.Query().Has("partNumber")
}

var dialects = map[string]dialect{
	"Amazon S3": {},
	"Alibaba Cloud OSS": {bare: true, refuse: func(r request) (int, string) {
		switch {
		case r.pathStyle:
			return http.StatusForbidden, "SecondLevelDomainForbidden"
		case r.chunked():
			return http.StatusBadRequest, "InvalidArgument"
		case r.Method == http.MethodPut && r.has("If-None-Match"):
			return http.StatusNotImplemented, "NotImplemented"
		}
		return 0, ""
	}},
	"Tencent Cloud COS": {bare: true, refuse: func(r request) (int, string) {
		if r.pathStyle {
			return http.StatusForbidden, "PathStyleDomainForbidden"
		}
		return 0, ""
	}},
	"Huawei Cloud OBS": {bare: true, refuse: func(r request) (int, string) {
		switch {
		case r.pathStyle && r.Method == http.MethodPut:
			return http.StatusNotFound, "NoSuchKey"
		case r.chunked():
			return http.StatusBadRequest, "XAmzContentSHA256Mismatch"
		}
		return 0, ""
	}},
	"Google Cloud Storage": {bare: true, refuse: func(r request) (int, string) {
		switch {
		case r.signs("accept-encoding"), r.chunked():
			return http.StatusForbidden, "SignatureDoesNotMatch"
		case r.copiesPart():
			return http.StatusNotImplemented, "NotImplemented"
		}
		return 0, ""
	}},
	"Ceph RGW": {bare: true, refuse: func(r request) (int, string) {
		switch {
		case r.chunked():
			return http.StatusBadRequest, "XAmzContentSHA256Mismatch"
		case strings.EqualFold(r.Header.Get("X-Amz-Checksum-Algorithm"), "CRC64NVME"):
			return http.StatusBadRequest, "InvalidRequest"
		}
		return 0, ""
	}},
	"MinIO": {refuse: func(r request) (int, string) {
		if strings.EqualFold(r.Header.Get("X-Amz-Checksum-Algorithm"), "CRC64NVME") {
			return http.StatusBadRequest, "InvalidArgument"
		}
		return 0, ""
	}},
	"Cloudflare R2": {refuse: func(r request) (int, string) {
		switch {
		case r.has("X-Amz-Tagging"), r.has("X-Amz-Tagging-Directive"), r.copiesPart() && r.has("X-Amz-Copy-Source-If-Match"):
			return http.StatusNotImplemented, "NotImplemented"
		}
		return 0, ""
	}},
}

// documented returns the URL of each store in docs/buckets.md, with names for those in
// capitals.
func documented(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/buckets.md")
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([^|]+) \\| `(s3://[^`]+)` \\|[^|]+\\|$").FindAllStringSubmatch(string(page), -1) {
		urls[row[1]] = strings.NewReplacer("BUCKET", "bucket", "APPID", "1250000000", "ACCOUNT", "account").Replace(row[2])
	}
	return urls
}

// roundTripper is an http.RoundTripper made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering makes a fake the store behind every address that clients use until the
// test ends. It returns a function that reports how many requests were refused.
func answering(t *testing.T, d dialect) (s *fakeS3, refusals func() int) {
	t.Helper()
	s = newFakeS3(t)
	s.bare = d.bare
	n := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		bucket := "bucket"
		if first, _, ok := strings.Cut(r.Host, "."); ok && strings.HasPrefix(first, bucket) {
			bucket = first
		}
		style := !strings.HasPrefix(r.Host, bucket+".")
		if !style {
			r.URL.Path, r.URL.RawPath = "/"+bucket+r.URL.Path, ""
		}
		if d.refuse != nil {
			if status, code := d.refuse(request{r, style}); code != "" {
				n++
				return refuse(w, status, code)
			}
		}
		return false
	}
	s3Options = []func(*s3.Options){func(o *s3.Options) {
		o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			r.Host = r.URL.Host
			w := httptest.NewRecorder()
			if r.Body == nil {
				r.Body = http.NoBody
			}
			s.serve(w, r)
			return w.Result(), nil
		})}
	}}
	t.Cleanup(func() { s3Options = nil })
	return s, func() int { return n }
}

// smallParts makes parts small until the test ends.
func smallParts(t *testing.T) {
	size, part := partSize, copyPart
	t.Cleanup(func() { partSize, copyPart = size, part })
	partSize, copyPart = 64<<10, 65<<10
}

// Each store is archived to with its URL in docs/buckets.md. A feature that a store refuses is
// tried once, and not again for the next session.
func TestEveryDocumentedStoreTakesAnArchive(t *testing.T) {
	smallParts(t)
	urls := documented(t)
	if len(urls) != len(dialects) {
		t.Errorf("docs/buckets.md has %d stores, want %d", len(urls), len(dialects))
	}
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			s, refusals := answering(t, d)
			w := newWorld(t, Options{SourceURL: urls[name] + "&prefix=zego/", ArchiveURL: urls[name] + "&prefix=kept/"})
			outside := newWorld(t, Options{ArchiveURL: urls[name] + "&prefix=other/"}) // the store can't copy this one
			contents := [][]byte{random(1, 1000), random(2, partSize+500), random(3, 2*partSize+partSize/2)}
			for n, before := 0, 0; n < 2; n++ {
				for _, w := range []*world{w, outside} {
					var items []Item
					for i, content := range contents {
						items = append(items, w.put(fmt.Sprintf("%d.mp4", i), content))
					}
					session := fmt.Sprintf("1/%d/", n+1)
					m, err := w.Move(t.Context(), session, head, func(context.Context) ([]Item, error) { return items, nil }, Progress{}, nil)
					if err != nil || len(m.Files) != len(items) {
						t.Fatalf("manifest %+v, error %v", m, err)
					}
					for i, f := range m.Files {
						if f.SHA256 != sumOf(contents[i]) || !bytes.Equal(w.get(f.Name), contents[i]) {
							t.Errorf("%s isn't what it was", f.Name)
						}
					}
					if _, err := w.Move(t.Context(), session, head, nil, Progress{}, nil); err != nil {
						t.Error(err)
					}
				}
				if n == 1 && refusals() != before {
					t.Errorf("the store was asked %d times again for what it had refused", refusals()-before)
				}
				before = refusals()
			}
			if len(s.uploads) > 0 {
				t.Errorf("%d uploads were left", len(s.uploads))
			}
		})
	}
}

// If the store refuses to copy, with whatever error, the file is uploaded instead. A source that
// can't be read and a failing store are errors.
func TestFileThatTheStoreCannotCopyIsUploaded(t *testing.T) {
	smallParts(t)
	for _, part := range []int64{1 << 30, int64(partSize)} {
		copyPart = part
		for _, tt := range []struct {
			status int
			code   string
			reads  int // status of a read of the source
			want   bool
		}{
			{http.StatusNotImplemented, "NotImplemented", 0, true},
			{http.StatusBadRequest, "InvalidArgument", 0, true},
			{http.StatusBadRequest, "InvalidRequest", 0, true},
			{http.StatusBadRequest, "UnsupportedHeader", 0, true},
			{http.StatusMethodNotAllowed, "MethodNotAllowed", 0, true},
			{http.StatusForbidden, "AccessDenied", 0, true},
			{http.StatusForbidden, "AccessDenied", http.StatusForbidden, false},
			{http.StatusNotFound, "NoSuchKey", 0, false},
			{http.StatusPreconditionFailed, "PreconditionFailed", 0, false},
			{http.StatusInternalServerError, "InternalError", 0, false},
		} {
			t.Run(fmt.Sprint(part, tt.status, tt.code, tt.reads), func(t *testing.T) {
				s := newFakeS3(t)
				w := newWorld(t, Options{SourceURL: s.url("recordings", ""), ArchiveURL: s.url("archive", "")})
				item := w.put("a.mp4", random(1, 2*partSize))
				s.before = func(rw http.ResponseWriter, r *http.Request) bool {
					switch {
					case r.Header.Get("X-Amz-Copy-Source") != "":
						return refuse(rw, tt.status, tt.code)
					case tt.reads != 0 && r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/recordings/"):
						return refuse(rw, tt.reads, "AccessDenied")
					}
					return false
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.status >= 500 {
					s3Options = []func(*s3.Options){func(o *s3.Options) { o.RetryMaxAttempts = 1 }}
					defer func() { s3Options = nil }()
					w = newWorld(t, w.options)
				}
				m, err := w.Move(ctx, folder, head, func(context.Context) ([]Item, error) { return []Item{item}, nil }, Progress{}, nil)
				if (err == nil) != tt.want {
					t.Errorf("manifest %+v, error %v", m, err)
				}
				if len(s.uploads) > 0 {
					t.Errorf("%d uploads were left", len(s.uploads))
				}
			})
		}
	}
}

// If the environment switches checksums off, the store receives none.
func TestEnvironmentSwitchesChecksumsOff(t *testing.T) {
	s := newFakeS3(t)
	t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
	w := newWorld(t, Options{SourceURL: folderURL(t), ArchiveURL: s.url("archive", "")})
	s.before = func(_ http.ResponseWriter, r *http.Request) bool {
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Amz-Checksum-") || strings.HasPrefix(name, "X-Amz-Sdk-Checksum") {
				t.Errorf("%s %s has %s", r.Method, r.URL, name)
			}
		}
		return false
	}
	w.moved(w.put("small.mp4", random(1, 1000)), w.put("large.mp4", random(2, partSize+1)))
}

// Advice about permissions is given only if a permission was refused.
func TestAdviceFitsTheRefusal(t *testing.T) {
	for name, tt := range map[string]struct {
		url, want string
		refuse    func(r request) (int, string)
	}{
		"chunks": {"s3://bucket?region=us-east-1", "InvalidArgument, which no permission changes",
			func(r request) (int, string) { return http.StatusBadRequest, "InvalidArgument" }},
		"path style": {"s3://bucket?region=us-east-1&use_path_style=true", "remove use_path_style=true",
			dialects["Tencent Cloud COS"].refuse},
		"permissions": {"s3://bucket?region=us-east-1", "the worker may read and write it",
			func(r request) (int, string) { return http.StatusForbidden, "AccessDenied" }},
	} {
		t.Run(name, func(t *testing.T) {
			answering(t, dialect{refuse: tt.refuse})
			b, err := OpenBucket(t.Context(), tt.url)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			err = Probe(t.Context(), nil, b, Options{ArchiveURL: tt.url})
			if advice := Advice("CLOSEOUT_ARCHIVE_URL", err); err == nil || !strings.Contains(advice, tt.want) {
				t.Errorf("%q for %v, want %q", advice, err, tt.want)
			}
		})
	}
}
