package azure

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/closeouthq/closeout/internal/archive"
)

func TestUploadOptions(t *testing.T) {
	o := archive.Options{Class: "Cool", Encryption: "scope", Tags: map[string]string{"a": "b"}}
	var upload azblob.UploadStreamOptions
	err := beforeWrite(func(to any) bool {
		p, ok := to.(**azblob.UploadStreamOptions)
		if ok {
			*p = &upload
		}
		return ok
	}, o)
	if err != nil || *upload.AccessTier != "Cool" || *upload.CPKScopeInfo.EncryptionScope != "scope" || upload.Tags["a"] != "b" {
		t.Errorf("%+v, error %v", upload, err)
	}
	if err := beforeWrite(func(any) bool { return false }, o); err == nil {
		t.Error("a store without these options accepts them")
	}
}
