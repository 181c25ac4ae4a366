// Package printable keeps foreign text from controlling a terminal: it could move the cursor, rewrite what is shown, set
// the title and the clipboard, or reverse the order of letters.
package printable

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line returns text as one line in which everything is visible: it shows what is not graphic (control characters, line
// ends, tabs, bidirectional controls, invalid UTF-8) as \uXXXX.
func Line(text string) string {
	var b strings.Builder
	for _, r := range text { // an invalid byte is U+FFFD
		put(&b, r, graphic(r))
	}
	return b.String()
}

// Foreign returns foreign text for an error or a log: [Line] of its words, cut to maxBytes. Apply it where the text comes
// in.
func Foreign(text string, maxBytes int) string {
	more := ""
	if len(text) > maxBytes {
		cut := maxBytes
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text, more = text[:cut], " …"
	}
	return Line(strings.Join(strings.Fields(text), " ")) + more
}

func graphic(r rune) bool { return unicode.IsGraphic(r) && r != utf8.RuneError }

// put writes a rune, or its \uXXXX as in JSON: inside a JSON string it means the same.
func put(b *strings.Builder, r rune, asIs bool) {
	if asIs {
		_, _ = b.WriteRune(r)
		return
	}
	for _, unit := range utf16.AppendRune(nil, r) {
		fmt.Fprintf(b, `\u%04x`, unit)
	}
}

// Writer writes text for people to another writer, and shows what is not graphic as \uXXXX, except for our own line ends
// and tabs. JSON stays exact. Call Flush at the end.
type Writer struct {
	to io.Writer

	mu   sync.Mutex
	half []byte // the first bytes of a character
}

// NewWriter returns a [Writer] to another one.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Unwrap returns what a [Writer] writes to, for a terminal's controls or exact bytes, and any other writer as it is.
func Unwrap(w io.Writer) io.Writer {
	if p, ok := w.(*Writer); ok {
		return p.to
	}
	return w
}

// Write implements [io.Writer].
func (w *Writer) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	rest := append(w.half, text...)
	w.half = nil
	for len(rest) > 0 {
		if !utf8.FullRune(rest) {
			w.half = rest
			break
		}
		r, n := utf8.DecodeRune(rest)
		put(&b, r, r == '\n' || r == '\t' || graphic(r))
		rest = rest[n:]
	}
	if _, err := io.WriteString(w.to, b.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Flush writes what is left of an incomplete character.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.half) > 0 {
		w.half = nil
		_, _ = io.WriteString(w.to, `\ufffd`)
	}
}
