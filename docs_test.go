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

	urfave "github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/service"
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
	n := 0
	for path, text := range documents {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			n++
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
	if n == 0 {
		t.Error("no document has a link")
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

// Every test that the documentation names exists.
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

// Every command line of Closeout in the documentation and in the alerts has a command, flags
// and arguments that exist.
func TestTheCommandLinesInTheDocumentationExist(t *testing.T) {
	texts := documents(t)
	for _, path := range []string{"deploy/prometheus/alerts.yml", "docker-compose.yml", "Makefile"} {
		texts[path] = read(t, path)
	}
	inline := regexp.MustCompile("`([^`\n]+)`")
	n := 0
	for path, text := range texts {
		var lines []string
		for i, part := range strings.Split(text, "```") {
			if i%2 == 1 || filepath.Ext(path) != ".md" {
				lines = append(lines, strings.Split(strings.ReplaceAll(part, "\\\n", " "), "\n")...)
				continue
			}
			for _, m := range inline.FindAllStringSubmatch(part, -1) {
				lines = append(lines, m[1])
			}
		}
		for _, line := range lines {
			if args, ok := commandLine(line); ok {
				n++
				if problem := wrongArgs(args); problem != "" {
					t.Errorf("%s: %q: %s", path, line, problem)
				}
			}
		}
	}
	if n < 60 {
		t.Errorf("found only %d command lines", n)
	}
}

// commandLine returns the arguments of the closeout command in a line of a shell.
func commandLine(line string) (args []string, ok bool) {
	m := regexp.MustCompile(`^(?:[$#] )?(?:.*(?: |&& )/)?closeout ([a-z].*)$`).FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return nil, false
	}
	rest := regexp.MustCompile(`'[^']*'|"[^"]*"`).ReplaceAllString(m[1], "text")
	rest = regexp.MustCompile(`\s+#.*|\s*(?:&&|[|<>;]).*`).ReplaceAllString(strings.ReplaceAll(rest, `\|`, "/"), "")
	return strings.Fields(rest), true
}

// wrongArgs returns a description of what is wrong with the arguments, or "".
func wrongArgs(args []string) string {
	cmd := cli.Root(service.Extension{}, "closeout")
	cmd.Commands = append(cmd.Commands, &urfave.Command{Name: "completion", ArgsUsage: "SHELL"}) // added by the library
	for len(args) > 0 && len(cmd.Commands) > 0 {
		names := strings.Split(args[0], "/") // alternatives, which must all exist
		for _, name := range names {
			if cmd.Command(name) == nil {
				return "no command " + name
			}
		}
		cmd, args = cmd.Command(names[len(names)-1]), args[1:]
	}
	flags := map[string]urfave.Flag{}
	for _, f := range cmd.Flags {
		for _, name := range f.Names() {
			flags[name] = f
		}
	}
	for len(args) > 0 {
		name, isFlag := strings.CutPrefix(args[0], "--")
		args = args[1:]
		if !isFlag {
			if cmd.ArgsUsage == "" {
				return "takes no arguments"
			}
			continue
		}
		name, _, hasValue := strings.Cut(name, "=")
		f := flags[name]
		if f == nil {
			return "no flag --" + name
		}
		if _, isBool := f.(*urfave.BoolFlag); !isBool && !hasValue {
			if len(args) == 0 {
				return "no value of --" + name
			}
			args = args[1:]
		}
	}
	return ""
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
