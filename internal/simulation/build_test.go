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

	"golang.org/x/sync/errgroup"
)

// changes make all choices of the runtime within a synctest bubble depend on a seed: which
// goroutine runs next, which case of a select is taken, which of two timers fires first, the
// order of a map, and the numbers of math/rand. The rest of the process has no influence:
// the goroutines of a bubble have a queue of their own, are not preempted, and keep the
// processor during system calls.
var changes = map[string][][2]string{
	"runtime/rand.go": {{"	mp := getg().m\n	c := &mp.chacha8\n", `	mp := getg().m
	if gp := mp.curg; simulationSeed != 0 && gp != nil && gp.bubble != nil {
		return simulationSeed // for maps, so that their number has no influence
	}
	c := &mp.chacha8
`}, {"// randinit initializes", `// simulationSeed is 0 without a seed. simulationState is the state of its generator.
//
//go:linkname simulationSeed
//go:linkname simulationState
var simulationSeed, simulationState uint64

//go:nosplit
func simulationNext() uint64 {
	simulationState += 0x9e3779b97f4a7c15
	z := simulationState
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// simulationRand is the source of math/rand and of select.
//
//go:linkname simulationRand
func simulationRand() uint64 {
	if gp := getg().m.curg; simulationSeed != 0 && gp != nil && gp.bubble != nil {
		return simulationNext()
	}
	return rand()
}

// simulationQueue holds the runnable goroutines of the bubble.
var simulationQueue struct {
	lock mutex
	all  [1 << 16]guintptr
	n    int
}

func simulationPut(gp *g) bool {
	if simulationSeed == 0 || gp.bubble == nil {
		return false
	}
	q := &simulationQueue
	lock(&q.lock)
	if q.n == len(q.all) {
		throw("the simulation has too many goroutines")
	}
	q.all[q.n].set(gp)
	q.n++
	unlock(&q.lock)
	return true
}

func simulationGet() (gp *g) {
	q := &simulationQueue
	if q.n == 0 {
		return nil
	}
	lock(&q.lock)
	if q.n > 0 {
		i := int(uint32(simulationNext()) % uint32(q.n))
		gp = q.all[i].ptr()
		q.n--
		q.all[i] = q.all[q.n]
		q.all[q.n] = 0
	}
	unlock(&q.lock)
	return gp
}

// randinit initializes`}},
	"runtime/alg.go": {{"bootstrapRand()", "0x9e3779b97f4a7c15 * uint64(i+1)"}},
	"runtime/select.go": {{"cheaprandn(uint32(norder + 1))", "uint32(simulationRand() % uint64(norder+1))"},
		{"return uintptr(unsafe.Pointer(c))", "return c.born"}},
	"runtime/chan.go": {{"	c.elemtype = elem\n", "	c.elemtype, c.born = elem, simulationChans.Add(1)\n"},
		{"type hchan struct {\n", "// simulationChans numbers channels, whose addresses depend on the garbage collector.\nvar simulationChans atomic.Uintptr\n\ntype hchan struct {\n"},
		{"	elemtype *_type // element type\n", "	elemtype *_type // element type\n	born     uintptr\n"}},
	"runtime/preempt.go": {{"	return mp.locks == 0 && mp.mallocing", "	return !(simulationSeed != 0 && mp.curg != nil && mp.curg.bubble != nil) && mp.locks == 0 && mp.mallocing"}},
	"runtime/time.go":    {{"t.rand = cheaprand()", "t.rand = uint32(simulationNext())"}},
	"runtime/sema.go": {{"func internal_sync_nanotime() int64 {\n", `func internal_sync_nanotime() int64 {
	if gp := getg(); simulationSeed != 0 && gp.bubble != nil {
		return gp.bubble.now
	}
`}},
	"runtime/proc.go": {{"func runqput(pp *p, gp *g, next bool) {\n", `func runqput(pp *p, gp *g, next bool) {
	if simulationPut(gp) {
		return
	}
`}, {"func globrunqput(gp *g) {\n", `func globrunqput(gp *g) {
	if simulationPut(gp) {
		return
	}
`}, {"		if t == h {\n			return nil, false\n", "		if t == h {\n			return simulationGet(), false\n"},
		{"func runqempty(pp *p) bool {\n", `func runqempty(pp *p) bool {
	if simulationQueue.n > 0 {
		return false
	}
`}, {"func retake(now int64) uint32 {\n", `func retake(now int64) uint32 {
	if simulationSeed != 0 {
		return 0
	}
`}},
	"internal/runtime/maps/map.go": {{"m.seed = uintptr(rand())", "m.seed = 0x9e3779b9"}},
	"math/rand/rand.go":            {{"runtime_rand runtime.rand\n", "runtime_rand runtime.simulationRand\n"}},
	"math/rand/v2/rand.go":         {{"runtime_rand runtime.rand\n", "runtime_rand runtime.simulationRand\n"}},
	"internal/sync/hashtriemap.go": {{"ht.seed = uintptr(runtime_rand())", "ht.seed = 0x9e3779b9"}},
	// The content of a pool would depend on earlier seeds and on the garbage collector.
	"sync/pool.go": {{"func (p *Pool) Put(x any) {\n	if x == nil {\n", "func (p *Pool) Put(x any) {\n	if true {\n"}},
	"context/context.go": {{"children map[canceler]struct{}", "children map[canceler]int"},
		{"make(map[canceler]struct{})", "make(map[canceler]int)"},
		{"p.children[child] = struct{}{}", "p.born++\n			p.children[child] = p.born"},
		{"	mu       sync.Mutex            // protects following fields\n", "	mu       sync.Mutex            // protects following fields\n	born     int\n"},
		{"	for child := range c.children {\n", `	all := make([]canceler, 0, len(c.children))
	for child := range c.children {
		all = append(all, child)
	}
	for i := range all { // the oldest first, not by address
		for j := i; j > 0 && c.children[all[j]] < c.children[all[j-1]]; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	for _, child := range all {
`}},
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
			path := filepath.Join(root, "src", name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			source := string(text)
			for _, c := range all {
				if !strings.Contains(source, c[0]) {
					t.Fatalf("the library of %s has no %q in %s: change the simulation's changes to it", runtime.Version(), c[0], name)
				}
				source = strings.ReplaceAll(source, c[0], c[1])
			}
			overlay["Replace"][path] = write(t, filepath.Join(dir, strings.ReplaceAll(name, "/", "-")), source)
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

// chunk is the largest number of seeds that a process plays. What a store keeps that can't be closed,
// because its disk has failed, stays in the memory of the process.
const chunk = 5000

// spread plays seeds in one process per processor, and calls report with the lines that have
// results. It returns all other output.
func spread(t *testing.T, program string, report func(line string)) (printed string, err error) {
	t.Helper()
	var mu sync.Mutex
	all, ctx := errgroup.WithContext(t.Context())
	all.SetLimit(runtime.NumCPU())
	size := min(chunk, 1+*simulate/uint64(runtime.NumCPU()))
	for from := uint64(0); from < *simulate; from += size {
		all.Go(func() error {
			cmd := exec.CommandContext(ctx, program, "-test.run", "^TestSeeds$", "-test.timeout", "0", "-lines",
				"-first", fmt.Sprint(*first+from), "-seeds", fmt.Sprint(min(size, *simulate-from)))
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				return err
			}
			// If the process crashes or hangs, the last "begin" line has its history.
			last, silent := "", time.AfterFunc(silence, func() { _ = cmd.Process.Kill() })
			defer silent.Stop()
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
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("%w; the last one was: %s", err, last)
			}
			return nil
		})
	}
	err = all.Wait()
	return printed, err
}
