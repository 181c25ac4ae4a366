package activities

import (
	"context"
	"errors"
	"regexp"
	"strings"
)

// What Temporal keeps of a step is bounded: a payload of more than 2 MiB fails it for
// good, and from 256 KiB on Temporal warns. Names in callbacks may be long, and many.
const (
	// maxName bounds one name or reason among others.
	maxName = 300
	// maxError bounds an error, which a failure holds several times, as its causes.
	maxError = 4 << 10
)

// short is the beginning of a text that is too long.
func short(s string) string { return cut(s, maxName) }

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// secretOption finds what proves in a URL that its bearer may read or write there.
var secretOption = regexp.MustCompile(`(?i)([?&](?:sig|sigv4|signature|x-amz-signature|x-goog-signature|x-amz-security-token|ossaccesskeyid)=)[^&\s"]+`)

// bounded returns an error of a store as a run may keep it: of a bounded length, and
// without what signs a URL.
func bounded(ctx context.Context, err error) error {
	text := secretOption.ReplaceAllString(err.Error(), "${1}...")
	if ctx.Err() != nil || text == err.Error() && len(text) <= maxError {
		return err
	}
	if text = cut(text, maxError); IsBlocked(err) {
		return Blocked("%s", text)
	}
	return errors.New(text)
}
