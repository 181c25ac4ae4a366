package clouds_test

import (
	"strings"
	"testing"

	"gocloud.dev/blob"

	_ "github.com/closeouthq/closeout/clouds/azure"
	_ "github.com/closeouthq/closeout/clouds/gcs"
	"github.com/closeouthq/closeout/internal/archive"
)

func TestBucketSchemes(t *testing.T) {
	for _, scheme := range []string{"s3", "gs", "azblob"} { // package archive opens file:// itself
		if !blob.DefaultURLMux().ValidBucketScheme(scheme) {
			t.Errorf("%s:// is not compiled in", scheme)
		}
	}
}

func TestURLsWithUnknownPartsAreRefused(t *testing.T) {
	for bucketURL, want := range map[string]string{
		"gs://b": "", "gs://b?universe_domain=example.com&prefix=zego/": "", "azblob://c?storage_account=a": "",

		"gs://b/zego":               "path /zego behind the bucket, want it as an option: gs://b?prefix=zego/",
		"gs://b?endpoint=https://s": `found the option "endpoint", want of these only: prefix, access_id`,
		"gs://key:hunter2@b":        "found credentials in it",
		"azblob://c?region=a":       `found the option "region", want of these only: prefix, storage_account`,
		"ftp://hunter2:x@b":         "not a URL with one of the schemes azblob, file, gs, s3",
	} {
		err := archive.CheckURL(bucketURL)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", bucketURL, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want one with %q", bucketURL, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows a secret: %v", bucketURL, err)
		}
		if _, opened := archive.OpenBucket(t.Context(), bucketURL); err != nil && opened == nil {
			t.Errorf("%s was opened", bucketURL)
		}
	}
}

// Archive and recordings are compared by location, not by spelling.
func TestArchiveAndRecordingsMustBeApart(t *testing.T) {
	t.Setenv("AZURE_STORAGE_ACCOUNT", "ours")
	for _, tt := range []struct{ recordings, archive, want string }{
		{"gs://b", "s3://b", ""},
		{"gs://b", "gs://b?universe_domain=example.com", ""},
		{"azblob://c?storage_account=a", "azblob://c?storage_account=b", ""},

		{"gs://b", "s3://b?endpoint=https://storage.googleapis.com", "the same"},
		{"gs://b", "gs://b?anonymous=true", "the same"},
		{"azblob://c", "azblob://c?storage_account=ours", "the same"},
	} {
		if err := archive.Apart(tt.recordings, tt.archive); (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s and %s: error %v, want %q", tt.recordings, tt.archive, err, tt.want)
		}
	}
}

func TestUnsupportedOptionsAreRefused(t *testing.T) {
	tags := map[string]string{"a": "b"}
	if err := (archive.Options{ArchiveURL: "gs://b", Tags: tags}).Check(); err == nil || !strings.Contains(err.Error(), "Google Cloud Storage has no tags") {
		t.Errorf("tags of Google: %v", err)
	}
	for _, o := range []archive.Options{{ArchiveURL: "gs://b", Class: "NEARLINE", Encryption: "key"}, {ArchiveURL: "azblob://c", Class: "Cool", Encryption: "scope", Tags: tags}} {
		if err := o.Check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestOnlyS3BucketsHaveAnS3Client(t *testing.T) {
	for _, bucketURL := range []string{"gs://bucket", "azblob://container"} {
		if client, _, err := archive.OpenS3(t.Context(), bucketURL); client != nil || err != nil {
			t.Errorf("%s: %v, %v", bucketURL, client, err)
		}
	}
}

func TestLinkIsTheObjectsURL(t *testing.T) {
	if got, want := archive.Link("gs://b", "1/2/a b.mp4"), "gs://b/1/2/a b.mp4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
