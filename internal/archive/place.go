package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
)

// bucketOptions returns the options of a bucket's URL besides prefix. All are those of gocloud.
func bucketOptions(scheme string) (options []string, ok bool) {
	switch scheme {
	case "file":
		return []string{"create_dir"}, true
	case "s3":
		return []string{"region", "endpoint", "profile", "role", "anonymous", "dualstack", "fips", "accelerate", "use_path_style", "disable_https",
			"ssetype", "kmskeyid"}, true
	}
	c, ok := clouds[scheme]
	return c.Options, ok
}

// location is a parsed bucket URL.
type location struct {
	scheme string
	bucket string // a folder's path, or the bucket's name
	prefix string
	query  url.Values // all options, the prefix among them
}

// CheckURL returns an error for an invalid bucket URL. The error does not show the URL, which may
// contain credentials.
func CheckURL(bucketURL string) error {
	_, err := parseLocation(bucketURL)
	return err
}

func parseLocation(bucketURL string) (location, error) {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return location{}, errors.New("not a URL, want one as in s3://bucket?region=eu-central-1")
	}
	known, ok := bucketOptions(u.Scheme)
	switch {
	case !ok:
		return location{}, schemeError(u.Scheme)
	case u.Opaque != "":
		return location{}, fmt.Errorf("found no // behind %s:, want %s://", u.Scheme, u.Scheme)
	case u.User != nil:
		return location{}, errors.New("found credentials in it, want them where the store's SDK looks for them, such as its environment variables")
	case u.Fragment != "":
		return location{}, errors.New("found a # in it, want that written as %23")
	}
	l := location{scheme: u.Scheme, bucket: u.Host}
	if l.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return location{}, errors.New("found options that can't be read, want name=value, several separated by &")
	}
	for name, values := range l.query {
		switch {
		case name != "prefix" && !slices.Contains(known, name):
			return location{}, fmt.Errorf("found the option %q, want of these only: prefix, %s", name, strings.Join(known, ", "))
		case len(values) > 1:
			return location{}, fmt.Errorf("found the option %s twice", name)
		case values[0] == "":
			return location{}, fmt.Errorf("found the option %s without a value", name)
		}
	}
	if l.prefix = l.query.Get("prefix"); l.prefix != "" && (!strings.HasSuffix(l.prefix, "/") || path.Clean("/"+l.prefix) != "/"+strings.TrimSuffix(l.prefix, "/")) {
		return location{}, fmt.Errorf("found prefix=%s, want folders with a slash at the end and none at the start, as in prefix=zego/", l.prefix)
	}
	if u.Scheme == "file" {
		return l, l.folder(u)
	}
	switch {
	case u.Host == "":
		return location{}, fmt.Errorf("found no bucket in it, want %s://bucket", u.Scheme)
	case u.Port() != "" || strings.ContainsAny(u.Host, ":[]"):
		return location{}, fmt.Errorf("found the host %s where the bucket's name should be, want it as an option: %s://bucket?endpoint=HOST", u.Host, u.Scheme)
	case strings.Trim(u.Path, "/") != "":
		return location{}, fmt.Errorf("found the path %s behind the bucket, want it as an option: %s://%s?prefix=%s/", u.Path, u.Scheme, u.Host, strings.Trim(u.Path, "/"))
	}
	if endpoint := l.query.Get("endpoint"); endpoint != "" {
		e, err := url.Parse(endpoint)
		if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil || e.RawQuery != "" || e.Fragment != "" {
			return location{}, errors.New("found an endpoint that isn't the URL of a host alone, want one as in endpoint=https://s3.example.com")
		}
	}
	return l, nil
}

// folder sets the folder of a file:// URL.
func (l *location) folder(u *url.URL) error {
	switch {
	case u.Host == "." && strings.Trim(u.Path, "/") != "":
		l.bucket = filepath.FromSlash(strings.TrimPrefix(u.Path, "/"))
	case u.Host == "" && strings.Trim(u.Path, "/") != "":
		l.bucket = filepath.FromSlash(u.Path)
		if filepath.Separator != '/' {
			l.bucket = strings.TrimPrefix(l.bucket, string(filepath.Separator)) // \C:\data
		}
	case u.Host != "" && u.Host != ".":
		return fmt.Errorf("found the host %s, want file:///%s%s for a path from the root, or file://./%s%s for one from the working directory", u.Host, u.Host, u.Path, u.Host, u.Path)
	default:
		return errors.New("found no folder in it, want one as in file:///srv/recordings")
	}
	if d := l.query.Get("create_dir"); d != "" && d != "true" {
		return fmt.Errorf("found create_dir=%s, want create_dir=true or none", d)
	}
	return nil
}

// OpenBucket opens the bucket of a URL that passes [CheckURL]. In this bucket, incomplete listings
// and unreadable folders are errors.
func OpenBucket(ctx context.Context, bucketURL string) (*blob.Bucket, error) {
	l, err := parseLocation(bucketURL)
	if err != nil {
		return nil, err
	}
	return l.openPrefix(ctx)
}

// OpenExisting is [OpenBucket] without create_dir. The error wraps [fs.ErrNotExist] if
// there is no folder.
func OpenExisting(ctx context.Context, bucketURL string) (*blob.Bucket, error) {
	l, err := parseLocation(bucketURL)
	if err != nil {
		return nil, err
	}
	l.query.Del("create_dir")
	return l.openPrefix(ctx)
}

// OpenS3 returns the client and the name of an S3-compatible bucket, and a nil client for any other
// bucket.
func OpenS3(ctx context.Context, bucketURL string) (*s3.Client, string, error) {
	l, err := parseLocation(bucketURL)
	if err != nil || l.scheme != "s3" {
		return nil, "", err
	}
	bucket, err := l.open(ctx)
	if err != nil {
		return nil, "", err
	}
	var client *s3.Client
	bucket.As(&client)
	return client, l.bucket, nil
}

func (l location) openPrefix(ctx context.Context) (*blob.Bucket, error) {
	bucket, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	if l.prefix != "" {
		bucket = blob.PrefixedBucket(bucket, l.prefix)
	}
	return bucket, nil
}

// open opens the bucket without its prefix.
func (l location) open(ctx context.Context) (*blob.Bucket, error) {
	if l.scheme == "file" {
		f, err := openFolder(l)
		if err != nil {
			return nil, err
		}
		return blob.NewBucket(f), nil
	}
	q := url.Values{}
	for name, values := range l.query {
		if name != "prefix" {
			q[name] = values
		}
	}
	u := url.URL{Scheme: l.scheme, Host: l.bucket, RawQuery: q.Encode()}
	bucket, err := blob.OpenBucket(ctx, u.String())
	if err != nil || l.scheme != "s3" {
		return bucket, err
	}
	return openS3(ctx, bucket, l)
}

// store returns the store of the bucket. Buckets with the same store and name are the same.
func (l location) store() string {
	if c, ok := clouds[l.scheme]; ok {
		return c.Store(l.query)
	}
	endpoint := cmp.Or(l.query.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://amazonaws.com")
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	host := strings.ToLower(u.Hostname())
	// Bucket names are unique within these providers, across regions and endpoints.
	for _, provider := range []string{"amazonaws.com", "aliyuncs.com", "myqcloud.com", "myhuaweicloud.com", "googleapis.com"} {
		if host == provider || strings.HasSuffix(host, "."+provider) {
			return provider
		}
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return host + ":" + port + strings.TrimSuffix(u.Path, "/")
}

// root returns the path of a folder with the symbolic links of its existing part resolved.
func (l location) root() string {
	dir, err := filepath.Abs(l.bucket)
	if err != nil {
		return l.bucket
	}
	for there, rest := dir, ""; ; there, rest = filepath.Dir(there), filepath.Join(filepath.Base(there), rest) {
		if real, err := filepath.EvalSymlinks(there); err == nil {
			return filepath.Join(real, rest)
		}
		if there == filepath.Dir(there) {
			return dir
		}
	}
}

// within reports whether other is below l, and by which further prefix.
func (l location) within(other location) (below string, ok bool) {
	mine, its := l.prefix, other.prefix
	switch {
	case (l.scheme == "file") != (other.scheme == "file"):
		return "", false
	case l.scheme == "file":
		top := func(l location) string { return strings.TrimSuffix(filepath.ToSlash(l.root()), "/") + "/" + l.prefix }
		mine, its = top(l), top(other)
	case l.bucket != other.bucket || l.store() != other.store():
		return "", false
	}
	return strings.CutPrefix(its, mine)
}

// Apart returns an error if the archive and the recordings are in the same place. One may be in a
// folder of the other that cannot be an app's.
func Apart(recordingsURL, archiveURL string) error {
	recordings, err := parseLocation(recordingsURL)
	archive, archiveErr := parseLocation(archiveURL)
	if err != nil || archiveErr != nil {
		return nil //nolint:nilerr // CheckURL reports it
	}
	below, ok := recordings.within(archive)
	if !ok {
		below, ok = archive.within(recordings)
	}
	first, _, _ := strings.Cut(below, "/")
	switch {
	case ok && below == "":
		return errors.New("the same as CLOSEOUT_RECORDINGS_URL, want another bucket or prefix")
	case ok && number(first):
		return fmt.Errorf("one of the two is in the folder %s of the other, want a name that can't be an app's", below)
	}
	return nil
}

// number reports whether name could be an app's folder.
func number(name string) bool {
	return name != "" && strings.Trim(name, "0123456789") == ""
}

// Below returns the folder of the recordings bucket that holds the archive, or "".
func Below(recordingsURL, archiveURL string) string {
	recordings, err := parseLocation(recordingsURL)
	archive, archiveErr := parseLocation(archiveURL)
	if err != nil || archiveErr != nil {
		return ""
	}
	below, _ := recordings.within(archive)
	return below
}

// Link returns the address of an object: s3://bucket/key, or a file's path. It returns "" for an
// invalid URL.
func Link(bucketURL, key string) string {
	l, err := parseLocation(bucketURL)
	if err != nil {
		return ""
	}
	if l.scheme == "file" {
		file := filepath.Join(l.bucket, filepath.FromSlash(l.prefix+key))
		if absolute, err := filepath.Abs(file); err == nil {
			file = absolute
		}
		return file
	}
	return l.scheme + "://" + l.bucket + "/" + l.prefix + key
}
