package simulation

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

var backward = flag.Bool("backward", false, "TestCourses begins with the last seed")

// courses is the number of seeds that TestEverySeedReplaysExactly compares.
const courses = 200

// With -exact, every seed takes the same course to the nanosecond, in any process and after
// any other seeds.
func TestEverySeedReplaysExactly(t *testing.T) {
	if *simulate == 0 {
		t.Skip("builds Go's library anew; runs with -simulate=20000, as in CI")
	}
	program := build(t, nil, true)
	course := map[string]string{} // by seed
	for _, args := range [][]string{{}, {"-backward"}} {
		seen := 0
		for line := range strings.Lines(output(t, program, append(args, "-test.run", "^TestCourses$", "-seeds", fmt.Sprint(courses), "-first", fmt.Sprint(*first))...)) {
			var seed, hash string
			if _, err := fmt.Sscanf(line, "course %s %s", &seed, &hash); err != nil {
				continue
			}
			seen++
			if before := course[seed]; before != "" && before != hash {
				t.Errorf("seed %s took another course, %s after %s: something isn't decided by the seed", seed, hash, before)
			}
			course[seed] = hash
		}
		if seen < 2*courses || len(course) != courses {
			t.Fatalf("%d courses of %d seeds, want two of each of %d", seen, len(course), courses)
		}
	}
}

// TestCourses prints a hash of each seed's course, and again after the next seed.
func TestCourses(t *testing.T) {
	if !seeded {
		t.Skip("belongs to TestEverySeedReplaysExactly")
	}
	for n := range *seeds + 1 {
		for _, i := range []uint64{n, n - 1} {
			if i >= *seeds {
				continue
			}
			seed := *first + i
			if *backward {
				seed = *first + *seeds - 1 - i
			}
			fmt.Printf("course %d %x\n", seed, run(t, newHistory(seed)).hash)
		}
	}
}
