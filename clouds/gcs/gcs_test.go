package gcs

import (
	"testing"

	"cloud.google.com/go/storage"

	"github.com/closeouthq/closeout/internal/archive"
)

func TestUploadOptions(t *testing.T) {
	o := archive.Options{Class: "NEARLINE", Encryption: "key"}
	var w storage.Writer
	err := beforeWrite(func(to any) bool {
		p, ok := to.(**storage.Writer)
		if ok {
			*p = &w
		}
		return ok
	}, o)
	if err != nil || w.StorageClass != "NEARLINE" || w.KMSKeyName != "key" {
		t.Errorf("%+v, error %v", w.ObjectAttrs, err)
	}
	if err := beforeWrite(func(any) bool { return false }, o); err == nil {
		t.Error("a store without these options accepts them")
	}
}
