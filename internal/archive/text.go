package archive

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// maxError bounds an error, which a run keeps several times, as its causes.
const maxError = 4 << 10

// signature finds what proves in a URL that its bearer may read or write there.
var signature = regexp.MustCompile(`(?i)([?&](?:sig|sigv4|signature|x-amz-signature|x-goog-signature|x-amz-security-token|ossaccesskeyid)=)[^&\s"]+`)

// Text returns text that a store, a server or a callback wrote, fit for an error, a
// result or a terminal: of at most limit bytes and one line, what isn't graphic as
// \uXXXX, and without the signatures of URLs.
func Text(s string, limit int) string {
	var b strings.Builder
	for _, r := range signature.ReplaceAllString(s, "${1}...") {
		switch {
		case b.Len() > limit:
			return strings.ToValidUTF8(b.String()[:limit], "") + "…"
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	if b.Len() > limit {
		return strings.ToValidUTF8(b.String()[:limit], "") + "…"
	}
	return b.String()
}

// foreignError is an error with text of a store's or a server's own. It doesn't unwrap:
// Temporal keeps the texts of an error's causes, too.
type foreignError struct {
	err  error
	text string
}

func (e *foreignError) Error() string        { return e.text }
func (e *foreignError) Is(target error) bool { return errors.Is(e.err, target) }
func (e *foreignError) As(target any) bool   { return errors.As(e.err, target) }

// foreign returns err with a text that anybody may read. Everything that comes out of
// this package passes it.
func foreign(err error) error {
	if err == nil {
		return nil
	}
	if text := Text(err.Error(), maxError); text != err.Error() {
		return &foreignError{err, text}
	}
	return err
}
