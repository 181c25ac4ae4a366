package simulation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bugSeeds bounds the seeds that run until a bug is found, and quickSeeds those that run before
// the crash points.
const bugSeeds, quickSeeds = 7000, 1000

// The simulation finds known bugs. One program has all the bugs of testdata/bugs, and its
// environment turns one of them on.
func TestKnownBugsAreFound(t *testing.T) {
	if *simulate == 0 {
		t.Skip("builds the program with bugs; runs with -simulate=20000, as in CI")
	}
	program := buildBugs(t)
	try := func(name, test string, first, seeds int) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, "-test.run", "^"+test+"$", "-first", fmt.Sprint(first), "-seeds", fmt.Sprint(seeds))
		cmd.Env = append(os.Environ(), "CLOSEOUT_BUG="+name)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := try("", "TestSeeds", 1, bugSeeds); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	for _, name := range bugs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // one program per processor
			began := time.Now()
			for _, part := range []struct {
				test         string
				first, seeds int
			}{
				{"TestSeeds", 1, quickSeeds},
				{"TestEveryCrashPoint", 1, 0},
				{"TestSeeds", 1 + quickSeeds, bugSeeds - quickSeeds},
			} {
				out, err := try(name, part.test, part.first, part.seeds)
				if err == nil {
					continue
				}
				_, why, found := strings.Cut(out, "actions are enough for: ")
				if !found {
					t.Fatalf("the run failed without a history: %v\n%s", err, out)
				}
				history, _, _ := strings.Cut(why, "\nWhat happens:")
				t.Logf("found by %s after %v: %s", part.test, time.Since(began).Round(time.Millisecond), history)
				return
			}
			t.Errorf("not found in %d seeds, nor at any crash point of the short histories", bugSeeds)
		})
	}
}

func bugs(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/bugs/*.patch")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %d bugs, %v", len(files), err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".patch"))
	}
	return names
}

// buildBugs builds this package's tests with all bugs. The function bug turns each of
// them on.
func buildBugs(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for _, name := range bugs(t) {
		patch, err := filepath.Abs(filepath.Join("testdata", "bugs", name+".patch"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(patch)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			path, changed := strings.CutPrefix(strings.TrimSpace(line), "+++ b/")
			if !changed || replace[path] != "" {
				continue
			}
			source, err := os.ReadFile(filepath.Join("../..", path))
			if err == nil {
				err = os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700)
			}
			if err != nil {
				t.Fatal(err)
			}
			replace[path] = write(t, filepath.Join(dir, path), string(source))
			asks := filepath.Join(filepath.Dir(path), "bug.go")
			replace[asks] = write(t, filepath.Join(dir, asks), "package "+filepath.Base(filepath.Dir(path))+
				"\n\nimport \"os\"\n\nfunc bug(name string) bool { return os.Getenv(\"CLOSEOUT_BUG\") == name }\n")
		}
		apply := exec.CommandContext(t.Context(), "git", "apply", "-C1", patch)
		apply.Dir = dir
		if out, err := apply.CombinedOutput(); err != nil {
			t.Fatalf("%s.patch: %v\n%s\nThe code has changed: make the patch anew", name, err, out)
		}
	}
	return build(t, replace, false)
}

// Each patch applies to the code and calls bug with its own name. Otherwise only CI would
// notice a mistake.
func TestBugsFitTheCode(t *testing.T) {
	for _, name := range bugs(t) {
		patch := filepath.Join("internal/simulation/testdata/bugs", name+".patch")
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", "-C1", patch)
		check.Dir = "../.."
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", patch, err, out)
		}
		if text, err := os.ReadFile(filepath.Join("../..", patch)); err != nil || !strings.Contains(string(text), fmt.Sprintf("bug(%q)", name)) {
			t.Errorf("%s doesn't ask for %q: %v", patch, name, err)
		}
	}
}
