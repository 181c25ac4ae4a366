package testenv

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/s3blob" // s3:// buckets
)

// s3Variable is the environment variable with the path of versitygw.
const s3Variable = "CLOSEOUT_TEST_VERSITYGW"

// S3 is a versitygw process on this machine, a store that speaks S3's protocol.
type S3 struct {
	// Folder has the store's buckets.
	Folder string
	// Address is the address that the store listens on.
	Address string

	t       testing.TB
	program string

	mu      sync.Mutex
	process *exec.Cmd
}

// StartS3 starts a store and stops it after the test. It sets the store's credentials in the
// environment.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	program := os.Getenv(s3Variable)
	if program == "" {
		var err error
		if program, err = exec.LookPath("versitygw"); err != nil {
			Skip(t, "there is no versitygw: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0, and "+s3Variable+" or PATH says where it is")
		}
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_SESSION_TOKEN": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &S3{Folder: t.TempDir(), Address: l.Addr().String(), t: t, program: program}
	_ = l.Close()
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// Start starts the store and waits until it answers.
func (s *S3) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = exec.Command(s.program, "--port", s.Address, "--access", "test", "--secret", "testsecret", "--quiet", "posix", s.Folder) // #nosec G204
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + s.Address) // #nosec G107
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("versitygw doesn't answer: %v", err)
		}
	}
}

// Kill kills the store, as a power failure would.
func (s *S3) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

// URL returns the URL of a bucket, and creates the bucket if there is none of that name.
func (s *S3) URL(name string) string { return s.URLBy(name, s.Address) }

// URLBy is [S3.URL] with the address of a proxy to the store.
func (s *S3) URLBy(name, address string) string {
	s.t.Helper()
	direct := bucketURL(name, s.Address)
	b, err := blob.OpenBucket(context.Background(), direct)
	if err != nil {
		s.t.Fatal(err)
	}
	defer b.Close()
	var client *s3.Client
	if ok, err := b.IsAccessible(context.Background()); b.As(&client) && (!ok || err != nil) {
		if _, err := client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
			s.t.Fatal(err)
		}
	}
	return bucketURL(name, address)
}

func bucketURL(name, address string) string {
	return "s3://" + name + "?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape("http://"+address)
}
