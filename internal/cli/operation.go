package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/sdk/client"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/service"
)

// storeTimeout bounds how long a store may take to open, answer or close.
const storeTimeout = 5 * time.Second

// operation is one call of an operator command. It opens stores from the settings, creates none, and closes what it
// opened.
type operation struct {
	*cli.Command
	config *config.Config
	log    *slog.Logger
	out    io.Writer

	// What the command needs; see operate.
	temporal client.Client
	ledger   *ledger.Ledger
	archive  *blob.Bucket
	inboxes  inboxes
	bills    ledger.Filter

	// Each opens a store once.
	openLedger            func() (*ledger.Ledger, error)
	openArchive           func() (*blob.Bucket, error)
	openInbox, openEvents func() (*inbox.Store, error)

	mu      sync.Mutex
	closers []func()
}

// operate returns the action of an operator command: its steps in their order, until one fails. The last one does the
// work; those before it check flags, and open the stores that it needs.
func operate(steps ...func(context.Context, *operation) error) cli.ActionFunc {
	return func(ctx context.Context, cmd *cli.Command) error {
		c, log, err := Load(cmd, false)
		if err != nil {
			return err
		}
		op := &operation{Command: cmd, config: c, log: log, out: cmd.Root().Writer}
		op.openLedger = sync.OnceValues(func() (*ledger.Ledger, error) { return op.findLedger(ctx) })
		op.openArchive = sync.OnceValues(func() (*blob.Bucket, error) { return op.findArchive(ctx) })
		op.openInbox = sync.OnceValues(func() (*inbox.Store, error) { return op.findInbox(ctx, c.Inbox()) })
		op.openEvents = sync.OnceValues(func() (*inbox.Store, error) { return op.findInbox(ctx, c.EventInbox()) })
		defer op.close()
		return op.do(ctx, steps...)
	}
}

func (op *operation) do(ctx context.Context, steps ...func(context.Context, *operation) error) error {
	for _, step := range steps {
		if err := step(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

// Steps that open a store.

func needTemporal(_ context.Context, op *operation) (err error) {
	if op.temporal, err = service.Dial(op.config, op.log, nil); err == nil {
		op.onClose(op.temporal.Close)
	}
	return err
}

func needLedger(_ context.Context, op *operation) (err error) {
	op.ledger, err = op.openLedger()
	return err
}

func needArchive(_ context.Context, op *operation) (err error) {
	op.archive, err = op.openArchive()
	return err
}

func (op *operation) onClose(f func()) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.closers = append(op.closers, f)
}

// close closes the stores, the last one first, and leaves behind one that hangs. A search that hangs may still open
// others.
func (op *operation) close() {
	op.mu.Lock()
	closers := slices.Clone(op.closers)
	op.mu.Unlock()
	_, _ = probe.Do(context.Background(), storeTimeout, probe.Err(func(context.Context) error {
		for _, f := range slices.Backward(closers) {
			f()
		}
		return nil
	}))
}

// findLedger opens the ledger. An empty one in a wrong place would be taken for the truth, so it has to have its tables.
func (op *operation) findLedger(ctx context.Context) (*ledger.Ledger, error) {
	l, err := ledger.Open(op.config.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	op.onClose(func() { _ = l.Close() })
	err = l.Check(ctx)
	switch {
	case errors.Is(err, ledger.ErrNotSetUp):
		return nil, withHint(fmt.Errorf("the ledger: %w", err), "closeout setup creates its tables; CLOSEOUT_DATABASE_URL or CLOSEOUT_DATA name another ledger")
	case err != nil:
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	return l, nil
}

func (op *operation) findArchive(ctx context.Context) (*blob.Bucket, error) {
	bucket, err := archive.OpenExisting(ctx, op.config.ArchiveURL)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, withHint(fmt.Errorf("the archive: %w", err), "CLOSEOUT_ARCHIVE_URL or CLOSEOUT_DATA name another archive")
	case err != nil:
		return nil, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: open the bucket: %w", err)
	}
	op.onClose(func() { _ = bucket.Close() })
	return bucket, nil
}

// findInbox opens an inbox, whether or not another process owns it. The error wraps [os.ErrNotExist] where there is none.
func (op *operation) findInbox(ctx context.Context, folder string) (*inbox.Store, error) {
	store, err := inbox.Attach(ctx, folder)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, withHint(fmt.Errorf("no webhook has run in %s: %w", op.config.Data, os.ErrNotExist), "--data or CLOSEOUT_DATA name another folder")
	case err != nil:
		return nil, err
	}
	op.onClose(func() { _ = store.Close() })
	return store, nil
}

// each calls f for each argument, at least one, and joins the errors.
func (op *operation) each(what, example string, f func(arg string) error) error {
	if op.NArg() == 0 {
		return withHint(usagef("no %s", what), "for example: %s %s", op.FullName(), example)
	}
	var faults []error
	for _, arg := range op.Args().Slice() {
		if err := f(arg); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", printable.Line(arg), err))
		}
	}
	return errors.Join(faults...)
}

// jsonFlag is the flag of a command that calls [operation.print].
func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

// print prints a result as JSON with --json, and otherwise as text.
func (op *operation) print(result any, text func(io.Writer) error) error {
	if !op.Bool("json") {
		return text(op.out)
	}
	return printJSON(op.out, result)
}

func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// hint is an error with advice, which [Run] prints on a line of its own.
type hint struct {
	error
	advice string
}

func withHint(err error, format string, args ...any) error {
	return &hint{err, fmt.Sprintf(format, args...)}
}

// Unwrap returns the error without the advice.
func (h *hint) Unwrap() error { return h.error }

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// oneLine returns prose that may hold line ends as one line. [printable.Line] shows names, in which white space matters.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
