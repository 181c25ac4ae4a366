package archive

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// File systems limit a name to 255 bytes, including a sidecar's suffix, and S3 limits a key to
// 1024.
const (
	maxSegment = 200
	maxNameLen = 700
)

// clean returns a name that is safe in every store. It escapes as %XX what would lead out of the
// folder, is invalid in file names, or is an escape of gocloud.
func clean(wanted string) string {
	var segments []string
	for segment := range strings.SplitSeq(wanted, "/") {
		if segment != "" {
			segments = append(segments, cleanSegment(segment))
		}
	}
	name := cmp.Or(strings.Join(segments, "/"), "recording")
	if len(name) > maxNameLen {
		name = shorten(strings.ReplaceAll(name, "/", "_"), maxSegment, name)
	}
	return name
}

func cleanSegment(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case !unicode.IsGraphic(r) && n > 1: // it may reorder or break the line that shows it
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		case r == utf8.RuneError && n == 1, r < ' ', r == 0x7f, r == '\\',
			r == '.' && i == len(s)-1,        // ".", ".." and names that end in a dot
			strings.HasPrefix(s[i:], "__0x"), // an escape of gocloud
			s[i:] == ".attrs":                // a sidecar of gocloud
			fmt.Fprintf(&b, "%%%02X", s[i])
			n = 1
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	if b.Len() > maxSegment {
		return shorten(b.String(), maxSegment, s)
	}
	return b.String()
}

// shorten cuts a name, marks it with a digest of the original, and keeps the extension.
func shorten(name string, limit int, of string) string {
	stem, extension := cut(name)
	mark := "~" + digest(of)
	stem = stem[:limit-len(extension)-len(mark)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + mark + extension
}

// cut splits a name and its extension, if that has a usual length.
func cut(name string) (stem, extension string) {
	if extension = path.Ext(name); len(extension) > 16 {
		extension = ""
	}
	return strings.TrimSuffix(name, extension), extension
}

func digest(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:4])
}

// fold returns the same for names that some file system takes for one: file systems
// ignore case, or whether a letter and its accents are one character or several. It has
// one "?" for all letters in a row that may be written in several ways, so other names
// may fold to the same. It takes ASCII's letters without accents and Han ideographs for
// letters that are not, though 472 of these have a second code for compatibility.
func fold(name string) string {
	var folded []rune
	for _, r := range strings.ToLower(inASCII.Replace(name)) {
		last := len(folded) - 1
		switch {
		case r < utf8.RuneSelf, unicode.Is(unicode.Unified_Ideograph, r):
			folded = append(folded, r)
			continue
		case unicode.Is(unicode.M, r) && last >= 0 && folded[last] != '/':
			folded = folded[:last] // the letter that the accent is on
			last--
		}
		if last < 0 || folded[last] != '?' {
			folded = append(folded, '?')
		}
	}
	return string(folded)
}

// inASCII has the letters whose case folds to others that begin with one of ASCII.
var inASCII = strings.NewReplacer("İ", "i\u0307", "ß", "ss", "ẞ", "ss", "ſ", "s", "ﬀ", "ff", "ﬁ", "fi", "ﬂ", "fl", "ﬃ", "ffi", "ﬄ", "ffl", "ﬅ", "st", "ﬆ", "st")

// assign returns a unique name for each item. It depends on the items but not on their order. Of
// several items with the same name, the first by source gets it unchanged.
func assign(items []Item) []string {
	order := make([]int, len(items))
	names := make([]string, len(items))
	folders := map[string]bool{}
	for i, item := range items {
		order[i] = i
		names[i] = clean(item.Name)
		for folder := path.Dir(fold(names[i])); folder != "."; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		if kept := items[a].Kept != nil; kept != (items[b].Kept != nil) { // a saved file keeps its name
			return map[bool]int{true: -1, false: 1}[kept]
		}
		return cmp.Or(cmp.Compare(names[a], names[b]), cmp.Compare(items[a].id(), items[b].id()))
	})
	taken := map[string]bool{}
	free := func(name string) bool { return !taken[fold(name)] && !folders[fold(name)] }
	for _, i := range order {
		for n, wanted := 0, names[i]; !free(names[i]); n++ {
			folder, base := path.Split(wanted)
			stem, extension := cut(base)
			names[i] = folder + stem + "~" + digest(fmt.Sprint(n, items[i].id())) + extension
		}
		taken[fold(names[i])] = true
	}
	return names
}
