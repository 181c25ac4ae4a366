package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/scaffold"
)

// The generated module passes its own tests, with no module proxy and only the checkout it names.
func TestModuleBuildsAndPassesItsTests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "late-rooms")
	if err := scaffold.Write(dir, filepath.Join("..", "..")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOSUMDB=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, name := range []string{"main.go", "compose.yaml", "Dockerfile", "README.md", ".gitignore"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), "late-rooms") || strings.Contains(string(text), "my-rooms") {
			t.Errorf("%s: %v, has another name:\n%s", name, err, text)
		}
	}
}

func TestNoFileIsOverwritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rooms")
	if err := scaffold.Write(dir, ""); err != nil {
		t.Fatal(err)
	}
	if err := scaffold.Write(dir, ""); err == nil || !strings.Contains(err.Error(), "want a new or an empty folder") {
		t.Errorf("a second time: %v", err)
	}
	for _, name := range []string{"Rooms", "a b", "1rooms", "a_b"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := scaffold.Write(dir, ""); err == nil || !strings.Contains(err.Error(), "want lower-case letters") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: was made", name)
		}
	}
}
