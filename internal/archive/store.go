package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// store holds the operations that differ among stores.
type store interface {
	// sums returns the checksums that the store supports.
	sums() *sums
	// put writes a complete object or none. It is durable after settle.
	put(ctx context.Context, key string, c *content) error
	// look describes an object, or returns errNone.
	look(ctx context.Context, key string) (kept, error)
	// settle makes objects written by put durable.
	settle(keys []string) error
	// create writes a small durable object, or returns errExists.
	create(ctx context.Context, key string, content []byte) error
	// tidy removes unfinished files of killed attempts from the folder of a session with a manifest.
	tidy(ctx context.Context, folder string)
}

var (
	errNone   = errors.New("there is no such object")
	errExists = errors.New("there is one already")
)

func (m *Mover) openStore() (store, error) {
	common := &anyStore{bucket: m.Archive, options: m.options}
	if m.options.ArchiveURL == "" {
		return common, nil
	}
	l, err := parseLocation(m.options.ArchiveURL)
	if err != nil {
		return nil, fmt.Errorf("the archive's URL: %w", err)
	}
	switch l.scheme {
	case "file":
		folder, err := openFolder(l)
		if err != nil {
			return nil, fmt.Errorf("open the archive's folder: %w", err)
		}
		return &folderStore{common, folder, l.prefix}, nil
	case "s3":
		// A prefixed bucket hides its client.
		bucket, err := l.open(context.Background())
		if err != nil {
			return nil, fmt.Errorf("open the archive's bucket: %w", err)
		}
		var client *s3.Client
		bucket.As(&client)
		return newS3Store(common, client, l, m.options.SourceURL), nil
	}
	common.cloud = clouds[l.scheme]
	return common, nil
}

// anyStore is a store accessed through gocloud alone.
type anyStore struct {
	bucket  *blob.Bucket
	options Options
	cloud   Cloud
}

func (s *anyStore) sums() *sums { return &sums{sha256: sha256.New(), md5: newMD5()} }

func (s *anyStore) put(ctx context.Context, key string, c *content) error {
	// A writer that is cancelled before Close writes nothing.
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	o := &blob.WriterOptions{
		ContentType: cmp.Or(c.state.kind, "application/octet-stream"), Metadata: c.meta, BufferSize: partSize, MaxConcurrency: 1,
	}
	if s.cloud.BeforeWrite != nil {
		o.BeforeWrite = func(as func(any) bool) error { return s.cloud.BeforeWrite(as, s.options) }
	}
	w, err := s.bucket.NewWriter(writing, key, o)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{c.reader}, make([]byte, 256<<10)); err != nil {
		cancel()
		_ = w.Close()
		return err
	}
	return w.Close()
}

func (s *anyStore) look(ctx context.Context, key string) (kept, error) {
	a, err := s.bucket.Attributes(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return kept{}, errNone
	}
	if err != nil {
		return kept{}, err
	}
	return kept{size: a.Size, mark: a.Metadata[metaSource], md5: a.MD5, own: true}, nil
}

func (s *anyStore) create(ctx context.Context, key string, content []byte) error {
	options := &blob.WriterOptions{ContentType: "application/json", IfNotExist: true}
	err := s.bucket.WriteAll(ctx, key, content, options)
	if gcerrors.Code(err) == gcerrors.FailedPrecondition {
		return errExists
	}
	return err
}

func (s *anyStore) settle([]string) error { return nil }

func (s *anyStore) tidy(context.Context, string) {}

// Check returns an error for options that the archive's store does not support.
func (o Options) Check() error {
	u, err := url.Parse(o.ArchiveURL)
	if err != nil {
		return errors.New("the archive's URL is not a URL")
	}
	var faults []error
	refuse := func(what, value string) {
		if value != "" {
			faults = append(faults, fmt.Errorf("found %q, but %s, want none", value, what))
		}
	}
	tags := ""
	for k, v := range o.Tags {
		tags = k + "=" + v
	}
	switch u.Scheme {
	case "s3":
		kind, _, _ := strings.Cut(o.Encryption, "=")
		if kind != "" && kind != "AES256" && kind != "aws:kms" && kind != "aws:kms:dsse" {
			faults = append(faults, fmt.Errorf("found the encryption %q, want AES256, aws:kms or aws:kms:dsse, with =<key> behind it to name the key", o.Encryption))
		}
	default:
		if c, ok := clouds[u.Scheme]; ok {
			if c.NoTags != "" {
				refuse(c.NoTags, tags)
			}
			break
		}
		where := "a " + cmp.Or(u.Scheme, "nameless") + " bucket"
		if u.Scheme == "file" {
			where = "a folder"
		}
		refuse(where+" has no storage classes", o.Class)
		refuse(where+" has no encryption to be set", o.Encryption)
		refuse(where+" has no tags", tags)
	}
	return errors.Join(faults...)
}

func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}
