package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/service"
)

// Doctor returns the command that checks what the settings name.
func Doctor() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check settings and connections, and say how to fix them",
		Description: "Run it with the settings of the process to check, and as its user. It writes and removes probes in the data\n" +
			"folder, the inbox, the ledger and the archive. Fails if a check fails; decide about a warning yourself.\n\n" +
			"    closeout doctor\n" +
			"    closeout doctor --for worker",
		Flags:  append(Flags(), &cli.StringFlag{Name: "for", Value: "serve", Usage: "the process to check: serve, webhook or worker"}, jsonFlag()),
		Action: diagnose,
	}
}

// check is one thing to find out.
type check struct {
	name string
	run  func(context.Context) checkResult
}

// The statuses of a [checkResult].
const (
	statusOK   = "ok"
	statusWarn = "warn"
	statusFail = "FAIL"
	statusSkip = "skip"
)

type checkResult struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	// Hint is how to fix it.
	Hint string `json:"hint,omitempty"`
}

func pass(format string, args ...any) checkResult {
	return checkResult{Status: statusOK, Detail: fmt.Sprintf(format, args...)}
}

func skip(why string) checkResult { return checkResult{Status: statusSkip, Detail: why} }

func warn(hint, format string, args ...any) checkResult {
	return checkResult{Status: statusWarn, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

func fail(hint, format string, args ...any) checkResult {
	return checkResult{Status: statusFail, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// diagnosis is the result of doctor.
type diagnosis struct {
	Checks []checkResult `json:"checks"`
	Failed int           `json:"failed"`
	Warned int           `json:"warned"`
}

func diagnose(ctx context.Context, cmd *cli.Command) error {
	role := cmd.String("for")
	if !slices.Contains([]string{"serve", "webhook", "worker"}, role) {
		return usagef("--for: found %q, want serve, webhook or worker", role)
	}
	out, asJSON := cmd.Root().Writer, cmd.Bool("json")
	var d diagnosis
	counts := map[string]int{}
	report := func(r checkResult) {
		r.Detail, r.Hint = oneLine(r.Detail), oneLine(r.Hint)
		d.Checks = append(d.Checks, r)
		if counts[r.Status]++; !asJSON {
			r.print(out)
		}
	}
	c, _, err := Load(cmd, role != "worker")
	if err != nil {
		for fault := range strings.SplitSeq(strings.TrimPrefix(err.Error(), "settings:\n"), "\n") {
			report(checkResult{Check: "settings", Status: statusFail, Detail: fault})
		}
		report(checkResult{Check: "all else", Status: statusSkip, Detail: "needs the settings"})
	} else {
		report(checkResult{Check: "settings", Status: statusOK, Detail: "complete, for " + role})
		// The results say what the SDK would log.
		temporal, err := service.Dial(c, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return err
		}
		defer temporal.Close()
		for _, result := range start(ctx, checks(c, temporal, role)) {
			report(<-result)
		}
	}
	d.Failed, d.Warned = counts[statusFail], counts[statusWarn]
	if asJSON {
		if err := printJSON(out, d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "\n%d ok, %d warned, %d failed, %d skipped\n", counts[statusOK], d.Warned, d.Failed, counts[statusSkip])
	}
	switch d.Failed {
	case 0:
		return nil
	case 1:
		return errors.New("1 check failed")
	}
	return fmt.Errorf("%d checks failed", d.Failed)
}

func (r checkResult) print(out io.Writer) {
	fmt.Fprintf(out, "%-4s  %-17s  %s", r.Status, r.Check, r.Detail)
	if r.Hint != "" {
		fmt.Fprintf(out, " → %s", r.Hint)
	}
	fmt.Fprintln(out)
}

// start runs checks beside each other, and returns their results in order.
func start(ctx context.Context, checks []check) (results []chan checkResult) {
	for _, c := range checks {
		result := make(chan checkResult, 1)
		results = append(results, result)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, storeTimeout)
			defer cancel()
			// A check that heeds its context says more than that there was no answer, so it gets twice the time.
			r, err := probe.Do(context.WithoutCancel(ctx), 2*storeTimeout, func(context.Context) (checkResult, error) { return c.run(ctx), nil })
			if err != nil {
				r = fail("find out what hangs", "no answer within %v", 2*storeTimeout)
			}
			r.Check = c.name
			result <- r
		}()
	}
	return results
}

// doctor has what the checks share.
type doctor struct {
	*config.Config
	temporal client.Client
	// namespace describes the Namespace; it asks once.
	namespace func() (*workflowservice.DescribeNamespaceResponse, error)
}

// checks returns the checks for a process with the settings.
func checks(c *config.Config, temporal client.Client, role string) []check {
	d := doctor{Config: c, temporal: temporal}
	d.namespace = sync.OnceValues(d.describeNamespace)
	all := []check{
		{"temporal", d.checkTemporal},
		{"namespace", d.checkNamespace},
		{"search attributes", d.checkSearchAttributes},
		{"payload keys", d.checkPayloadKeys},
		{"workflow pollers", d.checkPollers(enums.TASK_QUEUE_TYPE_WORKFLOW)},
		{"activity pollers", d.checkPollers(enums.TASK_QUEUE_TYPE_ACTIVITY)},
		{"stuck runs", d.checkStuckRuns},
		{"client cert", d.checkClientCertificate},
		{"secret files", d.checkSecretFiles},
		{"data folder", d.checkData},
	}
	if c.DeploymentName != "" {
		all = append(all, check{"deployment", d.checkDeployment})
	}
	if role != "worker" {
		all = append(all, check{"certificate", d.checkCertificate},
			check{"inbox", d.checkInbox(d.Inbox())}, check{"dead letters", d.checkDeadLetters(d.Inbox(), "Temporal")})
		if d.Participants {
			all = append(all, check{"event inbox", d.checkInbox(d.EventInbox())}, check{"dead events", d.checkDeadLetters(d.EventInbox(), "the ledger")})
		}
	}
	if role == "webhook" && d.Participants {
		all = append(all, check{"ledger", d.checkWebhookLedger})
	}
	if role != "webhook" {
		all = append(all,
			check{"ledger", d.checkLedger},
			check{"recordings", d.checkRecordings},
			check{"archive", d.checkArchive},
			check{"billing", d.checkBilling},
			check{"reconciliation", d.checkReconciliation},
			check{"server API", d.checkServerAPI},
			check{"overdue", d.checkOverdue},
			check{"unknown rooms", d.checkUnknown},
			check{"left recordings", d.checkLeftRecordings},
			check{"refused callbacks", d.checkRefusedCallbacks})
	}
	return append(all, check{"running process", d.checkProcess})
}
