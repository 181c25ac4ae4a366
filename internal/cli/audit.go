package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/closeouthq/closeout/internal/audit"
)

// Audit returns the command that finds what was lost or done twice.
func Audit() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "compare acknowledged callbacks with runs, ledger, archive and inbox",
		Description: "Finds sessions that were lost, started twice, billed without a run, or closed out without a bill or a\n" +
			"manifest, and fails if there are any. Changes nothing, and can run while callbacks arrive. A journal lists the\n" +
			"acknowledged callbacks. Without one, the audit cannot find a session that no store knows.\n\n" +
			"    closeout audit --since 24h\n" +
			"    closeout audit --journal sent.jsonl --complete --wait 5m",
		Flags: append(auditFlags(),
			&cli.DurationFlag{Name: "wait", Usage: "repeat for this long until the inbox is empty and all open runs are blocked"}, jsonFlag()),
		Action: operate(runAudit),
	}
}

// auditFlags returns the flags that say what to compare.
func auditFlags(more ...string) []cli.Flag {
	return append(Flags(append([]string{"DATA", "DATABASE_URL", "ARCHIVE_URL", "PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"}, more...)...),
		&cli.StringFlag{Name: "journal", Usage: "file of JSON Lines with the callbacks that were sent to the webhook"},
		&cli.StringSliceFlag{Name: "inbox", Usage: "folder of an inbox, once for each webhook (default: the one in the data folder)"},
		&cli.StringSliceFlag{Name: "event-inbox", Usage: "folder of an event inbox, once for each webhook"},
		&cli.BoolFlag{Name: "complete", Usage: "the journal lists all callbacks that were sent"},
		&cli.StringFlag{Name: "since", Usage: "skip runs started before: an RFC 3339 time, or a duration ago such as 24h"},
		&cli.StringFlag{Name: "until", Usage: "skip runs started then or later, likewise"},
		&cli.DurationFlag{Name: "grace", Value: 2 * time.Minute, Usage: "with --complete, the minimum age of a bill that is missing in the journal"},
	)
}

func runAudit(ctx context.Context, op *operation) error {
	o, err := openAudit(ctx, op)
	if err != nil {
		return err
	}
	wait := op.Duration("wait")
	report, err := audit.Wait(ctx, o, wait)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := op.print(report, report.WriteText); err != nil {
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

// openAudit reads the options of an audit from the flags, and opens what it reads.
func openAudit(ctx context.Context, op *operation) (o audit.Options, err error) {
	if o, err = auditOptions(op, time.Now()); err != nil {
		return o, err
	}
	if err := op.do(ctx, needTemporal, needLedger, needArchive); err != nil {
		return o, err
	}
	o.Temporal, o.Ledger, o.Archive = op.temporal, op.ledger, op.archive
	o.Data, _ = op.config.PayloadKeys.ForClient()
	inboxes, err := auditInboxes(ctx, op, "inbox", op.config.Inbox())
	if err != nil {
		return o, err
	}
	if inboxes == nil {
		fmt.Fprintf(op.Root().ErrWriter, "no inbox in %s, so none is compared; --inbox names those of the webhooks\n", op.config.Data)
	} else {
		o.Inbox = inboxes.All
	}
	events, err := auditInboxes(ctx, op, "event-inbox", op.config.EventInbox())
	if err != nil {
		return o, err
	}
	o.EventInbox = events.All
	namespace, err := op.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: op.config.Temporal.Namespace})
	if err != nil {
		return o, fmt.Errorf("ask Temporal at %s how long namespace %s keeps runs: %w", op.config.Temporal.HostPort, op.config.Temporal.Namespace, err)
	}
	o.Retention = namespace.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	return o, nil
}

// auditInboxes opens the inboxes that a flag names, which have to exist, or the one in the data folder, which a worker
// does not have.
func auditInboxes(ctx context.Context, op *operation, flag, inData string) (audit.Inboxes, error) {
	folders := op.StringSlice(flag)
	named := len(folders) > 0
	if !named {
		folders = []string{inData}
	}
	opened, err := audit.OpenInboxes(ctx, folders)
	switch {
	case err == nil:
		op.onClose(func() { _ = opened.Close() })
		return opened, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case named:
		return nil, fmt.Errorf("--%s: no webhook has run there: %w", flag, err)
	}
	return nil, nil
}

func auditOptions(op *operation, now time.Time) (o audit.Options, err error) {
	if file := op.String("journal"); file != "" {
		o.Journal = audit.Journal(file)
	}
	if o.Complete = op.Bool("complete"); o.Complete && o.Journal == nil {
		return o, usagef("--complete: found no --journal, want both")
	}
	if o.Since, err = parseTime(op.String("since"), now); err != nil {
		return o, usagef("--since: %w", err)
	}
	if o.Until, err = parseTime(op.String("until"), now); err != nil {
		return o, usagef("--until: %w", err)
	}
	if !o.Until.IsZero() && !o.Since.Before(o.Until) {
		return o, usagef("--since and --until: found nothing between them, want --since to be the earlier")
	}
	o.Grace = op.Duration("grace")
	if o.Grace < 0 || op.Duration("wait") < 0 {
		return o, usagef("--grace and --wait: found %v and %v, want 0s or more", o.Grace, op.Duration("wait"))
	}
	return o, nil
}

// parseTime parses a time, or a duration before now. It returns the zero time for an empty string.
func parseTime(s string, now time.Time) (time.Time, error) {
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
