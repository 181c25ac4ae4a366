package main

import (
	"bufio"
	"context"
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

	"github.com/closeouthq/closeout/dev/server"
)

// bench is one run: a folder, and the processes in it.
type bench struct {
	dir    string
	log    io.Writer // for what isn't a result
	result *tabwriter.Writer
	n      int
}

func newBench(out, log io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "closeout-bench-")
	if err != nil {
		return nil, err
	}
	return &bench{dir: dir, log: log, result: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}, nil
}

// table begins a table of results, row adds to it and flush shows it.
func (b *bench) table(header string)            { fmt.Fprintln(b.result, "\n"+header) }
func (b *bench) row(format string, args ...any) { fmt.Fprintf(b.result, format+"\n", args...) }
func (b *bench) flush() error                   { return b.result.Flush() }

func (b *bench) close() { _ = os.RemoveAll(b.dir) }

// folder makes a new folder.
func (b *bench) folder() string {
	b.n++
	return filepath.Join(b.dir, strconv.Itoa(b.n))
}

// process is this program, running one of its commands.
type process struct {
	cmd *exec.Cmd
	// address is what it listens on.
	address string
}

// start runs a command of this program and waits until it says, in a line on its
// stdout, where it listens.
func (b *bench) start(command string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{command}, args...)...)
	b.n++
	log, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("%s-%d.log", command, b.n)))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	// Without this process it has nothing to do.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start %s: %w\n%s", command, err, text)
	}
	return &process{cmd: cmd, address: strings.TrimSpace(line)}, nil
}

// stop ends it in order.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// rss is its resident memory in bytes.
func (p *process) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// temporalCommand runs a Temporal server until it is told to stop.
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
