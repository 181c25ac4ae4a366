package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
)

// Audit is the command that proves that nothing was lost or done twice.
func Audit() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "compare what was acknowledged with the runs, the ledger, the archive and the inbox",
		Description: "Finds sessions that were lost, started twice, billed without a run, or closed out without a bill or a\n" +
			"manifest, and fails if there are any. Changes nothing, and may be run while callbacks come in. What\n" +
			"was acknowledged it knows from a journal; without one it can't miss what has left no trace.\n\n" +
			"    closeout audit --since 24h\n" +
			"    closeout audit --journal sent.jsonl --complete --wait 5m",
		Flags: append(auditFlags(),
			&cli.DurationFlag{Name: "wait", Usage: "repeat it until nothing is pending: the inbox is empty, and no run under way but those that wait for a person"},
			&cli.BoolFlag{Name: "json", Usage: "write the report as JSON"},
		),
		Action: runAudit,
	}
}

// auditFlags are those that say what is compared.
func auditFlags(more ...string) []cli.Flag {
	return append(Flags(append([]string{"DATA", "DATABASE_URL", "ARCHIVE_URL", "PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"}, more...)...),
		&cli.StringFlag{Name: "journal", Usage: "file of JSON lines with what the webhook was offered, as send --journal writes it"},
		&cli.StringSliceFlag{Name: "inbox", Usage: "folder of an inbox, once for each webhook (default: the one in the data folder)"},
		&cli.StringSliceFlag{Name: "usage-inbox", Usage: "folder of an inbox of usage, likewise"},
		&cli.BoolFlag{Name: "complete", Usage: "nothing was offered but what the journal lists"},
		&cli.StringFlag{Name: "since", Usage: "leave out runs that started before: an RFC 3339 time, or a duration ago such as 24h"},
		&cli.StringFlag{Name: "until", Usage: "leave out runs that started then or later, likewise"},
		&cli.DurationFlag{Name: "grace", Value: 2 * time.Minute, Usage: "with --complete, how old a bill has to be to be missed in the journal"},
	)
}

// audited is what an audit needs, opened.
type audited struct {
	config  *config.Config
	log     *slog.Logger
	client  client.Client
	options audit.Options
}

// withAudit opens what an audit needs for f.
func withAudit(ctx context.Context, cmd *cli.Command, f func(*audited) error) (err error) {
	o, err := auditOptions(cmd, time.Now())
	if err != nil {
		return err
	}
	c, log, err := Load(cmd, false)
	if err != nil {
		return err
	}
	temporal, err := service.Dial(c, log, nil)
	if err != nil {
		return err
	}
	defer temporal.Close()
	o.Temporal = temporal
	o.Data, _ = c.PayloadKeys.ForClient()
	if o.Ledger, err = openLedger(ctx, c); err != nil {
		return err
	}
	defer o.Ledger.Close()
	if o.Archive, err = openArchive(ctx, c); err != nil {
		return err
	}
	defer o.Archive.Close()
	inboxes, err := openInboxes(ctx, cmd, "inbox", c.Inbox())
	if err != nil {
		return err
	}
	if inboxes != nil {
		defer func() { err = errors.Join(err, inboxes.Close()) }()
		o.Inbox = inboxes
	} else {
		fmt.Fprintf(cmd.Root().ErrWriter, "no inbox in %s, so none is compared; --inbox names those of the webhooks\n", c.Data)
	}
	if o.UsageInbox, err = openInboxes(ctx, cmd, "usage-inbox", c.UsageInbox()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.UsageInbox.Close()) }()

	namespace, err := temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: c.Temporal.Namespace})
	if err != nil {
		return fmt.Errorf("ask Temporal at %s how long namespace %s keeps runs: %w", c.Temporal.HostPort, c.Temporal.Namespace, err)
	}
	o.Retention = namespace.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()

	return f(&audited{c, log, temporal, o})
}

func runAudit(ctx context.Context, cmd *cli.Command) error {
	return withAudit(ctx, cmd, func(a *audited) error { return writeAudit(ctx, cmd, a.options) })
}

func writeAudit(ctx context.Context, cmd *cli.Command, o audit.Options) error {
	wait := cmd.Duration("wait")
	report, err := audit.Wait(ctx, o, wait)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := writeReport(cmd, report); err != nil {
		return err
	}
	switch faults, pending := report.Count(), report.Pending(); {
	case faults == 1:
		return errors.New("1 fault")
	case faults > 1:
		return fmt.Errorf("%d faults", faults)
	case wait > 0 && pending == 1:
		return fmt.Errorf("1 session is still pending after %v", wait)
	case wait > 0 && pending > 1:
		return fmt.Errorf("%d sessions are still pending after %v", pending, wait)
	}
	return nil
}

// openInboxes opens the inboxes that a flag names, each of which has to be there, or
// the one of the data folder, which a worker's doesn't have.
func openInboxes(ctx context.Context, cmd *cli.Command, flag, inData string) (audit.Inboxes, error) {
	folders := cmd.StringSlice(flag)
	named := len(folders) > 0
	if !named {
		folders = []string{inData}
	}
	opened, err := audit.OpenInboxes(ctx, folders)
	switch {
	case err == nil:
		return opened, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case named:
		return nil, fmt.Errorf("--%s: no webhook has run there: %w", flag, err)
	}
	return nil, nil
}

func writeReport(cmd *cli.Command, report audit.Report) error {
	if !cmd.Bool("json") {
		return report.WriteText(cmd.Root().Writer)
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	_, err = fmt.Fprintf(cmd.Root().Writer, "%s\n", b)
	return err
}

// auditOptions are the options that are flags of the command.
func auditOptions(cmd *cli.Command, now time.Time) (o audit.Options, err error) {
	if file := cmd.String("journal"); file != "" {
		o.Journal, o.Lives = audit.Journal(file), audit.JournalLives(file)
	}
	if o.Complete = cmd.Bool("complete"); o.Complete && o.Journal == nil {
		return o, errors.New("--complete: says something of a journal, want it with --journal")
	}
	if o.Since, err = parseMoment(cmd.String("since"), now); err != nil {
		return o, fmt.Errorf("--since: %w", err)
	}
	if o.Until, err = parseMoment(cmd.String("until"), now); err != nil {
		return o, fmt.Errorf("--until: %w", err)
	}
	if !o.Until.IsZero() && !o.Since.Before(o.Until) {
		return o, errors.New("--since and --until: nothing lies between them, want the earlier one as --since")
	}
	o.Grace = cmd.Duration("grace")
	if o.Grace < 0 || cmd.Duration("wait") < 0 {
		return o, fmt.Errorf("--grace and --wait: found %v and %v, want none below 0", o.Grace, cmd.Duration("wait"))
	}
	return o, nil
}

// parseMoment reads a time, or a duration before now; the zero time if it's empty.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("found %q, want a time such as 2026-11-23T12:00:00Z, or a duration ago such as 24h", s)
}
