package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc/codes"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

const (
	// maxHangUps bounds how often a lost connection is made again, after reconnectDelay. A server that refuses our
	// certificate hangs up, and whether its reason arrives or the next write fails first is chance.
	maxHangUps, reconnectDelay = 8, 300 * time.Millisecond
	// maxRunsForKeys bounds the open runs that are asked for the keys they need.
	maxRunsForKeys = 1000
	// maxVersions is how many versions Temporal allows a Worker Deployment unless its setting
	// matching.maxVersionsInDeployment says otherwise; doctor warns from half of them.
	maxVersions = 100
)

func (d doctor) describeNamespace() (*workflowservice.DescribeNamespaceResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	for try := 1; ; try++ {
		answer, err := d.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: d.Temporal.Namespace})
		if err == nil || try == maxHangUps || !strings.Contains(err.Error(), "broken pipe") && !strings.Contains(err.Error(), "connection reset") {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(reconnectDelay):
		}
	}
}

// checkTemporal passes if Temporal answers, even if it has no such Namespace.
func (d doctor) checkTemporal(context.Context) checkResult {
	_, err := d.namespace()
	where, tls := d.Temporal.HostPort, "without TLS"
	if d.Temporal.ConnectionOptions.TLS != nil {
		tls = "with TLS"
	}
	switch {
	case err == nil, isNoNamespace(err):
		return pass("%s answers, %s", where, tls)
	case isDenied(err):
		return fail("TEMPORAL_API_KEY, or the client certificate in TEMPORAL_TLS_*, must be allowed to use namespace "+d.Temporal.Namespace,
			"%s refuses us, %s: %v", where, tls, err)
	}
	return fail(connectionHint(err), "%s can't be reached, %s: %v", where, tls, err)
}

// connectionHint says how to fix a connection that fails. The errors come through gRPC, which keeps only their text.
func connectionHint(err error) string {
	const (
		clientCertificate = "Temporal refuses our client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH must name one of an authority that it knows"
		serverName        = "TEMPORAL_TLS_SERVER_NAME must be a name in Temporal's certificate, unless TEMPORAL_ADDRESS has one"
	)
	for _, known := range []struct{ text, hint string }{
		{"certificate required", "Temporal wants a client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH"},
		{"bad certificate", clientCertificate},
		{"remote error: tls: unknown certificate authority", clientCertificate},
		{"signed by unknown authority", "TEMPORAL_TLS_SERVER_CA_CERT_PATH must name the certificate of the authority that signed Temporal's"},
		{"certificate is valid for", serverName},
		{"doesn't contain any IP SANs", serverName},
		{"has expired or is not yet valid", "renew Temporal's certificate, or set this machine's clock"},
		{"does not look like a TLS handshake", "Temporal doesn't speak TLS there: unset TEMPORAL_TLS_*; with TEMPORAL_API_KEY, set TEMPORAL_TLS=false"},
		{"error reading server preface", "Temporal may want TLS: TEMPORAL_TLS=true, and TEMPORAL_TLS_SERVER_CA_CERT_PATH for an authority that this machine does not know"},
	} {
		if strings.Contains(err.Error(), known.text) {
			return known.hint + "; see docs/temporal.md"
		}
	}
	return "is it running there? TEMPORAL_ADDRESS is its address, and TEMPORAL_TLS_* say how to connect"
}

func isNoNamespace(err error) bool { return errors.As(err, new(*serviceerror.NamespaceNotFound)) }

func isDenied(err error) bool {
	code := serviceerror.ToStatus(err).Code()
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}

// checkNamespace checks that the Namespace exists, and how long it keeps runs.
func (d doctor) checkNamespace(context.Context) checkResult {
	answer, err := d.namespace()
	name := d.Temporal.Namespace
	switch {
	case isNoNamespace(err):
		return fail("closeout setup creates it; TEMPORAL_NAMESPACE names another", "%s isn't there", name)
	case err != nil:
		return skip("needs Temporal")
	}
	retention := answer.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if retention < 24*time.Hour {
		return warn(fmt.Sprintf("temporal operator namespace update --namespace %s --retention 720h", name),
			"%s keeps closed runs for %v: a callback that comes later closes the session out again, and audits see no older runs", name, retention)
	}
	return pass("%s keeps closed runs for %v", name, retention)
}

func (d doctor) checkSearchAttributes(ctx context.Context) checkResult {
	if _, err := d.namespace(); err != nil {
		return skip("needs the namespace")
	}
	missing, err := service.MissingSearchAttributes(ctx, d.Temporal.Namespace, d.temporal)
	switch {
	case err != nil && isDenied(err):
		return warn("closeout setup creates missing ones, if it is allowed to", "we may not list them: %v", err)
	case err != nil:
		return fail("", "%v", err)
	case len(missing) > 0:
		return fail("closeout setup creates them", "missing: %s", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	var all []string
	for _, key := range workflows.SearchAttributes() {
		all = append(all, key.GetName()+" "+key.GetValueType().String())
	}
	return pass("%s", strings.Join(all, ", "))
}

// checkPayloadKeys checks that open runs can be decrypted.
func (d doctor) checkPayloadKeys(ctx context.Context) checkResult {
	ours := d.PayloadKeys.Names()
	what := "none, nothing is encrypted"
	if len(ours) > 0 {
		what = ours[0] + " encrypts"
	}
	if len(ours) > 1 {
		what += ", and " + strings.Join(ours[1:], ", ") + " decrypts"
	}
	if _, err := d.namespace(); err != nil {
		return skip(what + "; what runs need is unknown without the namespace")
	}
	answer, err := d.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: "ExecutionStatus = 'Running'", PageSize: maxRunsForKeys})
	if err != nil {
		return fail("", "%s; list open runs: %v", what, err)
	}
	needed := map[string]int{}
	for _, run := range answer.GetExecutions() {
		for _, name := range codec.KeysIn(run.GetMemo().GetFields()) {
			needed[name]++
		}
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		what += fmt.Sprintf("; open runs that need %s: %d", name, needed[name])
		if !slices.Contains(ours, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail("add "+strings.Join(missing, ", ")+" to CLOSEOUT_PAYLOAD_KEYS, after the first: without it those runs are stuck", "%s", what)
	}
	return pass("%s", what)
}

// checkPollers checks that a worker polls the Task Queue.
func (d doctor) checkPollers(kind enums.TaskQueueType) func(context.Context) checkResult {
	return func(ctx context.Context) checkResult {
		if _, err := d.namespace(); err != nil {
			return skip("needs the namespace")
		}
		q, err := service.DescribeQueue(ctx, d.Config, d.temporal, kind)
		if err != nil {
			return fail("", "%v", err)
		}
		found := fmt.Sprintf("task queue %s: %d workers, %d waiting tasks", d.TaskQueue, q.Workers, q.Tasks)
		switch {
		case q.Fault == "":
			return pass("%s", found)
		case q.Tasks > 0:
			return fail(q.Fix, "%s: %s", found, q.Fault)
		}
		return warn(q.Fix, "%s: %s", found, q.Fault)
	}
}

// maxStuck bounds how many stuck runs are counted.
const maxStuck = 1000

// checkStuckRuns checks that the workers can continue the runs of their Task Queue.
func (d doctor) checkStuckRuns(ctx context.Context) checkResult {
	if _, err := d.namespace(); err != nil {
		return skip("needs the namespace")
	}
	count, first := 0, ""
	for run, err := range service.Runs(ctx, d.temporal, service.StuckQuery(d.Config)) {
		switch {
		case isInvalid(err):
			return skip("this server does not report them")
		case err != nil:
			return fail("", "%v", err)
		case run.GetSearchAttributes().GetIndexedFields()[workflows.ReportedProblems] != nil:
			if count++; first == "" {
				first = run.GetExecution().GetWorkflowId()
			}
		}
		if count == maxStuck {
			break
		}
	}
	if count == 0 {
		return pass("none in task queue %s", d.TaskQueue)
	}
	why, err := d.lastFailure(ctx, first)
	if err != nil {
		why = fmt.Sprintf("its history cannot be read: %v", err)
	}
	hint := "deploy code that can take them, see docs/changing-workflows.md; closeout blocked list names all"
	if strings.Contains(why, "unable to find workflow type") {
		hint = "a worker of another program polls the task queue: give each program a CLOSEOUT_TASK_QUEUE of its own, or add the Workflow to Service.Workflows"
	}
	return fail(hint, "%d in task queue %s, the first is %s: %s", count, d.TaskQueue, first, why)
}

// lastFailure returns why the last Workflow Task of a run failed.
func (d doctor) lastFailure(ctx context.Context, id string) (string, error) {
	answer, err := d.temporal.WorkflowService().GetWorkflowExecutionHistoryReverse(ctx, &workflowservice.GetWorkflowExecutionHistoryReverseRequest{
		Namespace: d.Temporal.Namespace, Execution: &common.WorkflowExecution{WorkflowId: id}, MaximumPageSize: 10,
	})
	if err != nil {
		return "", err
	}
	for _, event := range answer.GetHistory().GetEvents() {
		if failed := event.GetWorkflowTaskFailedEventAttributes(); failed != nil {
			return cmp.Or(failed.GetFailure().GetMessage(), failed.GetCause().String()), nil
		}
	}
	return "its last events do not say why", nil
}

// checkDeployment checks that the Worker Deployment has room for further versions. A version
// stays while an open run, such as a blocked one, is pinned to it.
func (d doctor) checkDeployment(ctx context.Context) checkResult {
	if _, err := d.namespace(); err != nil {
		return skip("needs the namespace")
	}
	answer, err := d.temporal.WorkerDeploymentClient().GetHandle(d.DeploymentName).Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	switch {
	case errors.As(err, new(*serviceerror.NotFound)):
		return warn("start a worker with TEMPORAL_DEPLOYMENT_NAME "+d.DeploymentName, "%s isn't there: no worker has registered it", d.DeploymentName)
	case err != nil:
		return fail("", "describe Worker Deployment %s: %v", d.DeploymentName, err)
	}
	draining := 0
	for _, v := range answer.Info.VersionSummaries {
		if v.DrainageStatus == client.WorkerDeploymentVersionDrainageStatusDraining {
			draining++
		}
	}
	return versionsResult(d.DeploymentName, len(answer.Info.VersionSummaries), draining)
}

// versionsResult judges a Worker Deployment by its number of versions. Draining ones aren't
// current any more and have runs pinned to them.
func versionsResult(deployment string, versions, draining int) checkResult {
	found := fmt.Sprintf("%s has %d versions of at most %d, runs of former builds hold %d", deployment, versions, maxVersions, draining)
	if 2*versions < maxVersions {
		return pass("%s", found)
	}
	return warn("retry or skip the blocked runs of the oldest versions, or move them: closeout blocked list, docs/changing-workflows.md", "%s", found)
}
