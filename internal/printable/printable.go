// Package printable keeps text of others from doing more than being read: on a
// terminal it could move the cursor, rewrite what stands there, set the title and
// the clipboard, or turn the order of letters round.
package printable

import (
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Line returns text as one line in which everything can be seen: what isn't
// graphic (controls, line ends, tabs, what changes the order of letters, halves of
// characters) is shown as \uXXXX.
func Line(text string) string {
	if plain(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text { // an invalid byte is U+FFFD
		put(&b, r, unicode.IsGraphic(r) && r != utf8.RuneError)
	}
	return b.String()
}

// Foreign returns text that somebody else wrote, for an error or a log: [Line] of its
// words, cut after some bytes. Apply it where the text comes in.
func Foreign(text string, maxBytes int) string {
	cut := len(text) > maxBytes
	if cut {
		text = text[:maxBytes]
		for i := 1; i < utf8.UTFMax && i <= len(text); i++ { // not in the middle of a character
			if last := text[len(text)-i:]; utf8.RuneStart(last[0]) {
				if !utf8.FullRuneInString(last) {
					text = text[:len(text)-i]
				}
				break
			}
		}
	}
	text = Line(strings.Join(strings.Fields(text), " "))
	if cut {
		text += " …"
	}
	return text
}

// plain reports whether text is printable ASCII alone, as most is.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// put writes a rune, or its \uXXXX as JSON has it: inside a JSON string it means the
// same.
func put(b interface {
	WriteRune(rune) (int, error)
	WriteString(string) (int, error)
}, r rune, asItIs bool) {
	const digits = "0123456789abcdef"
	if asItIs {
		_, _ = b.WriteRune(r)
		return
	}
	units := []rune{r}
	if r > 0xffff {
		r -= 0x10000
		units = []rune{0xd800 + r>>10, 0xdc00 + r&0x3ff}
	}
	for _, u := range units {
		_, _ = b.WriteString(`\u` + string([]byte{digits[u>>12&15], digits[u>>8&15], digits[u>>4&15], digits[u&15]}))
	}
}

// Writer writes text for people to another writer: what isn't graphic is shown as
// \uXXXX, except for line ends and tabs, which are ours. See [Line] for others'.
// JSON stays exact. Call Flush in the end.
type Writer struct {
	to io.Writer

	mu   sync.Mutex
	half []byte // of a character, at the end of what was written
}

// NewWriter returns a [Writer] to another one.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Unwrap returns the other writer, for those who need a terminal or exact bytes.
func (w *Writer) Unwrap() io.Writer { return w.to }

// Unwrap returns what a [Writer] writes to; any other writer is returned as it is.
func Unwrap(w io.Writer) io.Writer {
	if p, ok := w.(*Writer); ok {
		return p.Unwrap()
	}
	return w
}

// Write implements [io.Writer].
func (w *Writer) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	rest := text
	if len(w.half) > 0 {
		rest = append(w.half, text...)
		w.half = nil
	}
	for len(rest) > 0 {
		if !utf8.FullRune(rest) {
			w.half = append([]byte(nil), rest...)
			break
		}
		r, n := utf8.DecodeRune(rest)
		put(&b, r, r == '\n' || r == '\t' || unicode.IsGraphic(r) && r != utf8.RuneError)
		rest = rest[n:]
	}
	if _, err := io.WriteString(w.to, b.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Flush writes what is left, of a character that was never completed.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.half) > 0 {
		w.half = nil
		_, _ = io.WriteString(w.to, `\ufffd`)
	}
}
