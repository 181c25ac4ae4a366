// Package gcs adds Google Cloud Storage to a program. Import it for its side effect:
//
//	import _ "github.com/closeouthq/closeout/clouds/gcs"
//
// CLOSEOUT_RECORDINGS_URL and CLOSEOUT_ARCHIVE_URL may then be gs:// URLs.
package gcs

import (
	"cmp"
	"fmt"
	"net/url"

	"cloud.google.com/go/storage"
	_ "gocloud.dev/blob/gcsblob" // opens gs:// URLs

	"github.com/closeouthq/closeout/internal/archive"
)

func init() {
	archive.Register("gs", archive.Cloud{
		Options:     []string{"access_id", "private_key_path", "anonymous", "universe_domain", "grpc", "zonal"},
		Store:       func(options url.Values) string { return cmp.Or(options.Get("universe_domain"), "googleapis.com") },
		NoTags:      "Google Cloud Storage has no tags of objects",
		BeforeWrite: beforeWrite,
	})
}

func beforeWrite(as func(any) bool, o archive.Options) error {
	var w *storage.Writer
	if !as(&w) {
		return fmt.Errorf("%w: the bucket has no writer of Google Cloud Storage", archive.ErrImpossible)
	}
	w.StorageClass, w.KMSKeyName = o.Class, o.Encryption
	return nil
}
