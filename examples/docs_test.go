package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// file finds the blocks of code that are whole files: they begin with their name.
var file = regexp.MustCompile("(?s)```go\n// ([a-z_]+\\.go)\n(.*?)```")

// What docs/workflows.md offers to copy is a program that compiles, and its tests
// pass.
func TestTheProgramInTheDocumentationRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	page, err := os.ReadFile("../docs/workflows.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := file.FindAllStringSubmatch(string(page), -1)
	if len(files) != 4 {
		t.Errorf("found %d files", len(files))
	}
	for _, f := range files {
		write(f[1], f[2])
	}
	// A module as this one, elsewhere.
	closeout, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(name, strings.NewReplacer("=> ../", "=> "+closeout, "module github.com/closeouthq/closeout/examples", "module example.com/shows").Replace(string(text)))
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-mod=mod", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
