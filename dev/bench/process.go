//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/dev/internal/binary"
	"github.com/closeouthq/closeout/dev/server"
)

// bench is one run of the benchmarks: a folder, and the processes in it.
type bench struct {
	dir    string
	binary string    // path of closeout
	log    io.Writer // for everything but results
	result *tabwriter.Writer
	n      int
}

func newBench(ctx context.Context, out, log io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "closeout-bench-")
	if err != nil {
		return nil, err
	}
	// As in the image: pages of an executable count as used if they are near a used one.
	closeout, err := binary.Build(ctx, dir, "-tags=disable_grpc_modules", "-ldflags=-s -w")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &bench{dir: dir, binary: closeout, log: log, result: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}, nil
}

// table begins a table of results, row adds to it, and flush prints it.
func (b *bench) table(header string)            { fmt.Fprintln(b.result, "\n"+header) }
func (b *bench) row(format string, args ...any) { fmt.Fprintf(b.result, format+"\n", args...) }
func (b *bench) flush() error                   { return b.result.Flush() }

func (b *bench) close() { _ = os.RemoveAll(b.dir) }

// folder makes a new folder.
func (b *bench) folder() string {
	b.n++
	return filepath.Join(b.dir, strconv.Itoa(b.n))
}

// process is this program running one of its commands.
type process struct {
	cmd *exec.Cmd
	// address is the address that it listens on.
	address string
}

// start runs a command of this program and waits until it prints the address that it
// listens on.
func (b *bench) start(command string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{command}, args...)...)
	if err := b.prepare(cmd); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		text, _ := os.ReadFile(b.logOf(cmd))
		return nil, fmt.Errorf("start %s: %w\n%s", command, err, text)
	}
	return &process{cmd: cmd, address: strings.TrimSpace(line)}, nil
}

// startCloseout starts the deployed binary.
func (b *bench) startCloseout(what role, environment ...string) (*process, error) {
	cmd := exec.Command(b.binary, string(what))
	cmd.Env = append(os.Environ(), environment...)
	if err := b.prepare(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: cmd}, nil
}

// prepare makes a command log to a file, and end with this process.
func (b *bench) prepare(cmd *exec.Cmd) error {
	b.n++
	log, err := os.Create(b.logOf(cmd))
	if err != nil {
		return err
	}
	cmd.Stderr = log // open until this process ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return nil
}

func (b *bench) logOf(cmd *exec.Cmd) string {
	return filepath.Join(b.dir, fmt.Sprintf("%s-%d.log", cmd.Args[1], b.n))
}

// stop ends the process in order.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// memory returns a memory figure of the process in bytes, by its name in Linux's
// /proc/<pid>/status, such as VmRSS.
func (p *process) memory(kind string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, kind+": %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// temporalCommand runs a Temporal server until it is interrupted.
func temporalCommand() *cli.Command {
	return &cli.Command{
		Name: "temporal", Hidden: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "dir"}, &cli.IntFlag{Name: "port"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			return server.Serve(ctx, server.Options{
				Dir: cmd.String("dir"), Port: cmd.Int("port"), UIPort: -1, Logger: slog.New(slog.DiscardHandler),
			}, cmd.Root().Writer)
		},
	}
}
