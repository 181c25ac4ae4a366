package archive

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Cloud describes the buckets of a scheme that gocloud opens. Packages below clouds register
// theirs.
type Cloud struct {
	// Options are the options of a bucket's URL besides prefix. None holds credentials.
	Options []string
	// Store returns the store of a bucket from the options in its URL. Bucket names are unique
	// within a store.
	Store func(options url.Values) string
	// NoTags, if set, says why objects cannot have tags.
	NoTags string
	// BeforeWrite sets the class, encryption and tags of an object through the As function of
	// gocloud's writer.
	BeforeWrite func(as func(any) bool, o Options) error
}

// clouds are the registered clouds by scheme.
var clouds = map[string]Cloud{}

// drivers are the packages that register a cloud.
var drivers = map[string]string{
	"gs":     "github.com/closeouthq/closeout/clouds/gcs",
	"azblob": "github.com/closeouthq/closeout/clouds/azure",
}

// Register makes the buckets of a scheme available. Call it from an init function.
func Register(scheme string, c Cloud) { clouds[scheme] = c }

// schemeError reports that no URL of a bucket can have the scheme.
func schemeError(scheme string) error {
	if driver, ok := drivers[scheme]; ok {
		return fmt.Errorf("this program has no %s:// buckets, want the program or the image closeout-clouds, or in a program of your own: import _ %q", scheme, driver)
	}
	schemes := []string{"file", "s3"}
	for scheme := range clouds {
		schemes = append(schemes, scheme)
	}
	slices.Sort(schemes)
	return fmt.Errorf("not a URL with one of the schemes %s", strings.Join(schemes, ", "))
}
