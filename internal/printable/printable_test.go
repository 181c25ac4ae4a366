package printable_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/closeouthq/closeout/internal/printable"
)

var hostile = map[string]string{
	"plain é 会议室 \U0001f600":   "plain é 会议室 \U0001f600",
	"\x1b]0;title\x07":         `\u001b]0;title\u0007`,
	"\x1b[2J":                  `\u001b[2J`,
	"\u009b31m":                `\u009b31m`, // the same in a single character
	"a\u202egpj":               `a\u202egpj`,
	"a\u2028b\u2029c\u0085d":   `a\u2028b\u2029c\u0085d`,
	"a\ufeffb\u200bc\u00add":   `a\ufeffb\u200bc\u00add`,
	"\U000e0041":               `\udb40\udc41`,
	"half \xe4\xbc":            `half \ufffd\ufffd`,
	"over\rwritten\bx\x7f\x00": `over\u000dwritten\u0008x\u007f\u0000`,
}

func TestLineEscapesInvisibleCharacters(t *testing.T) {
	for text, want := range hostile {
		if got := printable.Line(text); got != want {
			t.Errorf("%q: found %q, want %q", text, got, want)
		}
	}
	if got, want := printable.Line("a\nb\tc"), `a\u000ab\u0009c`; got != want {
		t.Errorf("found %q, want %q", got, want)
	}
}

// A Writer escapes text the same way, however it is cut into writes.
func TestWriterEscapesInvisibleCharacters(t *testing.T) {
	for text, want := range hostile {
		for size := 1; size <= len(text); size++ {
			var out strings.Builder
			w := printable.NewWriter(&out)
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				if done, err := w.Write([]byte(rest[:n])); done != n || err != nil {
					t.Fatal(done, err)
				}
				rest = rest[n:]
			}
			w.Flush()
			got := out.String()
			if strings.HasPrefix(text, "half") { // an incomplete character is escaped once or twice
				got = strings.TrimSuffix(got, `\ufffd`) + `\ufffd`
				want = strings.ReplaceAll(want, `\ufffd\ufffd`, `\ufffd`)
				got = strings.ReplaceAll(got, `\ufffd\ufffd`, `\ufffd`)
			}
			if got != want {
				t.Errorf("%q, %d at a time: found %q, want %q", text, size, got, want)
			}
		}
	}
	var out strings.Builder
	w := printable.NewWriter(&out)
	if _, err := w.Write([]byte("a\tb\nc\n")); err != nil || out.String() != "a\tb\nc\n" {
		t.Errorf("our own line ends: %q, %v", out.String(), err)
	}
}

func TestWriterLeavesJSONExact(t *testing.T) {
	for text := range hostile {
		text = strings.ToValidUTF8(text, "") + `\` + "\u202e" // also after a backslash
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		w := printable.NewWriter(&out)
		_, _ = w.Write(encoded)
		var back string
		if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back != text {
			t.Errorf("%q became %q: %v", text, back, err)
		}
	}
}

func TestForeignTextIsShortAndOnOneLine(t *testing.T) {
	for text := range hostile {
		got := printable.Foreign(strings.Repeat(text+"\n \t", 1000), 99)
		if len(got) > 6*99+5 || !utf8.ValidString(got) || !strings.HasSuffix(got, " …") ||
			strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Errorf("%q", got)
		}
	}
	if got := printable.Foreign(" a\r\n b ", 99); got != "a b" {
		t.Errorf("found %q", got)
	}
}
