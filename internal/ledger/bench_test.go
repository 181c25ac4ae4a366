package ledger_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
)

// BenchmarkFinalize bills a session of 10,000 users with 40,000 stays, and one of 4 users. If
// CLOSEOUT_BENCH_STAYS is set, it repeats both in a ledger with that many more stays. It reports
// the peak of resident memory during a bill.
func BenchmarkFinalize(b *testing.B) {
	more, _ := strconv.Atoi(os.Getenv("CLOSEOUT_BENCH_STAYS"))
	for name, databaseURL := range databases(b) {
		l, err := ledger.Open(databaseURL)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		number := uint64(1 << 62)
		measure := func(others int) {
			for _, users := range []int{10_000, 4} {
				b.Run(fmt.Sprintf("%s/%d_stays_beside_%d", name, users*4, others), func(b *testing.B) {
					peak := 0
					for range b.N {
						b.StopTimer()
						number++
						fillSession(b, l, number, users, 0)
						debug.FreeOSMemory()
						before, stop := resident(), make(chan int)
						go watch(stop)
						b.StartTimer()
						bill, _, err := l.Finalize(b.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: app, RoomSessionID: number}, RoomID: "r", RoomCloseTime: at(10_000)}})
						b.StopTimer()
						stop <- 0
						peak = max(peak, <-stop-before)
						if err != nil || bill.Usage.Stays != int64(users*4) || bill.Usage.Participants != int64(users) || bill.Usage.Seconds != int64(users*35) {
							b.Fatalf("billed %+v, %v", bill, err)
						}
						b.StartTimer()
					}
					b.ReportMetric(float64(peak)/1024, "MB-peak")
				})
			}
		}
		measure(0)
		if more > 0 {
			l.FillStays(b, more)
			measure(more)
		}
	}
}

// BenchmarkParticipants reads the participants of a billed session as a step does: 10,000 users
// with 40,000 stays and 20,000 streams. It fails if that takes more than 2 s or more than 32 MB of
// resident memory.
func BenchmarkParticipants(b *testing.B) {
	for name, databaseURL := range databases(b) {
		b.Run(name, func(b *testing.B) {
			l, err := ledger.Open(databaseURL)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = l.Close() })
			fillSession(b, l, life, 10_000, 2)
			billed := ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "r", RoomCloseTime: at(10_000)}}
			bill, _, err := l.Finalize(b.Context(), billed)
			if err != nil {
				b.Fatal(err)
			}
			s := session.Session{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "r", RoomCloseTime: at(10_000)}
			peak := 0
			for b.Loop() {
				b.StopTimer()
				debug.FreeOSMemory()
				before, stop := resident(), make(chan int)
				go watch(stop)
				b.StartTimer()
				people, err := l.Participants(b.Context(), s, 0)
				if err != nil {
					b.Fatal(err)
				}
				var sum session.Billed
				users, stays, streams := 0, 0, 0
				for p, err := range people.All {
					if err != nil {
						b.Fatal(err)
					}
					users, stays, streams = users+1, stays+len(p.Stays), streams+len(p.Streams)
					sum.InRoom, sum.Published = sum.InRoom+p.Billed().InRoom, sum.Published+p.Billed().Published
				}
				b.StopTimer()
				stop <- 0
				peak = max(peak, <-stop-before)
				if users != 10_000 || stays != 40_000 || streams != 20_000 || sum.InRoom != bill.Usage.Millis || sum.Published != bill.Usage.Published || sum.Published == 0 {
					b.Fatalf("%d users, %d stays, %d streams with %+v, want %+v", users, stays, streams, sum, bill.Usage)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(peak)/1024, "MB-peak")
			if each := b.Elapsed() / time.Duration(b.N); each > 2*time.Second || peak > 32<<10 {
				b.Errorf("took %v and %d MB, want at most 2 s and 32 MB", each, peak/1024)
			}
		})
	}
}

// databases returns SQLite, and PostgreSQL if CLOSEOUT_TEST_POSTGRES_URL is set.
func databases(b *testing.B) map[string]string {
	all := map[string]string{"sqlite": "sqlite:" + filepath.Join(b.TempDir(), "ledger.db")}
	if os.Getenv("CLOSEOUT_TEST_POSTGRES_URL") != "" {
		all["postgres"] = testenv.Postgres(b)
	}
	return all
}

// fillSession records a session. Each user has the given number of streams and four stays, two of
// which overlap.
func fillSession(b *testing.B, l *ledger.Ledger, number uint64, users, streams int) {
	b.Helper()
	batch := []ledger.Event{created(0)}
	batch[0].RoomSessionID = number
	add := func(u ledger.Event) {
		u.RoomSessionID = number
		if batch = append(batch, u); len(batch) == 1000 {
			if err := l.Record(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	for stay := range int64(4) {
		for user := range users {
			u := logout(fmt.Sprintf("user_%06d", user), fmt.Sprintf("%d%06d", stay, user), stay*5, stay*5+10)
			if stay == 3 {
				u = logout(u.User, u.Stay, 100, 115)
			}
			add(u)
		}
	}
	for stream := range int64(streams) {
		for user := range users {
			add(published(fmt.Sprintf("user_%06d", user), fmt.Sprintf("s%d%06d", stream, user), stream*5, stream*5+7))
		}
	}
	if err := l.Record(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
}

// watch sends the peak of resident memory, in KB, once it receives from stop.
func watch(stop chan int) {
	peak := 0
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-tick.C:
			peak = max(peak, resident())
		case <-stop:
			stop <- max(peak, resident())
			return
		}
	}
}

// resident returns this process's resident memory in KB, or 0 if it is unknown.
func resident() int {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if size, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(size)[0])
			return n
		}
	}
	return 0
}
