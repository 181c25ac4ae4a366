//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/closeouthq/closeout/dev/server"
)

// process is a process that can be killed and started again.
type process struct {
	name string
	argv []string
	env  []string
	// ready reports whether the process does its work.
	ready func(context.Context) bool
	log   string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// start starts the process.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stderr = log
	// Kill the process if this one dies.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

// end sends a signal and waits until the process has ended.
func (p *process) end(signal os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(signal)
	_ = p.cmd.Wait()
	p.cmd = nil
}

// wait waits until the process is ready.
func (p *process) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for !p.ready(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s doesn't get ready, see %s: %w", p.name, p.log, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// answers returns a function that reports whether url answers 200.
func answers(url string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

// temporalVariable makes a process of this program a Temporal server. Its value is the
// port and the folder.
const temporalVariable = "CLOSEOUT_CHAOS_TEMPORAL"

// playTemporal runs a Temporal server if temporalVariable is set.
func playTemporal(ctx context.Context) (played bool, code int) {
	port, dir, ok := strings.Cut(os.Getenv(temporalVariable), ":")
	if !ok {
		return false, 0
	}
	o := server.Options{Dir: dir, UIPort: -1, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	if _, err := fmt.Sscan(port, &o.Port); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	if err := server.Serve(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	return true, 0
}

// freePorts returns n different free ports.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // hold all until the last is found
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// disk is a small file system that can be filled.
type disk struct{ dir string }

// errNoDisk means that the test lacks the privileges to mount a file system.
var errNoDisk = errors.New("can't mount a small file system here")

func mountDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDisk, err)
	}
	return &disk{dir}, nil
}

// fill fills the disk to the last byte.
func (d *disk) fill() error {
	f, err := os.Create(filepath.Join(d.dir, "balloon"))
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

// free frees the disk's space.
func (d *disk) free() error { return os.Remove(filepath.Join(d.dir, "balloon")) }

func (d *disk) unmount() { _ = syscall.Unmount(d.dir, syscall.MNT_DETACH) }
