// Package azure adds Azure Blob Storage to a program. Import it for its side effect:
//
//	import _ "github.com/closeouthq/closeout/clouds/azure"
//
// CLOSEOUT_RECORDINGS_URL and CLOSEOUT_ARCHIVE_URL may then be azblob:// URLs.
package azure

import (
	"cmp"
	"fmt"
	"net/url"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	_ "gocloud.dev/blob/azureblob" // opens azblob:// URLs

	"github.com/closeouthq/closeout/internal/archive"
)

func init() {
	archive.Register("azblob", archive.Cloud{
		Options: []string{"storage_account", "domain", "protocol", "cdn", "localemu"},
		Store: func(options url.Values) string {
			account := cmp.Or(options.Get("storage_account"), os.Getenv("AZURE_STORAGE_ACCOUNT"))
			return account + "." + cmp.Or(options.Get("domain"), os.Getenv("AZURE_STORAGE_DOMAIN"), "blob.core.windows.net")
		},
		BeforeWrite: beforeWrite,
	})
}

func beforeWrite(as func(any) bool, o archive.Options) error {
	var upload *azblob.UploadStreamOptions
	if !as(&upload) {
		return fmt.Errorf("%w: the bucket has no uploads of Azure Blob Storage", archive.ErrImpossible)
	}
	if o.Class != "" {
		tier := blob.AccessTier(o.Class)
		upload.AccessTier = &tier
	}
	if o.Encryption != "" {
		upload.CPKScopeInfo = &blob.CPKScopeInfo{EncryptionScope: &o.Encryption}
	}
	upload.Tags = o.Tags
	return nil
}
