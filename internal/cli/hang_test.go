package cli_test

import (
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// swallow starts a server that accepts connections, reads from them and never answers.
func swallow(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	return l.Addr().String()
}

// A peer that hangs fails its own check and no other.
func TestDoctorWhileSomethingHangs(t *testing.T) {
	healthy().serve(t)
	_, args := doctor(t, "ok")
	for name, tt := range map[string]struct{ args, fails string }{
		"the ledger":      {"--database-url postgres://u:hunter2@" + swallow(t) + "/x", "FAIL  ledger "},
		"the process":     {"--admin-listen " + swallow(t), "FAIL  running process "},
		"ZEGO":            {"--server-secrets 1=secret --server-api-url http://" + swallow(t), "FAIL  server API "},
		"the archive":     {"--archive-url s3://a?region=us-east-1&use_path_style=true&endpoint=http://" + swallow(t), "FAIL  archive "},
		"Temporal itself": {"", "FAIL  temporal "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", "a")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
			if tt.args == "" {
				t.Setenv("TEMPORAL_ADDRESS", swallow(t))
			}
			code, stdout, stderr := closeout(args + " " + tt.args)
			if code != 1 || !regexp.MustCompile(tt.fails+".*deadline exceeded").MatchString(stdout) || !strings.Contains(stdout, "ok    inbox ") || !strings.Contains(stdout, "ok    recordings ") ||
				strings.Count(stdout, "FAIL") != 1 || strings.Contains(stdout, "hunter2") {
				t.Errorf("%d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

// While Temporal and the ledger hang, status finds a session in the inbox by its number and by its
// room.
func TestStatusWhileTemporalAndTheLedgerHang(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", swallow(t))
	data := t.TempDir()
	queue(t, data, "room-close-1-1")
	args := "status --data " + data + " --archive-url file://" + filepath.Join(data, "none") + " --database-url postgres://u@" + swallow(t) + "/x?sslmode=disable "
	var group sync.WaitGroup
	for _, name := range []string{"1", "lobby"} {
		group.Go(func() { // each waits for timeouts
			code, stdout, stderr := closeout(args + name)
			if code != 3 || !strings.Contains(stderr, "unknown: bill, run") {
				t.Errorf("%s: %d\n%s", name, code, stderr)
			}
			for _, want := range []string{"room-close-1-1\n", "room      lobby\n", "inbox     dead letter since ", "run       unknown: ", "bill      unknown: no answer"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("%s: %d, without %q:\n%s%s", name, code, want, stdout, stderr)
				}
			}
		})
	}
	group.Wait()
}
