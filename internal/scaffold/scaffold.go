// Package scaffold copies the program in the folder program under another name, for
// closeout init.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

//go:embed program
var program embed.FS

// templateName is the name of the program in the folder.
const templateName = "my-rooms"

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Write writes a module to a new or empty folder, and names it after the folder. If checkout
// is not empty, the module uses Closeout from that folder instead of a release.
func Write(dir, checkout string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	name := filepath.Base(dir)
	if !validName.MatchString(name) {
		return fmt.Errorf("found the name %q, want lower-case letters, digits and hyphens, and a letter first: it becomes a program, a Task Queue and an image", name)
	}
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s has files in it, among them %s; want a new or an empty folder", dir, entries[0].Name())
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- source code
		return err
	}
	files, err := fs.ReadDir(program, "program")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := program.ReadFile("program/" + f.Name())
		if err != nil {
			return err
		}
		to := f.Name()
		if to == "gitignore" {
			to = ".gitignore"
		}
		if err := write(filepath.Join(dir, to), strings.ReplaceAll(string(text), templateName, name)); err != nil {
			return err
		}
	}
	mod := "module example.com/" + name + "\n\ngo " + goVersion() + "\n"
	if checkout != "" {
		if checkout, err = filepath.Abs(checkout); err != nil {
			return err
		}
		mod += fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", module, checkout)
	}
	return write(filepath.Join(dir, "go.mod"), mod)
}

const module = "github.com/closeouthq/closeout"

// goVersion returns the version of the toolchain, such as 1.26.
func goVersion() string {
	return strings.Join(strings.SplitN(strings.TrimPrefix(runtime.Version(), "go"), ".", 3)[:2], ".")
}

func write(name, text string) error {
	return os.WriteFile(name, []byte(text), 0o644) // #nosec G306 -- source code
}
