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

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Names are bounded, as a folder takes 255 bytes between two slashes, some of
// which are for what lies beside a file, and S3 takes 1024 in all.
const (
	mostOfSegment = 200
	mostOfName    = 700
)

// clean gives the name that a wanted one becomes: itself, but for what would lead
// out of the folder, couldn't be a file's name, or is read as something else by
// the library for buckets. All that is written as %XX.
func clean(wanted string) string {
	var segments []string
	for segment := range strings.SplitSeq(wanted, "/") {
		if segment != "" {
			segments = append(segments, cleanSegment(segment))
		}
	}
	name := cmp.Or(strings.Join(segments, "/"), "recording")
	if len(name) > mostOfName {
		name = shorten(strings.ReplaceAll(name, "/", "_"), mostOfSegment, name)
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
			r == '.' && i == len(s)-1,        // "." and "..", and what ends in it
			strings.HasPrefix(s[i:], "__0x"), // an escape of the library's
			s[i:] == ".attrs":                // what the library has beside a file
			fmt.Fprintf(&b, "%%%02X", s[i])
			n = 1
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	if b.Len() > mostOfSegment {
		return shorten(b.String(), mostOfSegment, s)
	}
	return b.String()
}

// shorten cuts a name down, and marks it by what it was made of. It keeps the
// extension.
func shorten(name string, most int, of string) string {
	stem, extension := cut(name)
	mark := "~" + digest(of)
	stem = stem[:most-len(extension)-len(mark)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + mark + extension
}

// cut parts a name from its extension, if that is of a usual length.
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

// fold gives what two names have in common that some file system, or some reader
// of the archive, takes for one.
func fold(name string) string { return norm.NFC.String(cases.Fold().String(norm.NFC.String(name))) }

// assign gives each item a name that no other has. What an item is called depends
// on the items alone, not on their order. Of several that want one name the first
// by its source keeps it.
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
		if keptA, keptB := items[a].Kept != nil, items[b].Kept != nil; keptA != keptB {
			return map[bool]int{true: -1, false: 1}[keptA] // what is there keeps its name
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
