package archive

import (
	"errors"
	"regexp"

	"github.com/closeouthq/closeout/internal/printable"
)

// maxError bounds an error, which a run keeps several times, as its causes.
const maxError = 4 << 10

// signature finds what proves in a URL that its bearer may read or write there.
var signature = regexp.MustCompile(`(?i)([?&](?:sig|sigv4|signature|x-amz-signature|x-goog-signature|x-amz-security-token|ossaccesskeyid)=)[^&\s"]+`)

// text returns foreign text for an error: see [printable.Foreign]. It has no signatures of
// URLs.
func text(s string) string {
	return printable.Foreign(signature.ReplaceAllString(s, "${1}..."), maxError)
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
	if text := text(err.Error()); text != err.Error() {
		return &foreignError{err, text}
	}
	return err
}
