package closeout_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	named      = regexp.MustCompile("`(Test[A-Za-z]+)`")
	definition = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// documents returns the Markdown files by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	walk(t, ".md", func(path, text string) { all[path] = text })
	if len(all) < 10 {
		t.Fatalf("found only %d documents", len(all))
	}
	return all
}

func walk(t *testing.T, extension string, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "data") {
			if d != nil && d.IsDir() && err == nil {
				return filepath.SkipDir
			}
			return err
		}
		if d.IsDir() || filepath.Ext(path) != extension {
			return nil
		}
		b, err := os.ReadFile(path)
		f(path, string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinksInTheDocumentationLeadSomewhere(t *testing.T) {
	documents := documents(t)
	for path, text := range documents {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s: %v", path, m[1], err)
				continue
			}
			if anchor != "" && !hasAnchor(documents[file], anchor) {
				t.Errorf("%s: %s: no such heading", path, m[1])
			}
		}
	}
}

// hasAnchor reports whether text has a heading with this anchor.
func hasAnchor(text, anchor string) bool {
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			made := strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case r == '-', r == '_', 'a' <= r && r <= 'z', '0' <= r && r <= '9':
					return r
				}
				return -1
			}, strings.ToLower(strings.TrimSpace(heading)))
			if made == anchor {
				return true
			}
		}
	}
	return false
}

// Tests that the documentation names exist.
func TestTestsNamedInTheDocumentationExist(t *testing.T) {
	defined := map[string]bool{}
	walk(t, ".go", func(_, text string) {
		for _, m := range definition.FindAllStringSubmatch(text, -1) {
			defined[m[1]] = true
		}
	})
	n := 0
	for path, text := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if n++; !defined[m[1]] {
				t.Errorf("%s names a test %s, and there is none", path, m[1])
			}
		}
	}
	if n == 0 {
		t.Error("no document names a test")
	}
}

// The documentation shows the RoomClose that runs.
func TestTheWorkflowInTheDocumentationIsTheRealOne(t *testing.T) {
	document, err := os.ReadFile("docs/workflows.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("workflows/roomclose.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(document), "```go\n")
	shown, _, _ = strings.Cut(shown, "```")
	if !strings.HasPrefix(shown, "func RoomClose(") || !strings.Contains(string(code), shown) {
		t.Errorf("docs/workflows.md shows another RoomClose than workflows/roomclose.go; copy it:\n%s", shown)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheDashboardShowsEveryDocumentedMetric(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/closeout.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			shown.WriteString(target.Expr + "\n")
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `(closeout_\\w+)` \\|").FindAllStringSubmatch(read(t, "docs/telemetry.md"), -1)
	if len(rows) < 20 {
		t.Fatalf("docs/telemetry.md has %d metrics", len(rows))
	}
	for _, row := range rows {
		if !regexp.MustCompile(`\b` + row[1] + `(_bucket)?\b`).MatchString(shown.String()) {
			t.Errorf("no panel shows %s", row[1])
		}
	}
}

// The architecture lists every package and every direct dependency, and no others.
func TestTheArchitectureIsComplete(t *testing.T) {
	page := read(t, "docs/architecture.md")
	_, packages, _ := strings.Cut(page, "\n## Packages\n")
	packages, dependencies, _ := strings.Cut(packages, "\n## Dependencies\n")
	first := func(text string) (names []string) {
		for _, m := range regexp.MustCompile("(?m)^\\| \\[?`([^`]+)`").FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}

	var folders []string
	walk(t, ".go", func(path, _ string) {
		top, _, _ := strings.Cut(path, string(filepath.Separator))
		if strings.HasSuffix(path, "_test.go") || top == "dev" || top == "examples" || top == "deploy" {
			return
		}
		if dir := filepath.ToSlash(filepath.Dir(path)); dir == "." {
			folders = append(folders, path)
		} else {
			folders = append(folders, dir)
		}
	})
	slices.Sort(folders)
	if want := slices.Compact(folders); !slices.Equal(first(packages), want) {
		t.Errorf("docs/architecture.md lists the packages\n%q, want\n%q", first(packages), want)
	}

	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		modules = append(modules, m[1])
	}
	slices.Sort(modules)
	if !slices.Equal(first(dependencies), modules) {
		t.Errorf("docs/architecture.md lists the dependencies\n%q, want\n%q", first(dependencies), modules)
	}
}
