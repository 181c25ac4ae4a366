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

// The primary is shut down while bills are written, its standby is promoted, and the old primary
// returns as a read-only standby. Every acknowledged bill is there once, and new bills are made
// throughout.
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

	books, err := ledger.Open("postgres://postgres@127.0.0.1:" + primary.port + ",127.0.0.1:" + standby.port + "/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if err := books.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	billed := make([]map[uint64]uuid.UUID, 4)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for n := range billed {
		billed[n] = map[uint64]uuid.UUID{}
		writers.Go(func() {
			for number := uint64(n + 1); ctx.Err() == nil; number += uint64(len(billed)) {
				// A step retries with the same key until it succeeds.
				id := uuid.New()
				for ctx.Err() == nil {
					attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
					bill, _, err := books.Finalize(attempt, ledger.Bill{ID: id, Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", RoomCloseTime: time.Now()}})
					cancel()
					if err == nil {
						billed[n][number] = bill.ID
						made.Add(1)
						break
					}
				}
			}
		})
	}
	more := func(what string) {
		t.Helper()
		for before, end := made.Load(), time.Now().Add(time.Minute); made.Load() < before+100; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no bills %s", what)
			}
		}
	}
	more("ahead of the fail-over")
	primary.run("pg_ctl", "stop", "-D", primary.data, "-m", "fast", "-w")
	standby.query("SELECT pg_promote()")
	more("after the promotion")
	if err := os.WriteFile(filepath.Join(primary.data, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	primary.start()
	more("with the old primary as a standby, whose address is the first")
	stop()
	writers.Wait()

	found := map[uint64]uuid.UUID{}
	for b, err := range books.Bills(t.Context(), time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := found[b.RoomSessionID]; twice {
			t.Errorf("session %d has two bills", b.RoomSessionID)
		}
		found[b.RoomSessionID] = b.ID
	}
	for _, acknowledged := range billed {
		for number, id := range acknowledged {
			if found[number] != id {
				t.Errorf("session %d: bill %v, want %v", number, found[number], id)
			}
		}
	}
	t.Logf("%d bills", made.Load())
}
