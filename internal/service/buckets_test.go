package service

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/archive"
)

// store is an S3 store that answers HEAD and PUT of a bucket.
type store struct {
	head, put int    // HTTP statuses
	code      string // error code in the answer to PUT
	asked     []string
	body      string
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	if r.Method == http.MethodHead {
		w.WriteHeader(s.head)
		return
	}
	b := make([]byte, max(0, r.ContentLength))
	_, _ = r.Body.Read(b)
	s.body = string(b)
	w.WriteHeader(s.put)
	if s.code != "" {
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>no</Message></Error>`, s.code)
	}
}

func TestBucketIsCreatedOnce(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	tests := []struct {
		name   string
		store  store
		region string
		asked  []string
		made   bool
		body   string // part of PUT's body
		fault  string
	}{
		{name: "it is there", store: store{head: 200}, asked: []string{"HEAD /archive"}},
		{name: "it isn't", store: store{head: 404, put: 200}, asked: []string{"HEAD /archive", "PUT /archive"}, made: true},
		{name: "elsewhere", store: store{head: 404, put: 200}, region: "eu-central-1", asked: []string{"HEAD /archive", "PUT /archive"}, made: true, body: "<LocationConstraint>eu-central-1<"},
		{name: "another was faster", store: store{head: 404, put: 409, code: "BucketAlreadyOwnedByYou"}, asked: []string{"HEAD /archive", "PUT /archive"}},
		{name: "it is somebody else's", store: store{head: 404, put: 409, code: "BucketAlreadyExists"}, asked: []string{"HEAD /archive", "PUT /archive"}, fault: "SETTING: make bucket archive: "},
		{name: "we may not look", store: store{head: 403}, asked: []string{"HEAD /archive"}, fault: "SETTING: look for bucket archive: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(&tt.store)
			defer server.Close()
			if tt.region == "" {
				tt.region = "us-east-1"
			}
			made, err := makeBucket(t.Context(), "SETTING", "s3://archive?prefix=a/&use_path_style=true&region="+tt.region+"&endpoint="+server.URL)
			if made != tt.made || !slices.Equal(tt.store.asked, tt.asked) {
				t.Errorf("made: %v, asked: %v", made, tt.store.asked)
			}
			if !strings.Contains(tt.store.body, tt.body) || tt.body == "" && strings.Contains(tt.store.body, "Location") {
				t.Errorf("body: %q", tt.store.body)
			}
			if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.fault) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestOnlyS3BucketsAreMade(t *testing.T) {
	archive.Register("cloud", archive.Cloud{})
	for _, bucketURL := range []string{"file:///no/such/folder", "cloud://bucket"} {
		if made, err := makeBucket(t.Context(), "SETTING", bucketURL); made || err != nil {
			t.Errorf("%s: %v, %v", bucketURL, made, err)
		}
	}
}
