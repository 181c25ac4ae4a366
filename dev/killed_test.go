package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/closeouthq/closeout/dev/internal/binary"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// build builds the closeout binary, once for all tests.
var build = sync.OnceValues(func() (string, error) {
	var flags []string
	if os.Getenv("CI") != "" {
		flags = append(flags, "-race")
	}
	return binary.Build(context.Background(), testDir, flags...)
})

// process starts a closeout process with the settings, and further settings in the
// environment.
func process(t *testing.T, c *config.Config, command string, env ...string) (*exec.Cmd, *lines) {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, command)
	cmd.Env = append(os.Environ(), "CLOSEOUT_APPS=1=secret", "CLOSEOUT_LISTEN=127.0.0.1:0", "CLOSEOUT_ADMIN_LISTEN=127.0.0.1:0",
		"CLOSEOUT_DATA="+c.Data, "CLOSEOUT_DATABASE_URL="+c.DatabaseURL, "CLOSEOUT_SETTLING=0s",
		"CLOSEOUT_TASK_QUEUE="+c.TaskQueue, "TEMPORAL_ADDRESS="+c.Temporal.HostPort, "TEMPORAL_NAMESPACE="+c.Temporal.Namespace)
	cmd.Env = append(cmd.Env, env...)
	log := &lines{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, log
}

// A worker is killed when one of three files is archived and another is being copied. The
// next worker completes the archive, and doesn't copy the first file again.
func TestWorkerKilledInMidArchiveIsResumed(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	address := start(t, c, service.Parts{Webhook: true})
	closed := newClose()
	record(t, c, closed, "1.mp4", []byte("first"))
	second := record(t, c, closed, "2.mp4", nil)
	record(t, c, closed, "3.mp4", []byte("third"))
	// A sparse file takes no space, but longer to copy than the test lasts.
	if err := os.Truncate(second, 64<<30); err != nil {
		t.Fatal(err)
	}

	worker, log := process(t, c, "worker")
	if a := post(t, address, closed); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	first := archived(c, closed, "recordings/1.mp4")
	wait(t, "the first file is archived", func() bool { return exists(first) })
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait()
	if exists(archived(c, closed, "manifest.json")) {
		t.Fatalf("there is a manifest already:\n%s", log)
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	record(t, c, closed, "2.mp4", []byte("second"))

	_, log = process(t, c, "worker")
	r := result(t, dial(t, c), closed)
	if r.State != workflows.StateDone || !strings.Contains(r.Steps[1].Summary, "3 recordings of 16 bytes") {
		t.Errorf("result %+v\n%s", r, log)
	}
	for name, want := range map[string]string{"1.mp4": "first", "2.mp4": "second", "3.mp4": "third"} {
		if got := read(t, archived(c, closed, "recordings/"+name)); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if after, err := os.Stat(first); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the first file was copied again: %v, %v", after.ModTime(), err)
	}
	bill(t, c, closed)
}

// SIGTERM stops a process in order, with exit code 0.
func TestSIGTERMStopsInOrder(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	for _, command := range []string{"serve", "webhook", "worker"} {
		cmd, log := process(t, c, command)
		ready := "worker polling"
		if command == "webhook" {
			ready = "callback listener ready"
		}
		wait(t, command+" is ready", func() bool { return strings.Contains(log.String(), ready) })
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil || !strings.Contains(log.String(), "closeout stopped") {
				t.Errorf("%s: %v\n%s", command, err, log)
			}
		case <-time.After(patience):
			t.Fatalf("%s doesn't stop:\n%s", command, log)
		}
	}
}
