package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/urfave/cli/v3"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"gocloud.dev/blob"
	"google.golang.org/grpc/codes"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Doctor is the command that looks for what keeps Closeout from its work.
func Doctor() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check the settings and all that they name, and say how to mend what is wrong",
		Description: "Run it with the settings, and as the user, of the process that it is about. It makes nothing: what it\n" +
			"writes to the data folder and the archive to find out whether it can, it removes. It fails if a check\n" +
			"does; a warning is for a person to judge.\n\n" +
			"    closeout doctor\n" +
			"    closeout doctor --for worker",
		Flags: append(Flags(),
			&cli.StringFlag{Name: "for", Value: "serve", Usage: "what runs with these settings: serve, webhook or worker"},
			&cli.BoolFlag{Name: "json", Usage: "write it as JSON"}),
		Action: examine,
	}
}

// checkPatience is how long a check may take.
const checkPatience = 5 * time.Second

// check finds out about one thing.
type check struct {
	name string
	find func(context.Context) finding
}

// The marks of findings.
const (
	markOK   = "ok"
	markWarn = "warn"
	markFail = "FAIL"
	markSkip = "skip"
)

// finding is what came of a check.
type finding struct {
	Check string `json:"check"`
	Mark  string `json:"mark"`
	Found string `json:"found"`
	// Mend is what would do, if something would.
	Mend string `json:"mend,omitempty"`
}

func good(format string, args ...any) finding {
	return finding{Mark: markOK, Found: fmt.Sprintf(format, args...)}
}

func skip(why string) finding { return finding{Mark: markSkip, Found: why} }

func warn(mend, format string, args ...any) finding {
	return finding{Mark: markWarn, Found: fmt.Sprintf(format, args...), Mend: mend}
}

func fail(mend, format string, args ...any) finding {
	return finding{Mark: markFail, Found: fmt.Sprintf(format, args...), Mend: mend}
}

func examine(ctx context.Context, cmd *cli.Command) error {
	role := cmd.String("for")
	if !slices.Contains([]string{"serve", "webhook", "worker"}, role) {
		return fmt.Errorf("--for: found %q, want serve, webhook or worker", role)
	}
	var findings []finding
	tell := func(f finding) {
		f.Found, f.Mend = inALine(f.Found), inALine(f.Mend)
		findings = append(findings, f)
		if !cmd.Bool("json") {
			f.write(cmd.Root().Writer)
		}
	}
	c, _, err := Load(cmd, role != "worker")
	if err != nil {
		for fault := range strings.SplitSeq(errors.Unwrap(err).Error(), "\n") {
			tell(finding{Check: "settings", Mark: markFail, Found: fault})
		}
		tell(finding{Check: "all else", Mark: markSkip, Found: "can be checked when the settings are right"})
	} else {
		tell(finding{Check: "settings", Mark: markOK, Found: "complete, for " + role})
		// What the SDK would log is what the findings say.
		temporal, err := service.Dial(c, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return err
		}
		defer temporal.Close()
		for f := range sideBySide(ctx, checks(c, temporal, role)) {
			tell(f)
		}
	}
	return conclude(cmd, findings)
}

// write writes it as a line for people.
func (f finding) write(out io.Writer) {
	fmt.Fprintf(out, "%-4s  %-17s  %s", f.Mark, f.Check, f.Found)
	if f.Mend != "" {
		fmt.Fprintf(out, " → %s", f.Mend)
	}
	fmt.Fprintln(out)
}

// conclude sums the findings up. The error says how many checks failed.
func conclude(cmd *cli.Command, findings []finding) error {
	count := map[string]int{}
	for _, f := range findings {
		count[f.Mark]++
	}
	out := cmd.Root().Writer
	if cmd.Bool("json") {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]any{"checks": findings, "failed": count[markFail], "warned": count[markWarn]}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "\n%d ok, %d warned, %d failed, %d skipped\n", count[markOK], count[markWarn], count[markFail], count[markSkip])
	}
	switch n := count[markFail]; n {
	case 0:
		return nil
	case 1:
		return errors.New("1 check failed")
	default:
		return fmt.Errorf("%d checks failed", n)
	}
}

// sideBySide does all checks at once, and gives their findings in order.
func sideBySide(ctx context.Context, checks []check) func(yield func(finding) bool) {
	found := make([]chan finding, len(checks))
	for n, c := range checks {
		found[n] = make(chan finding, 1)
		go func() { found[n] <- c.do(ctx) }()
	}
	return func(yield func(finding) bool) {
		for _, f := range found {
			if !yield(<-f) {
				return
			}
		}
	}
}

// do gives up on a check that doesn't heed its deadline, such as one of a file
// system that hangs.
func (c check) do(ctx context.Context) (f finding) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	// What heeds its context says more than that there was no answer.
	f, err := probe.Do(context.WithoutCancel(ctx), 2*checkPatience, func(context.Context) (finding, error) { return c.find(ctx), nil })
	if err != nil {
		f = fail("find out what hangs", "no answer within %v", 2*checkPatience)
	}
	f.Check = c.name
	return f
}

// checks are those for what runs with the settings, in the order in which they
// are read.
func checks(c *config.Config, temporal client.Client, role string) []check {
	d := doctor{c, temporal, namespaceOf(c, temporal)}
	all := []check{
		{"temporal", d.reached}, {"namespace", d.kept}, {"search attributes", d.attributes}, {"payload keys", d.keys},
		{"workflow pollers", d.polled(enums.TASK_QUEUE_TYPE_WORKFLOW)}, {"activity pollers", d.polled(enums.TASK_QUEUE_TYPE_ACTIVITY)},
		{"client cert", d.clientCertificate}, {"secret files", d.secrets}, {"data folder", d.data},
	}
	if role != "worker" {
		all = append(all, check{"certificate", d.certificate}, check{"inbox", d.inbox(d.Inbox())}, check{"set aside", d.setAside(d.Inbox(), "Temporal")})
		if d.Usage {
			all = append(all, check{"usage inbox", d.inbox(d.UsageInbox())}, check{"usage set aside", d.setAside(d.UsageInbox(), "the ledger")})
		}
	}
	if role == "webhook" && d.Usage {
		all = append(all, check{"ledger", d.usageLedger})
	}
	if role != "webhook" {
		all = append(all, check{"ledger", d.ledger}, check{"recordings", d.recordings}, check{"archive", d.archive}, check{"billing", d.billing},
			check{"reconciliation", d.reconciliation}, check{"server API", d.serverAPI}, check{"overdue", d.overdue}, check{"left recordings", d.leftRecordings},
			check{"refused callbacks", d.refusedCallbacks})
	}
	return append(all, check{"running process", d.process})
}

// doctor does the checks.
type doctor struct {
	*config.Config
	temporal client.Client
	// namespace is what Temporal says of ours; asked once, for all that need it.
	namespace func() (*workflowservice.DescribeNamespaceResponse, error)
}

func namespaceOf(c *config.Config, temporal client.Client) func() (*workflowservice.DescribeNamespaceResponse, error) {
	return sync.OnceValues(func() (*workflowservice.DescribeNamespaceResponse, error) {
		ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
		defer cancel()
		return describe(ctx, temporal, c.Temporal.Namespace)
	})
}

// hangUps is how often a connection may be lost before that is the answer. A server
// that doesn't like our certificate hangs up, and whether its reason arrives or the
// next write fails first is chance. It has to be connected to anew, for which the
// client takes its time.
const hangUps, reconnects = 8, 300 * time.Millisecond

func describe(ctx context.Context, temporal client.Client, namespace string) (*workflowservice.DescribeNamespaceResponse, error) {
	return backoff.Retry(ctx, func() (*workflowservice.DescribeNamespaceResponse, error) {
		answer, err := temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if err != nil && !strings.Contains(err.Error(), "broken pipe") && !strings.Contains(err.Error(), "connection reset") {
			err = backoff.Permanent(err)
		}
		return answer, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(reconnects)), backoff.WithMaxTries(hangUps))
}

// reached finds out whether Temporal answers, be it that the namespace isn't there.
func (d doctor) reached(context.Context) finding {
	_, err := d.namespace()
	where, tls := d.Temporal.HostPort, "without TLS"
	if d.Temporal.ConnectionOptions.TLS != nil {
		tls = "with TLS"
	}
	switch {
	case err == nil, isMissing(err):
		return good("%s answers, %s", where, tls)
	case isDenied(err):
		return fail("TEMPORAL_API_KEY, or the client certificate in TEMPORAL_TLS_*, has to be one that may use namespace "+d.Temporal.Namespace,
			"%s refuses us, %s: %v", where, tls, err)
	}
	return fail(mendConnection(err), "%s can't be reached, %s: %v", where, tls, err)
}

// mendConnection says what would do about a connection that fails. The errors come
// by way of gRPC, which leaves their text alone.
func mendConnection(err error) string {
	for _, known := range []struct{ says, mend string }{
		{"certificate required", "Temporal wants a client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH"},
		{"bad certificate", "Temporal doesn't take our client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH has to be one of an authority that it knows"},
		{"remote error: tls: unknown certificate authority", "Temporal doesn't take our client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH has to be one of an authority that it knows"},
		{"signed by unknown authority", "TEMPORAL_TLS_SERVER_CA_CERT_PATH has to name the certificate of the authority that has signed Temporal's"},
		{"certificate is valid for", "TEMPORAL_TLS_SERVER_NAME has to be a name in Temporal's certificate, unless TEMPORAL_ADDRESS has one"},
		{"doesn't contain any IP SANs", "TEMPORAL_TLS_SERVER_NAME has to be a name in Temporal's certificate, unless TEMPORAL_ADDRESS has one"},
		{"has expired or is not yet valid", "renew Temporal's certificate, or set this machine's clock"},
		{"does not look like a TLS handshake", "Temporal doesn't speak TLS there: unset TEMPORAL_TLS_*; with TEMPORAL_API_KEY, set TEMPORAL_TLS=false"},
		{"error reading server preface", "Temporal may want TLS: TEMPORAL_TLS=true, and TEMPORAL_TLS_SERVER_CA_CERT_PATH if its authority isn't one that this machine knows"},
	} {
		if strings.Contains(err.Error(), known.says) {
			return known.mend + "; see docs/temporal.md"
		}
	}
	return "is it running there? TEMPORAL_ADDRESS says where it is, and TEMPORAL_TLS_* how it is talked to"
}

func isMissing(err error) bool {
	missing := new(serviceerror.NamespaceNotFound)
	return errors.As(err, &missing)
}

func isDenied(err error) bool {
	code := serviceerror.ToStatus(err).Code()
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}

// kept finds out whether the namespace is there, and how long it keeps runs.
func (d doctor) kept(context.Context) finding {
	answer, err := d.namespace()
	name := d.Temporal.Namespace
	switch {
	case isMissing(err):
		return fail("closeout setup makes it; TEMPORAL_NAMESPACE names another", "%s isn't there", name)
	case err != nil:
		return skip("needs Temporal")
	}
	retention := answer.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if retention < 24*time.Hour {
		return warn(fmt.Sprintf("temporal operator namespace update --namespace %s --retention 720h", name),
			"%s keeps closed runs for %v: a callback that comes later is closed out a second time, and audits see no more than that", name, retention)
	}
	return good("%s keeps closed runs for %v", name, retention)
}

// attributes finds out whether the search attributes are there.
func (d doctor) attributes(ctx context.Context) finding {
	if _, err := d.namespace(); err != nil {
		return skip("needs the namespace")
	}
	missing, err := service.MissingSearchAttributes(ctx, d.Temporal.Namespace, d.temporal)
	switch {
	case err != nil && isDenied(err):
		return warn("closeout setup makes those that are missing, if it may", "we may not list them: %v", err)
	case err != nil:
		return fail("", "%v", err)
	case len(missing) > 0:
		return fail("closeout setup makes them", "missing: %s", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	var there []string
	for _, key := range workflows.SearchAttributes() {
		there = append(there, key.GetName()+" "+key.GetValueType().String())
	}
	return good("%s", strings.Join(there, ", "))
}

// keysLook is how many runs under way are asked for the keys that they need.
const keysLook = 1000

// keys finds out whether runs under way can be decrypted.
func (d doctor) keys(ctx context.Context) finding {
	ours := d.PayloadKeys.Names()
	what := "none, nothing is encrypted"
	if len(ours) > 0 {
		what = ours[0] + " encrypts"
	}
	if len(ours) > 1 {
		what += ", and " + strings.Join(ours[1:], ", ") + " decrypts"
	}
	if _, err := d.namespace(); err != nil {
		return skip(what + "; which runs need needs the namespace")
	}
	answer, err := d.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: "ExecutionStatus = 'Running'", PageSize: keysLook})
	if err != nil {
		return fail("", "%s; ask which runs need: %v", what, err)
	}
	needed := map[string]int{}
	for _, run := range answer.GetExecutions() {
		for _, name := range codec.KeysIn(run.GetMemo().GetFields()) {
			needed[name]++
		}
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		what += fmt.Sprintf("; runs under way that need %s: %d", name, needed[name])
		if !slices.Contains(ours, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail("add "+strings.Join(missing, ", ")+" to CLOSEOUT_PAYLOAD_KEYS, behind the first: those runs are stuck without", "%s", what)
	}
	return good("%s", what)
}

// certificate finds out whether the listener for callbacks can speak TLS.
func (d doctor) certificate(context.Context) finding {
	if d.TLSCert == "" {
		return good("none, callbacks are taken without TLS; have something in front terminate it")
	}
	files := service.Certificates(d.Config)[0]
	f, pair := d.expiry(files, "ZEGO may refuse to connect")
	if f.Mark == markFail {
		return f
	}
	if len(pair.Leaf.DNSNames)+len(pair.Leaf.IPAddresses) == 0 {
		return fail("have one made for the name in ZEGO's callback address", "%s is for no name", d.TLSCert)
	}
	if err := verifyChain(pair, nil); err != nil && f.Mark == markOK {
		return warn("append the intermediate certificates of its authority to the file: ZEGO refuses a certificate whose chain doesn't lead to a public authority", "%s; %v", f.Found, err)
	}
	return f
}

// verifyChain verifies a certificate as a sender does that has these roots, or this
// machine's if they are nil, and is shown what is in the file.
func verifyChain(pair *tls.Certificate, roots *x509.CertPool) error {
	shown := x509.NewCertPool()
	last := pair.Leaf
	for _, der := range pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			shown.AddCert(cert)
			last = cert
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Intermediates: shown, Roots: roots}); err != nil {
		return fmt.Errorf("the chain of %d certificates that is shown ends at one signed by %q: %w", len(pair.Certificate), last.Issuer, err)
	}
	return nil
}

// clientCertificate finds out whether Temporal takes our certificate for much longer.
func (d doctor) clientCertificate(context.Context) finding {
	for _, files := range service.Certificates(d.Config) {
		if files.Cert == d.TemporalCert {
			f, _ := d.expiry(files, "Temporal refuses it then")
			return f
		}
	}
	return good("none from a file")
}

// expiry finds out whether a certificate can be used, and how long.
func (d doctor) expiry(files service.CertificateFiles, otherwise string) (finding, *tls.Certificate) {
	pair, err := files.Load()
	if err != nil {
		return fail("have both files be a certificate and its key, in PEM, that this user may read", "%v", err), nil
	}
	names := slices.Clone(pair.Leaf.DNSNames)
	for _, ip := range pair.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	what := fmt.Sprintf("%s is for %s, until %s", files.Cert, cmp.Or(strings.Join(names, ", "), pair.Leaf.Subject.String()), moment(pair.Leaf.NotAfter))
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left < 0:
		return fail("renew it: "+otherwise, "%s: it has expired", what), pair
	case time.Now().Before(pair.Leaf.NotBefore):
		return fail("set this machine's clock, or wait", "%s: it isn't valid before %s", what, moment(pair.Leaf.NotBefore)), pair
	case left < service.RenewWithin:
		return warn("renew it: "+otherwise, "%s", what), pair
	}
	return good("%s", what), pair
}

// secrets finds out whether others can read the files that hold secrets.
func (d doctor) secrets(context.Context) finding {
	var open []string
	for _, file := range d.SecretFiles {
		if info, err := os.Stat(file.Path); err == nil && info.Mode().Perm()&0o004 != 0 {
			open = append(open, fmt.Sprintf("%s: %s is %#o", file.Setting, file.Path, info.Mode().Perm()))
		}
	}
	if len(open) > 0 {
		return warn("chmod o= on each; in Kubernetes by the volume's defaultMode", "every user of this machine can read %s", strings.Join(open, ", "))
	}
	return good("%d files, which others can't read", len(d.SecretFiles))
}

// pollersLast is for how long a worker is one that polls, as a poll takes a minute
// at most. Temporal lists it for longer.
const pollersLast = 2 * time.Minute

// polled finds out whether a worker asks for tasks.
func (d doctor) polled(kind enums.TaskQueueType) func(context.Context) finding {
	return func(ctx context.Context) finding {
		if _, err := d.namespace(); err != nil {
			return skip("needs the namespace")
		}
		answer, err := d.temporal.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
			Namespace: d.Temporal.Namespace, TaskQueue: &taskqueue.TaskQueue{Name: d.TaskQueue}, TaskQueueType: kind, ReportStats: true,
		})
		if err != nil {
			return fail("", "ask who polls task queue %s: %v", d.TaskQueue, err)
		}
		workers := map[string]bool{}
		for _, p := range answer.GetPollers() {
			if time.Since(p.GetLastAccessTime().AsTime()) < pollersLast {
				workers[p.GetIdentity()] = true
			}
		}
		start := fmt.Sprintf("start a worker, or see that it has CLOSEOUT_TASK_QUEUE %s, TEMPORAL_NAMESPACE %s and the right TEMPORAL_ADDRESS", d.TaskQueue, d.Temporal.Namespace)
		switch tasks := answer.GetStats().GetApproximateBacklogCount(); {
		case len(workers) > 0:
			return good("task queue %s: workers %d, tasks that wait %d", d.TaskQueue, len(workers), tasks)
		case tasks > 0:
			return fail(start, "task queue %s: no worker, tasks that wait %d", d.TaskQueue, tasks)
		default:
			return warn(start, "task queue %s: no worker", d.TaskQueue)
		}
	}
}

// spaceWanted is how many bytes should be free: what four million callbacks need.
const spaceWanted = 1 << 30

// data finds out whether the data folder can be written, and how much fits.
func (d doctor) data(context.Context) finding {
	folder, there := existing(d.Data)
	f, err := os.CreateTemp(folder, ".closeout-doctor-*")
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return fail("make room, give it to this user, or choose another by CLOSEOUT_DATA", "%s can't be written to by user %d: %v", folder, os.Getuid(), err)
	}
	what := d.Data + " can be written"
	if !there {
		what = d.Data + " isn't there yet and can be made"
	}
	free, known := freeSpace(folder)
	switch {
	case !known:
		return good("%s", what)
	case free < spaceWanted:
		return warn("make room: a million queued callbacks need 240 MB, and what is embedded needs more", "%s, %d MB are free", what, free>>20)
	}
	return good("%s, %d GB are free", what, free>>30)
}

// existing is the folder, or the nearest above it that is there.
func existing(folder string) (nearest string, there bool) {
	for nearest = folder; ; nearest = filepath.Dir(nearest) {
		if _, err := os.Stat(nearest); !errors.Is(err, fs.ErrNotExist) || nearest == filepath.Dir(nearest) {
			return nearest, nearest == folder
		}
	}
}

// inbox finds out whether the inbox in a folder takes callbacks, or is that of a
// process that does.
func (d doctor) inbox(folder string) func(context.Context) finding {
	return func(ctx context.Context) finding { return d.inboxIn(ctx, folder) }
}

func (d doctor) inboxIn(ctx context.Context, folder string) finding {
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return good("none yet, the webhook makes it in %s", d.Data)
	}
	mend := "see that the disk has room and the files in it belong to this user"
	box, err := inbox.Open(ctx, folder, slog.New(slog.DiscardHandler))
	if errors.Is(err, inbox.ErrLocked) {
		return good("%s is in use by a running process", folder)
	}
	if err != nil {
		return fail(mend, "%v", err)
	}
	defer box.Close()
	if err := box.Probe(ctx); err != nil {
		return fail(mend, "%s: %v", folder, err)
	}
	return good("%s can be written, no process uses it", folder)
}

// setAside finds out whether callbacks wait for a person, or for too long.
func (d doctor) setAside(folder, what string) func(context.Context) finding {
	return func(ctx context.Context) finding { return d.setAsideIn(ctx, folder, what) }
}

// setAsideIn is told what the callbacks wait for.
func (d doctor) setAsideIn(ctx context.Context, folder, what string) finding {
	store, err := inbox.Attach(ctx, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return good("nothing, there is no inbox yet")
	}
	if err != nil {
		return fail("", "%v", err)
	}
	defer store.Close()
	stats, err := store.Stats(ctx)
	waiting := fmt.Sprintf("%d callbacks wait for %s", stats.Waiting, what)
	if stats.Waiting > 0 {
		waiting += ", the oldest since " + moment(stats.Oldest)
	}
	switch {
	case err != nil:
		return fail("", "%v", err)
	case stats.SetAside > 0:
		return warn("closeout inbox list --set-aside tells why; mend it and closeout inbox retry --all", "%d callbacks are set aside, %s", stats.SetAside, waiting)
	case stats.Waiting > 0 && time.Since(stats.Oldest) > time.Minute:
		return warn("see that a webhook runs on this data folder, and reaches "+what, "none, but %s", waiting)
	}
	return good("none, %s", waiting)
}

// usageLedger is [doctor.ledger] for a webhook, which may have one of its own by
// mistake.
func (d doctor) usageLedger(ctx context.Context) finding {
	if f := d.ledger(ctx); f.Mark == markFail || !d.LedgerInData() {
		return f
	}
	return warn("set CLOSEOUT_DATABASE_URL as for the worker, unless that has the same data folder; CLOSEOUT_USAGE=off stores no usage",
		"%s is this data folder's own: a worker with another ledger bills without the usage that is stored here", config.Where(d.DatabaseURL))
}

// ledger finds out whether the ledger has its tables and can be written to.
func (d doctor) ledger(ctx context.Context) finding {
	where := config.Where(d.DatabaseURL)
	books, err := ledger.Open(d.DatabaseURL)
	if err != nil {
		return fail("", "CLOSEOUT_DATABASE_URL: %v", err)
	}
	defer books.Close()
	switch err := books.Probe(ctx); {
	case errors.Is(err, ledger.ErrNotSetUp):
		return fail("closeout setup makes them", "%s: %v", where, err)
	case err != nil:
		mend, _ := ledger.Advice(err)
		return fail(cmp.Or(mend, "is the database there, and may this user use it? CLOSEOUT_DATABASE_URL says where it is"), "%s: %v", where, err)
	}
	return good("%s has its tables, and a bill can be made", where)
}

// recordings reports what the bucket of the recordings shows.
func (d doctor) recordings(ctx context.Context) finding {
	bucket, found := d.bucket(ctx, "CLOSEOUT_RECORDINGS_URL", d.RecordingsURL)
	if bucket != nil {
		_ = bucket.Close()
	}
	return found
}

// archive reports what the archive shows, and whether it keeps what a step writes.
func (d doctor) archive(ctx context.Context) finding {
	bucket, found := d.bucket(ctx, "CLOSEOUT_ARCHIVE_URL", d.ArchiveURL)
	if bucket == nil {
		return found
	}
	defer bucket.Close()
	recordings, err := archive.OpenExisting(ctx, d.RecordingsURL)
	if err != nil {
		recordings = nil // the check of the recordings reports it
	} else {
		defer recordings.Close()
	}
	switch err := archive.Probe(ctx, recordings, bucket, d.ArchiveOptions()); {
	case errors.Is(err, archive.ErrLeft):
		return warn("delete it yourself; Closeout has no need to", "%s, written and read back, but %v", found.Found, err)
	case err != nil:
		return fail(archive.Advice("CLOSEOUT_ARCHIVE_URL", err), "%s, but a probe failed: %v", found.Found, err)
	}
	return good("%s; a probe was written, read back and removed", found.Found)
}

// bucket lists a bucket, and reports what it saw. It returns nil where there is nothing
// more to find out.
func (d doctor) bucket(ctx context.Context, setting, bucketURL string) (*blob.Bucket, finding) {
	where := config.Where(bucketURL)
	fault := func(what string, err error) finding {
		return fail(archive.Advice(setting, err), "%s: %s: %v", where, what, err)
	}
	bucket, err := archive.OpenExisting(ctx, bucketURL)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(bucketURL, "create_dir=true") {
		return nil, good("%s isn't there yet, the worker makes it", where)
	}
	if err != nil {
		return nil, fault("open it", err)
	}
	const enough = 1000 // of a bucket that may hold millions
	apps, folders, files := 0, 0, 0
	for object, err := range archive.List(ctx, bucket, "", true) {
		if err != nil {
			_ = bucket.Close()
			return nil, fault("list it", err)
		}
		_, notApp := strconv.ParseUint(strings.TrimSuffix(object.Key, "/"), 10, 32)
		switch {
		case object.IsDir && notApp == nil:
			apps++
		case object.IsDir:
			folders++
		default:
			files++
		}
		if apps+folders+files == enough {
			break
		}
	}
	if apps+folders+files == 0 {
		return bucket, good("%s can be listed, and is empty", where)
	}
	return bucket, good("%s can be listed, and shows %d folders of apps, %d other folders and %d files", where, apps, folders, files)
}

// billing finds out whether the billing API's name leads somewhere. Only a post
// would tell more.
func (d doctor) billing(ctx context.Context) finding {
	if d.BillingURL == "" {
		return good("no API, bills are in the ledger alone")
	}
	u, err := url.Parse(d.BillingURL)
	if err != nil || u.Hostname() == "" {
		return fail("CLOSEOUT_BILLING_URL wants one, as in https://billing.example.com/v1/bills", "the URL has no host")
	}
	host, via := u.Hostname(), ""
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		host, via = proxy.Hostname(), ", by way of the proxy "+proxy.Hostname()
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return fail("see that the host is right, in CLOSEOUT_BILLING_URL or HTTPS_PROXY, and that this machine's DNS knows it", "%s%s: %v", config.Where(d.BillingURL), via, err)
	}
	return good("%s%s: found at %s; nothing was posted", config.Where(d.BillingURL), via, strings.Join(addresses, ", "))
}

// reconciliation finds out whether workers look for what is due.
func (d doctor) reconciliation(ctx context.Context) finding {
	if d.ReconcileEvery == 0 {
		return good("off, as CLOSEOUT_RECONCILE_INTERVAL is 0: no session without a room_close is closed out, no bill adjusted, and no late recording added")
	}
	books, err := ledger.Open(d.DatabaseURL)
	if err != nil {
		return fail("", "%v", err)
	}
	defer books.Close()
	if books.Check(ctx) != nil {
		return skip("needs the ledger")
	}
	switch last, err := books.LastLook(ctx); {
	case err != nil:
		return fail("", "%v", err)
	case last.Number == 0:
		return warn("start a worker", "no worker has looked for what is due yet")
	case time.Since(last.At) > 3*d.ReconcileEvery+time.Minute:
		return warn("start a worker, or see in its log why it doesn't look", "no worker has looked for what is due since %s", moment(last.At))
	default:
		return good("a worker has looked for what is due at %s", moment(last.At))
	}
}

// serverAPI finds out whether ZEGO answers for each app that has a server secret, by
// asking about a room that nobody has.
func (d doctor) serverAPI(ctx context.Context) finding {
	if len(d.ServerSecrets) == 0 {
		return good("no app has a server secret: sessions without a room_close are only reported; CLOSEOUT_SERVER_SECRETS lets them be closed out")
	}
	api, err := zego.NewClient(d.ServerAPI, d.ServerSecrets)
	if err != nil {
		return fail("", "%v", err)
	}
	for _, app := range slices.Sorted(maps.Keys(d.ServerSecrets)) {
		_, err := api.DescribeUserNum(ctx, app, []string{"closeout-doctor"})
		if refused := new(zego.APIError); errors.As(err, &refused) && refused.Unauthorized() {
			return fail("CLOSEOUT_SERVER_SECRETS wants the app's ServerSecret, not its CallbackSecret; and this machine's clock has to be right", "%v", err)
		} else if err != nil {
			return fail("see that this machine reaches it; CLOSEOUT_SERVER_API_URL says where it is", "%s: %v", config.Where(d.ServerAPI), err)
		}
	}
	return good("%s answers for %d apps with a server secret", config.Where(d.ServerAPI), len(d.ServerSecrets))
}

// withLedger asks the ledger.
func (d doctor) withLedger(ctx context.Context, ask func(*ledger.Ledger) finding) finding {
	books, err := ledger.Open(d.DatabaseURL)
	if err != nil {
		return skip("needs the ledger")
	}
	defer books.Close()
	if books.Check(ctx) != nil {
		return skip("needs the ledger and its tables")
	}
	return ask(books)
}

// refusedCallbacks finds out whether ZEGO sends what can't be read.
func (d doctor) refusedCallbacks(ctx context.Context) finding {
	if !d.Usage {
		return good("not stored, as CLOSEOUT_USAGE is off; closeout_callback_fields_total counts them, and the webhook's log names them")
	}
	return d.withLedger(ctx, func(books *ledger.Ledger) finding {
		const days, most = 7, 100
		all, err := books.UnreadableSince(ctx, time.Now().Add(-days*24*time.Hour), most)
		switch {
		case err != nil:
			return fail("", "%v", err)
		case len(all) == 0:
			return good("none that ZEGO signed in the last %d days", days)
		}
		u := all[0]
		return warn("what they told is lost; report the field, and see what became of the room's sessions",
			"%d kinds of genuine callbacks were refused in the last %d days, the last at %s: %s of room %q: %s: %s", len(all), days, moment(u.Last), u.Event, u.RoomID, u.Field, u.Problem)
	})
}

// leftRecordings finds out whether there are recordings that nobody archives.
func (d doctor) leftRecordings(ctx context.Context) finding {
	return d.withLedger(ctx, func(books *ledger.Ledger) finding {
		const most = 1000
		left, err := books.LeftRecordings(ctx, time.Now().Add(-time.Hour), most)
		switch {
		case err != nil:
			return fail("", "%v", err)
		case len(left) == 0:
			return good("callbacks told of none that wasn't archived")
		}
		count := fmt.Sprintf("%d", len(left))
		if len(left) == most {
			count += " or more"
		}
		if d.Recordings.Expected == "none" {
			return warn("CLOSEOUT_RECORDINGS=callback has runs wait for them; closeout recording list names them",
				"%s recording tasks of which callbacks told weren't archived, and CLOSEOUT_RECORDINGS is none: no run looks for them", count)
		}
		return warn("closeout recording list names them; say whose they are by closeout recording assign",
			"%s recording tasks weren't archived, an hour after the last callback told of them", count)
	})
}

// overdue finds out whether sessions lack their room_close.
func (d doctor) overdue(ctx context.Context) finding {
	return d.withLedger(ctx, func(books *ledger.Ledger) finding {
		o, err := books.CountOverdue(ctx, time.Now().Add(-d.OverdueAfter))
		switch {
		case err != nil:
			return fail("", "%v", err)
		case o.Left > 0:
			return warn("see the runs of "+service.ReconcileID(d.Config)+" in the Web UI, unless they are closed out in some minutes; it needs CLOSEOUT_SERVER_SECRETS",
				"%d sessions that everybody has left have no room_close, %d others are silent, the oldest since %s", o.Left, o.Silent, moment(o.Oldest))
		case o.Silent > 0:
			return good("%d sessions are silent, the oldest since %s; somebody may be in them", o.Silent, moment(o.Oldest))
		}
		return good("no session")
	})
}

// process asks the process that runs with these settings.
func (d doctor) process(ctx context.Context) finding {
	ready, state, err := askReady(ctx, d.Config)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fail("look into its log, and at /debug/pprof/goroutine there", "at %s: no answer: %v", d.AdminListen, err)
	case err != nil:
		return warn("start it, or see that it has the same CLOSEOUT_ADMIN_LISTEN", "none answers at %s: %v", d.AdminListen, err)
	case !ready:
		return fail("what it says is checked above; its log says more", "at %s: %s", d.AdminListen, state)
	case !strings.HasPrefix(state, "ok"):
		return warn("what it says is checked above; its log says more", "at %s: %s", d.AdminListen, state)
	}
	return good("at %s: %s", d.AdminListen, state)
}
