package ledger_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
)

// with adds a parameter to a URL.
func with(t *testing.T, databaseURL, name, value string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // pgx doesn't decode "+" as a space
	return u.String()
}

// A connection to a demoted server, and one that the server terminated, fails at most once before
// it is replaced.
func TestConnectionToDemotedPrimaryIsDropped(t *testing.T) {
	for name, demote := range map[string]string{
		"read only":  "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
		"terminated": "SELECT pg_terminate_backend(pg_backend_pid())",
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, testenv.Postgres(t))
			record(t, l, login("u", "1", 1))
			const connections = 3
			l.OnEach(t, connections, demote)
			failed := 0
			for n := range 2 * connections {
				if err := l.Record(t.Context(), []ledger.Event{login("u", string(rune('a'+n)), 1)}); err == nil {
					continue
				} else if ledger.Refusal(err) {
					t.Errorf("Refusal blames the callback: %v", err)
				}
				failed++
			}
			if failed > connections {
				t.Errorf("%d of %d failed, want at most one for each of %d connections", failed, 2*connections, connections)
			}
			record(t, l, login("u", "z", 1))
		})
	}
}

// Whatever the server's default isolation, a bill contains all events recorded before it locks the
// session.
func TestTransactionsAreReadCommittedWhateverTheDefault(t *testing.T) {
	for _, isolation := range []string{"repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			databaseURL := with(t, testenv.Postgres(t), "default_transaction_isolation", isolation)
			if got := open(t, databaseURL).Isolation(t); got != "read committed" {
				t.Errorf("isolation %q", got)
			}
			recordAndBillAtOnce(t, databaseURL)
		})
	}
}

// Doctor's probe writes to the tables that runs write to, and leaves no rows.
func TestProbeWritesAndLeavesNothing(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, table := range []string{"sessions", "stays", "bills", "recording_tasks", "recording_files"} {
			if n := l.CountRows(t, table); n != 0 {
				t.Errorf("%d rows are left in %s", n, table)
			}
		}
	})
}

func TestProbeReportsAnUnwritableStore(t *testing.T) {
	server := testenv.Postgres(t)
	if err := open(t, server).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	role := "reader_" + strings.TrimPrefix(mustParse(t, server).Query().Get("search_path"), "test_")
	admin := open(t, server)
	admin.Exec(t, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { admin.Exec(t, "DROP OWNED BY "+role); admin.Exec(t, "DROP ROLE "+role) })
	admin.Exec(t, "GRANT USAGE ON SCHEMA "+mustParse(t, server).Query().Get("search_path")+" TO "+role)
	admin.Exec(t, "GRANT SELECT ON ALL TABLES IN SCHEMA "+mustParse(t, server).Query().Get("search_path")+" TO "+role)
	reader := mustParse(t, server)
	reader.User = url.User(role)
	for _, tt := range []struct {
		name, url, says, advice string
		final                   bool
	}{
		{"a role that may only read", reader.String(), "permission denied", "GRANT", true},
		{"a read-only database", with(t, server, "default_transaction_read_only", "on"), "read-only transaction", "primary", false},
		{"no such database", strings.Replace(server, "/postgres?", "/nowhere?", 1), "does not exist", "create the database", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := open(t, tt.url)
			err := l.Probe(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, want one that says %q", err, tt.says)
			}
			if advice, final := ledger.Advice(err); !strings.Contains(advice, tt.advice) || final != tt.final {
				t.Errorf("advice %q, final %v, want %q, %v", advice, final, tt.advice, tt.final)
			}
			if ledger.Refusal(err) {
				t.Error("Refusal blames the content")
			}
		})
	}
	if _, final := ledger.Advice(context.DeadlineExceeded); final {
		t.Error("a time-out is final")
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A read-only role can list bills, because the schema is up to date and nothing has to be created.
func TestReadOnlyDatabaseCanBeRead(t *testing.T) {
	server := testenv.Postgres(t)
	if err := open(t, server).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, with(t, server, "default_transaction_read_only", "on")).CountBills(t.Context(), ledger.Filter{}); err != nil {
		t.Error(err)
	}
}

func TestUnusableURLSaysWhy(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "root.crt")
	for url, want := range map[string]string{
		"postgres://u:hunter2@h/db?sslmode=verify-full&sslrootcert=" + missing: missing + ": no such file",
		"postgres://u:hunter2@h/db?target_session_attrs=first":                 "target_session_attrs",
		"postgres://u:hunter2@h/db?connect_timeout=soon":                       "connect_timeout",
		"postgres://u:hunter2@h:port/db":                                       "invalid port",
		"postgres://u:hunter2/@h/db":                                           "invalid port",
	} {
		_, err := ledger.Open(url)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the password: %v", url, err)
		}
	}
}

// Only the owner can read the ledger's files, even if the folder or the file existed before.
func TestDatabaseFileIsReadableByItsOwnerOnly(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"new folder":      func(string) error { return nil },
		"existing folder": func(path string) error { return os.Mkdir(filepath.Dir(path), 0o755) },
		"existing file": func(path string) error {
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data", "ledger.db")
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			l := open(t, "sqlite:"+path)
			record(t, l, login("u", "1", 1))
			files, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(files) < 3 { // at least the database, its WAL and its lock
				t.Fatalf("%v, %v", files, err)
			}
			for _, f := range files {
				if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
				}
			}
		})
	}
}

// If the server lacks TLS, or its certificate isn't trusted, the error is permanent, as no retry
// helps.
func TestImpossibleTLSIsPermanent(t *testing.T) {
	certificate, key := testenv.NewAuthority(t).Issue(t, testenv.For("localhost", time.Hour))
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for mode, tt := range map[string]struct {
		speaks bool
		advice string
	}{"require": {false, "sslmode=disable"}, "verify-full": {true, "sslrootcert"}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					request := make([]byte, 8)
					if _, err := io.ReadFull(conn, request); err != nil {
						return
					}
					if !tt.speaks {
						_, _ = conn.Write([]byte("N"))
						return
					}
					_, _ = conn.Write([]byte("S"))
					_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake()
				}()
			}
		}()
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		l := open(t, "postgres://u@localhost:"+port+"/d?sslmode="+mode)
		err = l.Migrate(t.Context())
		if advice, final := ledger.Advice(err); err == nil || !final || !strings.Contains(advice, tt.advice) {
			t.Errorf("%s: %v: advice %q, final %v", mode, err, advice, final)
		}
	}
}
