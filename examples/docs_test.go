package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// file matches a block of code that is a whole file. Its first line is the file's name.
	file = regexp.MustCompile("(?s)```go\n// ([a-z_]+\\.go)\n(.*?)```")
	// shell matches a block of commands.
	shell = regexp.MustCompile("(?s)```sh\n(.*?)```")
)

// The commands in the documentation run as printed, and create modules with passing tests. They
// need only the checkout beside them.
func TestTheCommandsInTheDocumentationRunAsPrinted(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	for _, test := range []struct {
		page   string
		from   string // the folder to start in
		blocks int
		files  int
	}{
		{page: "../docs/workflows.md", from: "shows", blocks: 2, files: 4},
		{page: "../docs/participants.md", from: "stage", blocks: 2, files: 3},
		{page: "../docs/pricing.md", from: "rates", blocks: 2, files: 5},
		{page: "service/README.md", from: "closeout", blocks: 1},
	} {
		t.Run(filepath.Base(test.page), func(t *testing.T) {
			page, err := os.ReadFile(test.page)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			checkout(t, filepath.Join(dir, "closeout"))
			from := filepath.Join(dir, test.from)
			if err := os.MkdirAll(from, 0o700); err != nil {
				t.Fatal(err)
			}
			files := file.FindAllStringSubmatch(string(page), -1)
			if len(files) != test.files {
				t.Errorf("%s has %d whole files, want %d", test.page, len(files), test.files)
			}
			ran := 0
			for _, block := range shell.FindAllStringSubmatch(string(page), -1) {
				if !strings.Contains(block[1], "go mod ") {
					continue // runs a service
				}
				runIn(t, from, "bash", "-ec", block[1])
				if ran++; ran > 1 {
					continue
				}
				for _, f := range files {
					if err := os.WriteFile(filepath.Join(from, f[1]), []byte(f[2]), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if ran != test.blocks {
				t.Errorf("%s has %d blocks of commands that make a module, want %d", test.page, ran, test.blocks)
			}
		})
	}
}

// checkout copies the files that git tracks, like a clone.
func checkout(t *testing.T, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	runIn(t, "..", "bash", "-ec", `git ls-files -z | xargs -0 cp --parents -t "$0"`, to)
}

func runIn(t *testing.T, dir, name string, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, arguments...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}
