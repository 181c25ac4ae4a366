// Package simulation runs Closeout's code for callbacks unchanged, on virtual time, on a
// disk that can crash after any operation, and with peers that fail in all known ways. A
// seed determines a run.
package simulation

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seeds    = flag.Uint64("seeds", 200, "how many seeds TestSeeds runs")
	first    = flag.Uint64("first", 1, "the first of them")
	simulate = flag.Uint64("simulate", 0, "how many seeds TestSimulation runs")
	exact    = flag.Bool("exact", false, "TestSimulation and TestReplay rebuild Go's library with a runtime that follows the seed")
	replay   = flag.Uint64("replay", 0, "the seed that TestReplay prints")

	lines = flag.Bool("lines", false, "print a line about each seed")
)

func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1) // one goroutine at a time
	runtime.MemProfileRate = 0
	os.Exit(m.Run())
}

// The guarantees hold, whatever fails and crashes.
func TestSeeds(t *testing.T) {
	began, paths := time.Now(), map[uint64]bool{}
	var virtual time.Duration
	for seed := *first; seed < *first+*seeds; seed++ {
		o := run(t, newHistory(seed))
		if *lines {
			fmt.Printf("result %d %d\n", o.path, o.took)
		}
		paths[o.path] = true
		virtual += o.took
		if o.failure != "" {
			t.Fatal(explain(t, newHistory(seed), o.failure))
		}
	}
	if !*lines {
		t.Logf("%d seeds, %d interleavings, %v of virtual time in %v", *seeds, len(paths), virtual.Round(time.Second), time.Since(began).Round(time.Second))
	}
}

// run plays a history. With -lines, it prints the history first, so that spread can name a
// history that crashes or hangs.
func run(t *testing.T, h history) outcome {
	if *lines {
		fmt.Printf("begin %s\n", strings.ReplaceAll(h.String(), "\n", "; "))
	}
	return play(t, h, false)
}

// explain returns the shortest history found that breaks a guarantee, and what happens in
// it.
func explain(t *testing.T, h history, failure string) string {
	seed, all := h.seed, len(h.actions)
	h = shrink(t, h)
	o := play(t, h, true)
	return fmt.Sprintf("seed %d: %s\n\n%d of %d actions are enough for: %s\n%s\nWhat happens:\n%s", seed, failure, len(h.actions), all, o.failure, h, strings.Join(o.lines, "\n"))
}

// shrink drops actions while the history still fails.
func shrink(t *testing.T, h history) history {
	for again := true; again; {
		again = false
		for size := max(1, len(h.actions)/2); size > 0; size /= 2 {
			for from := 0; from+size <= len(h.actions); {
				if smaller := h.without(from, from+size); run(t, smaller).failure != "" {
					h, again = smaller, true
				} else {
					from += size
				}
			}
		}
	}
	return h
}

// TestSimulation is TestSeeds on all processors, with progress.
func TestSimulation(t *testing.T) {
	if *simulate == 0 {
		t.Skip("runs with -simulate=20000, as in CI")
	}
	program := build(t, nil, *exact)
	began, done, paths, virtual := time.Now(), uint64(0), map[uint64]bool{}, time.Duration(0)
	reported := began
	printed, err := spread(t, program, func(line string) {
		var path uint64
		var took time.Duration
		if _, err := fmt.Sscanf(line, "result %d %d", &path, &took); err != nil {
			t.Error(err)
		}
		paths[path] = true
		done++
		virtual += took
		if now := time.Now(); now.Sub(reported) > 10*time.Second {
			reported = now
			left := time.Duration(float64(now.Sub(began)) / float64(done) * float64(*simulate-done))
			fmt.Printf("%d of %d seeds, %.0f a second, %v left, %d interleavings (%.1f%% of the seeds had a new one)\n",
				done, *simulate, float64(done)/now.Sub(began).Seconds(), left.Round(time.Second), len(paths), 100*float64(len(paths))/float64(done))
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	took := time.Since(began)
	t.Logf("%d seeds in %v, %.0f a second, %v of virtual time, %d interleavings", done, took.Round(time.Second), float64(done)/took.Seconds(), virtual.Round(time.Second), len(paths))
}

// TestReplay prints what happens with a seed.
func TestReplay(t *testing.T) {
	if *replay == 0 {
		t.Skip("runs with -replay=SEED")
	}
	if *exact && !seeded {
		fmt.Print(output(t, build(t, nil, true), "-test.run", "^TestReplay$", "-replay", fmt.Sprint(*replay)))
		return
	}
	h := newHistory(*replay)
	o := play(t, h, true)
	fmt.Printf("%s\n%s\n", h, strings.Join(o.lines, "\n"))
	for _, answer := range slices.Sorted(maps.Keys(o.answers)) {
		fmt.Printf("%4d %s\n", o.answers[answer], answer)
	}
	fmt.Printf("hash %x, file operations of each process %v\n", o.hash, o.ops)
	if o.failure != "" {
		t.Error(o.failure)
	}
}
