package simulation

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// changes make the choices of the runtime within a synctest bubble depend on a seed:
// which goroutine runs next, which case of a select is taken, which of two timers fires
// first, the order of a map, and the numbers of math/rand. Goroutines are not preempted.
var changes = map[string][][2]string{
	"rand.go": {{"	mp := getg().m\n	c := &mp.chacha8\n", `	mp := getg().m
	if gp := mp.curg; gp != nil && gp.bubble != nil {
		simulationState += 0x9e3779b97f4a7c15
		z := simulationState
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	c := &mp.chacha8
`}, {"// randinit initializes", "//go:linkname simulationState\nvar simulationState uint64\n\n// randinit initializes"}},
	"select.go": {{"cheaprandn(uint32(norder + 1))", "randn(uint32(norder + 1))"}},
	"time.go":   {{"t.rand = cheaprand()", "t.rand = uint32(rand())"}},
	"proc.go": {{"const randomizeScheduler = raceenabled", "const randomizeScheduler = true"},
		{"const forcePreemptNS = 10 * 1000 * 1000", "const forcePreemptNS = 3600 * 1000 * 1000 * 1000"},
		{"cheaprandn(i + 1)", "randn(i + 1)"}},
}

// build builds this package's tests with replaced files of the module, and if seeded,
// with a runtime that follows a seed. It uses no C, like the product.
func build(t *testing.T, replace map[string]string, seeded bool) (program string) {
	t.Helper()
	dir := t.TempDir()
	overlay := map[string]map[string]string{"Replace": {}}
	for path, with := range replace {
		full, err := filepath.Abs(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][full] = with
	}
	args := []string{"CGO_ENABLED=0", "go", "test", "-c", "-vet=off", "-ldflags=-w"}
	if seeded {
		args = append(args, "-tags", "seeded")
		root := strings.TrimSpace(output(t, "go", "env", "GOROOT"))
		for name, all := range changes {
			path := filepath.Join(root, "src", "runtime", name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			source := string(text)
			for _, c := range all {
				if !strings.Contains(source, c[0]) {
					t.Fatalf("the runtime of %s has no %q in %s: change the simulation's changes to it", runtime.Version(), c[0], name)
				}
				source = strings.ReplaceAll(source, c[0], c[1])
			}
			overlay["Replace"][path] = write(t, filepath.Join(dir, name), source)
		}
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "simulation.test")
	output(t, "env", append(args, "-overlay", write(t, filepath.Join(dir, "overlay.json"), string(text)), "-o", program, ".")...)
	return program
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// silence bounds the real time of a seed.
const silence = 5 * time.Minute

// spread runs a test of a program in one process per processor, each with a part of the
// numbers, and calls report with the lines that have results. It returns all other
// output.
func spread(t *testing.T, program, test string, report func(line string), args ...string) (printed string, err error) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	n := runtime.NumCPU()
	for i := range n {
		all.Go(func() {
			cmd := exec.CommandContext(t.Context(), program, append([]string{"-test.run", "^" + test + "$", "-test.timeout", "0",
				"-part", fmt.Sprint(i), "-parts", fmt.Sprint(n), "-lines"}, args...)...)
			out, pipeErr := cmd.StdoutPipe()
			cmd.Stderr = cmd.Stdout
			if pipeErr == nil {
				pipeErr = cmd.Start()
			}
			if pipeErr != nil {
				mu.Lock()
				err = pipeErr
				mu.Unlock()
				return
			}
			// The last line that begins a number names a crash or a hang.
			last, silent := "", time.AfterFunc(silence, func() { _ = cmd.Process.Kill() })
			lines := bufio.NewScanner(out)
			lines.Buffer(nil, 1<<24)
			for lines.Scan() {
				silent.Reset(silence)
				mu.Lock()
				switch line := lines.Text(); {
				case strings.HasPrefix(line, "begin "):
					last = line
				case strings.HasPrefix(line, "result "):
					report(line)
				default:
					printed += line + "\n"
				}
				mu.Unlock()
			}
			silent.Stop()
			if waitErr := cmd.Wait(); waitErr != nil {
				mu.Lock()
				err = fmt.Errorf("%w; the last one was: %s", waitErr, last)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return printed, err
}
