package archive

import (
	"errors"
	"regexp"

	"github.com/closeouthq/closeout/internal/printable"
)

// maxError bounds an error's text. A run stores it several times, once for each cause.
const maxError = 4 << 10

// signature matches the parameters of a URL that grant access.
var signature = regexp.MustCompile(`(?i)([?&](?:sig|sigv4|signature|x-amz-signature|x-goog-signature|x-amz-security-token|ossaccesskeyid)=)[^&\s"]+`)

// text returns foreign text for an error without signatures of URLs: see [printable.Foreign].
func text(s string) string {
	return printable.Foreign(signature.ReplaceAllString(s, "${1}..."), maxError)
}

// foreignError replaces an error with text from a store or server. It does not unwrap, because
// Temporal stores the texts of causes, too.
type foreignError struct {
	err  error
	text string
}

func (e *foreignError) Error() string        { return e.text }
func (e *foreignError) Is(target error) bool { return errors.Is(e.err, target) }
func (e *foreignError) As(target any) bool   { return errors.As(e.err, target) }

// foreign returns err with a text that is safe to show. All errors of this package pass through
// it.
func foreign(err error) error {
	if err == nil {
		return nil
	}
	if text := text(err.Error()); text != err.Error() {
		return &foreignError{err, text}
	}
	return err
}
