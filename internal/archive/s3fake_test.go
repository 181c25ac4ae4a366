package archive

import (
	"bytes"
	"crypto/md5" // #nosec G501 -- an ETag
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeS3 is a server for a part of S3's protocol. Tests can change its behavior.
type fakeS3 struct {
	address string
	// before may change a request or answer it. It reports whether it has answered it.
	before func(w http.ResponseWriter, r *http.Request) bool
	// list may change a page before it is sent.
	list func(r *http.Request, page *fakePage)
	// bare means that the store keeps and returns no checksums.
	bare bool

	mu       sync.Mutex
	objects  map[string]*fakeObject // by bucket/key
	uploads  map[string]*fakeUpload
	requests []string
}

type fakeObject struct {
	content []byte
	headers http.Header
}

type fakeUpload struct {
	key     string
	headers http.Header
	parts   map[int][]byte
}

type fakePage struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string      `xml:",omitempty"`
	Contents              []fakeEntry `xml:",omitempty"`
	CommonPrefixes        []struct{ Prefix string }
}

type fakeEntry struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
}

func newFakeS3(t *testing.T) *fakeS3 {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	s := &fakeS3{objects: map[string]*fakeObject{}, uploads: map[string]*fakeUpload{}}
	s.address = newServer(t, s.serve)
	return s
}

// url returns the URL of a bucket.
func (s *fakeS3) url(bucket, options string) string {
	return "s3://" + bucket + "?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape("http://"+s.address) + options
}

func refuse(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>a fake says so</Message></Error>", code)
	return true
}

// kept returns the headers that the store keeps with an object.
func (s *fakeS3) kept(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Amz-Meta-") || name == "Content-Type" {
			out[name] = values
		}
	}
	return out
}

func (s *fakeS3) sum(o *fakeObject, whole bool) {
	if s.bare {
		return
	}
	if whole {
		sum := sha256.Sum256(o.content)
		o.headers.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(sum[:]))
	}
	c := crc64.New(nvme)
	_, _ = c.Write(o.content)
	o.headers.Set("X-Amz-Checksum-Crc64nvme", base64.StdEncoding.EncodeToString(c.Sum(nil)))
	o.headers.Set("X-Amz-Checksum-Type", "FULL_OBJECT")
}

func etag(b []byte) string {
	sum := md5.Sum(b) // #nosec G401
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *fakeS3) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	if s.before != nil && s.before(w, r) {
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	id := bucket + "/" + key
	q := r.URL.Query()
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Method == http.MethodGet && q.Get("list-type") == "2":
		s.listObjects(w, r, bucket)
	case r.Method == http.MethodGet && q.Has("uploads"):
		fmt.Fprint(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
	case r.Method == http.MethodPost && q.Has("uploads"):
		upload := strconv.Itoa(len(s.uploads) + 1)
		s.uploads[upload] = &fakeUpload{id, r.Header, map[int][]byte{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", upload)
	case r.Method == http.MethodPut && q.Has("partNumber"):
		n, _ := strconv.Atoi(q.Get("partNumber"))
		u := s.uploads[q.Get("uploadId")]
		if from := s.copied(r); from != nil {
			var a, b int
			_, _ = fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &a, &b)
			u.parts[n] = from.content[a : b+1]
			fmt.Fprintf(w, "<CopyPartResult><ETag>%s</ETag></CopyPartResult>", etag(u.parts[n]))
			return
		}
		u.parts[n] = body
		w.Header().Set("ETag", etag(body))
	case r.Method == http.MethodPost && q.Has("uploadId"):
		u := s.uploads[q.Get("uploadId")]
		delete(s.uploads, q.Get("uploadId"))
		var all []byte
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			all = append(all, u.parts[n]...)
		}
		o := &fakeObject{all, s.kept(u.headers)}
		s.sum(o, false)
		s.objects[u.key] = o
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>", etag(all))
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		delete(s.uploads, q.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		if r.Header.Get("If-None-Match") == "*" && s.objects[id] != nil {
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		o := &fakeObject{body, s.kept(r.Header)}
		if from := s.copied(r); from != nil {
			o.content = from.content
		}
		s.sum(o, true)
		s.objects[id] = o
		w.Header().Set("ETag", etag(o.content))
		if r.Header.Get("X-Amz-Copy-Source") != "" {
			fmt.Fprintf(w, "<CopyObjectResult><ETag>%s</ETag></CopyObjectResult>", etag(o.content))
		}
	case r.Method == http.MethodDelete:
		delete(s.objects, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		s.get(w, r, s.objects[id])
	}
}

func (s *fakeS3) copied(r *http.Request) *fakeObject {
	from, _ := url.PathUnescape(r.Header.Get("X-Amz-Copy-Source"))
	return s.objects[strings.TrimPrefix(from, "/")]
}

func (s *fakeS3) get(w http.ResponseWriter, r *http.Request, o *fakeObject) {
	if o == nil {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	for name, values := range o.headers {
		if !strings.HasPrefix(name, "X-Amz-Checksum-") || r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
			w.Header()[name] = values
		}
	}
	w.Header().Set("ETag", etag(o.content))
	w.Header().Del("Content-Encoding")
	http.ServeContent(w, r, "", time.Unix(1499676989, 0), bytes.NewReader(o.content))
}

func (s *fakeS3) listObjects(w http.ResponseWriter, r *http.Request, bucket string) {
	q := r.URL.Query()
	size, _ := strconv.Atoi(q.Get("max-keys"))
	if size == 0 || size > 1000 {
		size = 1000
	}
	page := &fakePage{}
	var keys []string
	folders := map[string]bool{}
	for id := range s.objects {
		key, ok := strings.CutPrefix(id, bucket+"/")
		if !ok || !strings.HasPrefix(key, q.Get("prefix")) {
			continue
		}
		if at := strings.Index(key[len(q.Get("prefix")):], "/"); q.Get("delimiter") == "/" && at >= 0 {
			folders[key[:len(q.Get("prefix"))+at+1]] = true
			continue
		}
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if key <= q.Get("continuation-token") {
			continue
		}
		if len(page.Contents) == size {
			page.IsTruncated, page.NextContinuationToken = true, page.Contents[size-1].Key
			break
		}
		o := s.objects[bucket+"/"+key]
		page.Contents = append(page.Contents, fakeEntry{key, "2017-07-10T08:56:29.000Z", etag(o.content), len(o.content)})
	}
	for _, f := range slices.Sorted(maps.Keys(folders)) {
		page.CommonPrefixes = append(page.CommonPrefixes, struct{ Prefix string }{f})
	}
	if s.list != nil {
		s.list(r, page)
	}
	_ = xml.NewEncoder(w).Encode(page)
}
