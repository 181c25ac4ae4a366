//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego"
)

// measureEvents compares how many callbacks of participants are acknowledged through the
// webhook with how many of the same rows a bare program inserts into the same tables in
// large transactions.
func measureEvents(ctx context.Context, b *bench) error {
	const d = 5 * time.Second
	nowhere, err := freeAddress()
	if err != nil {
		return err
	}
	databases := []struct {
		name string
		make func(ctx context.Context) (url string, drop func(), err error)
	}{{"SQLite", func(context.Context) (string, func(), error) {
		dir := b.folder()
		return "sqlite:" + filepath.Join(dir, "ledger.db"), func() {}, os.MkdirAll(dir, 0o700)
	}}}
	postgres, stop, err := b.postgres(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(b.log, "no PostgreSQL:", err)
	default:
		defer stop()
		databases = append(databases, struct {
			name string
			make func(ctx context.Context) (url string, drop func(), err error)
		}{"PostgreSQL", func(ctx context.Context) (string, func(), error) { return newSchema(ctx, postgres) }})
	}
	b.table("events\tper second\tstored\tp99 ms\tresident MB")
	for _, database := range databases {
		s := series{}
		for range rounds {
			for _, connections := range append([]int{bareInsert, nothingStored}, eventConnections...) {
				err := func() error {
					at, drop, err := database.make(ctx)
					if err != nil {
						return err
					}
					defer drop()
					if connections == bareInsert {
						rate, err := insertRows(ctx, at, d)
						s.add("bare", rate)
						return err
					}
					if connections == nothingStored {
						return webhookAlone(ctx, b, s, nowhere, d)
					}
					return eventRound(ctx, b, s, nowhere, at, connections, d)
				}()
				if err != nil {
					return fmt.Errorf("%s, %d connections: %w", database.name, connections, err)
				}
			}
		}
		b.row("%s, bare INSERT\t%.0f\t\t\t", database.name, median(s["bare"]))
		b.row("%s, Closeout that stores nothing\t%.0f\t\t\t", database.name, median(s["alone"]))
		for _, n := range eventConnections {
			of := func(figure string) string { return fmt.Sprint(figure, n) }
			b.row("%s, Closeout, %d connections\t%.0f\t%.0f %%\t%.0f\t%.0f", database.name, n, median(s[of("rate")]), median(s[of("stored")]), median(s[of("p99")]), median(s[of("rss")]))
			b.row("%s, Closeout / bare INSERT\t%.2f (want 0.6)\t\t\t", database.name, s.ratio(of("rate"), "bare"))
		}
	}
	return b.flush()
}

// eventConnections lists the numbers of connections that send callbacks. In results,
// bareInsert and nothingStored stand for the comparisons instead.
var eventConnections = []int{64, 1024}

const bareInsert, nothingStored = 0, -1

// webhookAlone measures HTTP and verification without a store, which bounds what this
// machine can store.
func webhookAlone(ctx context.Context, b *bench, s series, temporal string, d time.Duration) error {
	p, _, err := b.closeout(temporal, b.folder(), webhooks, "CLOSEOUT_PARTICIPANTS=off")
	if err != nil {
		return err
	}
	defer p.stop()
	l, err := closedLoopOf(ctx, p.address, eventConnections[0], d, newLogout)
	if err != nil {
		return err
	}
	s.add("alone", l.rate())
	return nil
}

// eventRound measures one round of Closeout. In the end the ledger must have all
// acknowledged events.
func eventRound(ctx context.Context, b *bench, s series, temporal, ledgerURL string, connections int, d time.Duration) error {
	books, err := ledger.Open(ledgerURL)
	if err != nil {
		return err
	}
	err = errors.Join(books.Migrate(ctx), books.Close())
	if err != nil {
		return err
	}
	p, admin, err := b.closeout(temporal, b.folder(), webhooks, "CLOSEOUT_DATABASE_URL="+ledgerURL)
	if err != nil {
		return err
	}
	defer p.stop()
	l, err := closedLoopOf(ctx, p.address, connections, d, newLogout)
	if err != nil {
		return err
	}
	of := func(figure string) string { return fmt.Sprint(figure, connections) }
	s.add(of("rate"), l.rate())
	s.add(of("stored"), 100*float64(l.statuses["stored"])/float64(l.n()))
	s.add(of("p99"), l.quantile(.99).Seconds()*1000)
	s.add(of("rss"), float64(p.memory("VmRSS")>>20))
	if err := emptied(ctx, admin, "closeout_event_inbox_depth"); err != nil {
		return err
	}
	db, err := openRaw(ledgerURL)
	if err != nil {
		return err
	}
	defer db.Close()
	var rows int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM stays").Scan(&rows); err != nil {
		return err
	}
	if rows < l.n() { // callbacks in flight at the end may be stored too
		return fmt.Errorf("%d callbacks were acknowledged, and the ledger has %d", l.n(), rows)
	}
	return nil
}

// newLogout returns a genuine room_logout of a new session.
func newLogout() ([]byte, error) {
	now := time.Now()
	c := zego.RoomLogout{RoomLogin: zego.RoomLogin{
		Common: zego.Common{AppID: 1, Timestamp: now.Unix(), Nonce: strconv.FormatUint(rand.Uint64(), 10)},
		RoomID: "rid_1242649", RoomSessionID: rand.Uint64(), UserAccount: "888120154", SessionID: strconv.FormatUint(rand.Uint64(), 10), LoginTime: now.Add(-time.Minute), UserRole: "1",
	}, LogoutTime: now}
	c.Signature = zego.Sign(secret, c.Timestamp, c.Nonce)
	return c.MarshalJSON()
}

// rowsTogether is the number of rows that the bare program inserts in a transaction:
// Closeout's maximum.
const rowsTogether = 1000

// insertRows inserts the rows of new callbacks for a given time: a row for the session
// and one for the stay.
func insertRows(ctx context.Context, ledgerURL string, d time.Duration) (rate float64, err error) {
	books, err := ledger.Open(ledgerURL)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(books.Migrate(ctx), books.Close()); err != nil {
		return 0, err
	}
	db, err := openRaw(ledgerURL)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	insert := insertSQLite
	if !strings.HasPrefix(ledgerURL, "sqlite:") {
		insert = insertPostgres
	}
	n, began := 0, time.Now()
	for ; time.Since(began) < d; n += rowsTogether {
		sessions, stays := make([]string, rowsTogether), make([]string, rowsTogether)
		for i := range rowsTogether {
			sessions[i], stays[i] = strconv.FormatUint(rand.Uint64(), 10), strconv.FormatUint(rand.Uint64(), 10)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return 0, err
		}
		if err := insert(ctx, tx, sessions, stays, time.Now().UnixMilli()); err != nil {
			return 0, errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

const (
	sessionColumns = "INSERT INTO sessions (appid, room_session_id, room_id, room_create_time, contradicted, implausible, seen_at, closed_at, entries, dirty_at) "
	stayColumns    = "INSERT INTO stays (appid, room_session_id, stay, user_account, user_role, role_at, login_time, logout_time, logout_reason, contradicted, implausible, seen_at, name, login_number, logout_number) "
)

func insertSQLite(ctx context.Context, tx *sql.Tx, sessions, stays []string, now int64) error {
	session, err := tx.PrepareContext(ctx, sessionColumns+"VALUES (1, $1, 'rid_1242649', 0, 0, 0, $2, 0, 0, 0)")
	if err != nil {
		return err
	}
	stay, err := tx.PrepareContext(ctx, stayColumns+"VALUES (1, $1, $2, '888120154', '1', $3, $3, $3, '0', 0, 0, $3, '', 0, 0)")
	if err != nil {
		return err
	}
	for i := range sessions {
		if _, err := session.ExecContext(ctx, sessions[i], now); err != nil {
			return err
		}
		if _, err := stay.ExecContext(ctx, sessions[i], stays[i], now); err != nil {
			return err
		}
	}
	return nil
}

func insertPostgres(ctx context.Context, tx *sql.Tx, sessions, stays []string, now int64) error {
	if _, err := tx.ExecContext(ctx, sessionColumns+"SELECT 1, s, 'rid_1242649', 0, 0, 0, $2, 0, 0, 0 FROM unnest($1::text[]) AS s", sessions, now); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, stayColumns+"SELECT 1, s, t, '888120154', '1', $3, $3, $3, '0', 0, 0, $3, '', 0, 0 FROM unnest($1::text[], $2::text[]) AS given (s, t)", sessions, stays, now)
	return err
}

// openRaw opens a ledger's database with the same durability.
func openRaw(ledgerURL string) (*sql.DB, error) {
	if path, ok := strings.CutPrefix(ledgerURL, "sqlite:"); ok {
		return sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	}
	config, err := pgx.ParseConfig(ledgerURL)
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*config), nil
}

// newSchema creates a new schema in the database.
func newSchema(ctx context.Context, at string) (_ string, drop func(), err error) {
	db, err := openRaw(at)
	if err != nil {
		return "", nil, err
	}
	name := fmt.Sprintf("closeout_bench_%d", rand.Uint32())
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA "+name); err != nil {
		return "", nil, errors.Join(err, db.Close())
	}
	u, err := url.Parse(at)
	if err != nil {
		return "", nil, err
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String(), func() {
		_, _ = db.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA "+name+" CASCADE")
		_ = db.Close()
	}, nil
}

// postgres returns the PostgreSQL named by CLOSEOUT_TEST_POSTGRES_URL, or starts one
// until ctx ends.
func (b *bench) postgres(ctx context.Context) (at string, stop func(), err error) {
	if at := os.Getenv("CLOSEOUT_TEST_POSTGRES_URL"); at != "" {
		return at, func() {}, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", nil, errors.Join(err, errors.New("its programs aren't in /usr/lib/postgresql, and CLOSEOUT_TEST_POSTGRES_URL names none"))
	}
	bin := filepath.Dir(slices.Max(found))
	dir, err := os.MkdirTemp("", "closeout-bench-postgres-")
	if err != nil {
		return "", nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	tool := func(name string, args ...string) error {
		command := append([]string{filepath.Join(bin, name), "-D", filepath.Join(dir, "data")}, args...)
		if os.Getuid() == 0 { // PostgreSQL refuses to run as root
			command = append([]string{"runuser", "-u", "postgres", "--"}, command...)
		}
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = dir
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, text)
		}
		return nil
	}
	if os.Getuid() == 0 {
		if err := exec.CommandContext(ctx, "chown", "postgres", dir).Run(); err != nil {
			remove()
			return "", nil, err
		}
	}
	free, err := freeAddress()
	if err != nil {
		remove()
		return "", nil, err
	}
	_, port, err := net.SplitHostPort(free)
	if err == nil {
		err = tool("initdb", "-A", "trust", "-U", "postgres")
	}
	if err == nil {
		err = tool("pg_ctl", "-l", filepath.Join(dir, "log"), "-w", "-o", "-p "+port+" -c listen_addresses=127.0.0.1 -c unix_socket_directories="+dir, "start")
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return "postgres://postgres@127.0.0.1:" + port + "/postgres", func() {
		ctx = context.WithoutCancel(ctx)
		_ = tool("pg_ctl", "-m", "immediate", "stop")
		remove()
	}, nil
}
