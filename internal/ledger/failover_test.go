package ledger_test

import (
	"context"
	"database/sql"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
)

// cluster is a PostgreSQL server that the test starts and stops. It never runs as root.
type cluster struct {
	t    *testing.T
	bin  string
	data string
	port string

	as      *syscall.Credential
	process *exec.Cmd
}

// newCluster looks for PostgreSQL's programs, and skips the test if there are none. It starts no
// server.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
			initdb = found[len(found)-1]
		}
	}
	if initdb == "" {
		testenv.Skip(t, "there are no PostgreSQL server programs")
	}
	if real, err := filepath.EvalSymlinks(initdb); err == nil {
		initdb = real // initdb may be a link, and the other programs may have none
	}
	c.bin = filepath.Dir(initdb)
	if c.data, err = os.MkdirTemp("", "closeout-postgres-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(c.data) })
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			testenv.Skip(t, "PostgreSQL doesn't run as root, and there is no user postgres")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.data, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, c.port, _ = net.SplitHostPort(l.Addr().String())
	return c
}

func (c *cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...) // #nosec G204
	cmd.Dir, cmd.SysProcAttr = c.data, &syscall.SysProcAttr{Credential: c.as}
	return cmd
}

func (c *cluster) run(program string, args ...string) {
	c.t.Helper()
	if out, err := c.command(program, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// start starts the server and waits until it accepts statements.
func (c *cluster) start() {
	c.t.Helper()
	c.process = c.command("postgres", "-D", c.data, "-p", c.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
	if err := c.process.Start(); err != nil {
		c.t.Fatal(err)
	}
	process := c.process
	c.t.Cleanup(func() { _ = process.Process.Signal(syscall.SIGQUIT); _ = process.Wait() })
	c.query("SELECT 1")
}

// die ends the server at once, without a checkpoint. Commits in progress get no answer.
func (c *cluster) die() {
	c.t.Helper()
	if err := c.process.Process.Signal(syscall.SIGQUIT); err != nil {
		c.t.Fatal(err)
	}
	_ = c.process.Wait()
}

// query runs a statement, and retries it for a minute until the server accepts it.
func (c *cluster) query(statement string) {
	c.t.Helper()
	db, err := sql.Open("pgx", "postgres://postgres@127.0.0.1:"+c.port+"/postgres?sslmode=disable")
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err = db.Exec(statement); err == nil {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// billers make bills concurrently. Like a step, each repeats a bill with its key until it is
// acknowledged.
type billers struct {
	t       *testing.T
	books   *ledger.Ledger
	stop    context.CancelFunc
	writers sync.WaitGroup
	made    atomic.Int64
	billed  [4]map[uint64]uuid.UUID // acknowledged bills of each biller, by session
}

// startBillers opens the ledger of a URL and starts billers.
func startBillers(t *testing.T, url string) *billers {
	t.Helper()
	books, err := ledger.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() })
	if err := books.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	b := &billers{t: t, books: books, stop: stop}
	for n := range b.billed {
		b.billed[n] = map[uint64]uuid.UUID{}
		b.writers.Go(func() {
			for number := uint64(n + 1); ctx.Err() == nil; number += uint64(len(b.billed)) {
				due := ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", RoomCloseTime: time.Now()}}
				for ctx.Err() == nil {
					attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
					bill, _, err := books.Finalize(attempt, due)
					cancel()
					if err == nil {
						b.billed[n][number] = bill.ID
						b.made.Add(1)
						break
					}
				}
			}
		})
	}
	return b
}

// more waits for a hundred bills.
func (b *billers) more(when string) {
	b.t.Helper()
	for before, end := b.made.Load(), time.Now().Add(time.Minute); b.made.Load() < before+100; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("no bills %s", when)
		}
	}
}

// check stops the billers, and checks that the ledger has each acknowledged bill once.
func (b *billers) check() {
	b.t.Helper()
	b.stop()
	b.writers.Wait()
	found := map[uint64]uuid.UUID{}
	for bill, err := range b.books.Bills(b.t.Context(), time.Time{}) {
		if err != nil {
			b.t.Fatal(err)
		}
		if _, twice := found[bill.RoomSessionID]; twice {
			b.t.Errorf("session %d has two bills", bill.RoomSessionID)
		}
		found[bill.RoomSessionID] = bill.ID
	}
	for _, acknowledged := range b.billed {
		for number, id := range acknowledged {
			if found[number] != id {
				b.t.Errorf("session %d: bill %v, want %v", number, found[number], id)
			}
		}
	}
	b.t.Logf("%d bills", b.made.Load())
}

// The primary dies while bills are written, its standby is promoted, and the old primary returns
// as a read-only standby. Every acknowledged bill is there once, and new bills are made throughout.
func TestBillsSurviveAFailOver(t *testing.T) {
	t.Parallel()
	primary, standby := newCluster(t), newCluster(t)
	primary.run("initdb", "-D", primary.data, "-U", "postgres", "-A", "trust", "--no-sync")
	primary.start()
	standby.run("pg_basebackup", "-h", "127.0.0.1", "-p", primary.port, "-U", "postgres", "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
	standby.start()
	// A commit is acknowledged once both servers have it.
	primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
	primary.query("SELECT pg_reload_conf()")

	b := startBillers(t, "postgres://postgres@127.0.0.1:"+primary.port+",127.0.0.1:"+standby.port+"/postgres?sslmode=disable")
	b.more("ahead of the fail-over")
	primary.die()
	standby.query("SELECT pg_promote()")
	b.more("after the promotion")
	if err := os.WriteFile(filepath.Join(primary.data, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	primary.start()
	b.more("with the old primary as a standby, whose address is the first")
	b.check()
}

// PostgreSQL dies again and again while bills are committed, and PgBouncer keeps the connections
// of the ledger. Every acknowledged bill is there once.
func TestBillsSurviveAServerThatDiesBehindPgBouncer(t *testing.T) {
	t.Parallel()
	server := newCluster(t)
	server.run("initdb", "-D", server.data, "-U", "postgres", "-A", "trust", "--no-sync")
	server.start()
	b := startBillers(t, testenv.BehindPgBouncer(t, "postgres://postgres@127.0.0.1:"+server.port+"/postgres"))
	for range 5 {
		b.more("while the server works")
		server.die()
		server.start()
	}
	b.more("at the end")
	b.check()
}
