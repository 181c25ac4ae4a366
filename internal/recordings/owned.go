package recordings

import (
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Owned is the set of keys in the recordings bucket that a session may use. A callback cannot
// name others, because several apps and the archive may share the bucket.
type Owned struct {
	app, prefix, archive string
}

// maxKey is S3's maximum length of a key in bytes.
const maxKey = 1024

// Own returns the keys in the app's folder "<appid>/" and those with the session's prefix,
// except in folders of other apps and of the archive. It reports false if the room's name
// leads the prefix into one of those.
func (p Place) Own(appID uint32, archive string) (Owned, bool) {
	o := Owned{strconv.FormatUint(uint64(appID), 10), p.Prefix, archive}
	return o, p.Prefix == "" || o.Has(p.Prefix+"x")
}

// Has reports whether the set contains key.
func (o Owned) Has(key string) bool {
	// Some systems treat a backslash in a room's name as a separator.
	plain := strings.ReplaceAll(key, `\`, "/")
	if len(key) > maxKey || !utf8.ValidString(key) || path.Clean("/"+plain) != "/"+plain || strings.ContainsFunc(key, unicode.IsControl) {
		return false
	}
	if o.archive != "" && strings.HasPrefix(plain, o.archive) {
		return false
	}
	if top, _, ok := strings.Cut(plain, "/"); ok && top != "" && strings.Trim(top, "0123456789") == "" {
		return top == o.app
	}
	return strings.HasPrefix(key, o.prefix)
}

// AppFolder returns the folder of an app in the prefix, or "" if no folder is named after the
// app.
func (p Prefix) AppFolder(appID uint32) string {
	app := strconv.FormatUint(uint64(appID), 10)
	// The app's folder ends before the parts that vary.
	prefix, err := p.of(app, "\x00", "\x00")
	if err != nil {
		return ""
	}
	fixed, _, _ := strings.Cut(prefix, "\x00")
	other, err := p.of("x", "\x00", "\x00")
	if err != nil {
		return ""
	}
	folder := ""
	for rest := fixed; ; {
		segment, after, ok := strings.Cut(rest, "/")
		if !ok {
			return ""
		}
		folder += segment + "/"
		if segment == app && !strings.HasPrefix(other, folder) {
			return folder
		}
		rest = after
	}
}
