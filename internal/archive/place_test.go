package archive

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestURLsWithUnknownPartsAreRefused(t *testing.T) {
	for bucketURL, want := range map[string]string{
		"s3://b": "", "s3://b/": "", "s3://b?prefix=zego/": "", "s3://b?prefix=zego/rec/": "",
		"s3://b?region=eu-central-1&endpoint=https://minio.example.com:9000&use_path_style=true": "",
		"file:///srv/rec": "", "file://./data/rec": "", "file:///srv/rec?create_dir=true&prefix=a/": "",

		"s3://b/zego/":                        "path /zego/ behind the bucket, want it as an option: s3://b?prefix=zego/",
		"s3://b?prefix=zego":                  "want folders with a slash at the end",
		"s3://b?prefix=/zego/":                "none at the start",
		"s3://b?prefix=a//b/":                 "found prefix=a//b/",
		"s3://b?prefix=a/../b/":               "found prefix=a/../b/",
		"s3://b?prefix=./":                    "found prefix=./",
		"s3://b?prefix=a/&prefix=b/":          "option prefix twice",
		"s3://b?prefix=":                      "option prefix without a value",
		"s3://b?prefx=zego/":                  `found the option "prefx", want of these only: prefix, region`,
		"file:///srv/rec?no_tmp_dir=true":     `found the option "no_tmp_dir"`,
		"file:///srv/rec?create_dir=false":    "found create_dir=false, want create_dir=true or none",
		"file:///srv/rec?metadata=skip":       `found the option "metadata"`,
		"s3://b?a=b;c":                        "options that can't be read",
		"s3:b":                                "found no // behind s3:",
		"s3:///b":                             "found no bucket",
		"s3://minio:9000/b":                   "found the host minio:9000 where the bucket's name should be",
		"s3://b#c":                            "found a # in it",
		"s3://key:hunter2@b":                  "found credentials in it",
		"s3://b?endpoint=minio:9000":          "an endpoint that isn't the URL of a host",
		"s3://b?endpoint=https://k:hunter2@m": "an endpoint that isn't the URL of a host",
		"file://data/rec":                     "found the host data, want file:///data/rec for a path from the root, or file://./data/rec",
		"file://rec":                          "found the host rec",
		"file://":                             "found no folder",
		"file:///":                            "found no folder",
		"file://./":                           "found no folder",
		"file:data":                           "found no // behind file:",
		"/srv/rec":                            "not a URL with one of the schemes",
		"ftp://hunter2:x@b":                   "not a URL with one of the schemes file, s3",
		"gs://b":                              `this program has no gs:// buckets, want the program or the image closeout-clouds, or in a program of your own: import _ "github.com/closeouthq/closeout/clouds/gcs"`,
		"azblob://hunter2:x@c":                `this program has no azblob:// buckets, want the program or the image closeout-clouds, or in a program of your own: import _ "github.com/closeouthq/closeout/clouds/azure"`,
		"s3://hunter2:%zz@b":                  "not a URL",
		"":                                    "not a URL with one of the schemes",
	} {
		err := CheckURL(bucketURL)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", bucketURL, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want one with %q", bucketURL, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows a secret: %v", bucketURL, err)
		}
		if _, opened := OpenBucket(t.Context(), bucketURL); err != nil && opened == nil {
			t.Errorf("%s was opened", bucketURL)
		}
	}
}

// Archive and recordings are compared by place, whatever the spelling of their URLs.
func TestArchiveAndRecordingsMustBeApart(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "real", "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	files := "file://" + filepath.ToSlash(dir)
	for _, tt := range []struct{ recordings, archive, want string }{
		{"s3://a", "s3://b", ""},
		{"s3://b", "s3://b?prefix=kept/", ""},
		{"s3://b?prefix=zego/", "s3://b", ""},
		{"s3://b?endpoint=https://one.example", "s3://b?endpoint=https://two.example", ""},
		{"s3://b?prefix=a/", "s3://b?prefix=ab/", ""},
		{files + "/real", files + "/other", ""},
		{files + "/real", files + "/real/kept", ""},

		{"s3://b", "s3://b?region=eu-west-1&use_path_style=true", "the same"},
		{"s3://b?endpoint=https://m.example", "s3://b/?endpoint=https://M.example:443/", "the same"},
		{"s3://b?region=us-east-1", "s3://b?endpoint=https://s3.us-east-1.amazonaws.com", "the same"},
		{"s3://b?endpoint=https://oss-cn-hangzhou.aliyuncs.com", "s3://b?endpoint=https://s3.oss-cn-hangzhou.aliyuncs.com", "the same"},
		{"s3://b", "s3://b?prefix=1/", "folder 1/ of the other"},
		{"s3://b?prefix=2/", "s3://b", "folder 2/ of the other"},
		{"s3://b?prefix=a/", "s3://b?prefix=a/7/x/", "folder 7/x/ of the other"},
		{files + "/real", files + "/link", "the same"},
		{files + "/real/new", files + "/link/new/", "the same"},
		{"file://./real", files + "/link/../real", "the same"},
		{files + "/real", files + "/link?prefix=1/", "folder 1/ of the other"},
		{files + "/real?prefix=in/", files + "/link/in", "the same"},
	} {
		if err := Apart(tt.recordings, tt.archive); (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s and %s: error %v, want %q", tt.recordings, tt.archive, err, tt.want)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "https://m.example")
	if err := Apart("s3://b", "s3://b?endpoint=https://m.example"); err == nil {
		t.Error("an endpoint from the environment was overlooked")
	}
	if got := Below("s3://b?prefix=in/", "s3://b?prefix=in/kept/"); got != "kept/" {
		t.Errorf("below %q", got)
	}
}
