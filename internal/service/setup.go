package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/workflows"
)

// Setup makes what Closeout needs and is not there yet: the namespace, its
// search attributes, the ledger's tables and, if the settings say so, the buckets. Each is made beside the others, so that one which can't be made keeps
// nothing else from being. It waits until ctx ends for what doesn't answer, returns
// all that failed, and may be run any number of times.
func Setup(ctx context.Context, c *config.Config, log *slog.Logger) error {
	temporal, err := Dial(c, log, nil)
	if err != nil {
		return err
	}
	defer temporal.Close()
	parts := []func() error{
		func() error { return setUpTemporal(ctx, c, temporal, log) },
		func() error { return setUpLedger(ctx, c, log) },
	}
	if c.MakeBuckets {
		parts = append(parts,
			func() error { return setUpBucket(ctx, "CLOSEOUT_RECORDINGS_URL", c.RecordingsURL, log) },
			func() error { return setUpBucket(ctx, "CLOSEOUT_ARCHIVE_URL", c.ArchiveURL, log) })
	}
	faults := make([]error, len(parts))
	var group sync.WaitGroup
	for n, part := range parts {
		group.Go(func() { faults[n] = part() })
	}
	group.Wait()
	return errors.Join(faults...)
}

func setUpLedger(ctx context.Context, c *config.Config, log *slog.Logger) error {
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	defer books.Close()
	if err := retry(ctx, log, "set up the ledger", func() error { return migrate(ctx, books) }); err != nil {
		return err
	}
	log.Info("ledger set up")
	return nil
}

func setUpBucket(ctx context.Context, setting, url string, log *slog.Logger) error {
	made := false
	err := retry(ctx, log, "make the bucket of "+setting, func() (err error) { made, err = makeBucket(ctx, setting, url); return err })
	if err != nil {
		return err
	}
	log.Info("bucket found", "bucket", config.Where(url), "made", made)
	return nil
}

// migrate creates the ledger's tables. An error for which a retry is useless is permanent and
// includes advice.
func migrate(ctx context.Context, books *ledger.Ledger) error {
	err := books.Migrate(ctx)
	advice, final := ledger.Advice(err)
	if advice != "" {
		err = fmt.Errorf("%w; %s", err, advice)
	}
	if final {
		err = permanent(err)
	}
	return err
}

// namespaceDelay is how long a new Namespace may be unknown to Temporal's frontends.
const namespaceDelay = 20 * time.Second

func setUpTemporal(ctx context.Context, c *config.Config, temporal client.Client, log *slog.Logger) error {
	namespace := c.Temporal.Namespace
	err := retry(ctx, log, "set up the namespace", func() error {
		_, err := temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if missing := new(serviceerror.NamespaceNotFound); !errors.As(err, &missing) {
			return lasting(err)
		}
		_, err = temporal.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace:                        namespace,
			Description:                      "Rooms closed out by Closeout",
			WorkflowExecutionRetentionPeriod: durationpb.New(c.Retention),
		})
		if exists := new(serviceerror.NamespaceAlreadyExists); errors.As(err, &exists) {
			return nil
		}
		return lasting(err)
	})
	if err != nil {
		return err
	}
	log.Info("namespace set up", "namespace", namespace)

	// Runs work without search attributes. Temporal's frontends know a new Namespace after some seconds.
	created := time.Now()
	attributes := retry(ctx, log, "set up the search attributes", func() error {
		for {
			err := addSearchAttributes(ctx, namespace, temporal)
			if !errors.As(err, new(*serviceerror.NamespaceNotFound)) || time.Since(created) > namespaceDelay || pause(ctx, time.Second) != nil {
				return err
			}
		}
	})
	if attributes == nil {
		log.Info("search attributes set up", "namespace", namespace)
		indexed := 0
		attributes = retry(ctx, log, "index the runs that were started without search attributes", func() (err error) {
			indexed, err = indexRuns(ctx, temporal)
			return lasting(err)
		})
		if indexed > 0 {
			log.Info("search attributes of older runs requested", "runs", indexed)
		}
	}
	return attributes
}

func addSearchAttributes(ctx context.Context, namespace string, temporal client.Client) error {
	missing, err := MissingSearchAttributes(ctx, namespace, temporal)
	if err != nil {
		return lasting(err)
	}
	add := func(attributes map[string]enums.IndexedValueType) error {
		_, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: attributes})
		if exists := new(serviceerror.AlreadyExists); errors.As(err, &exists) {
			return nil
		}
		return err
	}
	if len(missing) > 0 {
		err := add(missing)
		if full := new(serviceerror.InvalidArgument); errors.As(err, &full) {
			// Temporal added none of them. Add them one by one, as many as fit.
			var faults []error
			for _, name := range slices.Sorted(maps.Keys(missing)) {
				if err := add(map[string]enums.IndexedValueType{name: missing[name]}); err != nil {
					faults = append(faults, fmt.Errorf("%s (%v): %w", name, missing[name], err))
				}
			}
			if err = errors.Join(faults...); err != nil {
				err = fmt.Errorf("%w; remove a search attribute that nothing uses, by `temporal operator search-attribute remove --namespace %s`, or give Closeout a namespace of its own by TEMPORAL_NAMESPACE", err, namespace)
			}
		}
		if err != nil {
			return lasting(fmt.Errorf("add search attributes to namespace %s: %w", namespace, err))
		}
	}
	var queries []string
	for _, key := range workflows.SearchAttributes() {
		queries = append(queries, key.GetName()+" IS NOT NULL")
	}
	// Wait for Temporal's caches. Until then it would refuse starts.
	query := strings.Join(queries, " AND ")
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: query})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("query by search attributes: %w", err)
		}
	}
}

// indexRuns sends open runs without Search Attributes an Update to set them, and returns their
// number. Repeats have no effect.
func indexRuns(ctx context.Context, temporal client.Client) (n int, err error) {
	for run, err := range Runs(ctx, temporal, workflows.UnindexedQuery()) {
		if err != nil {
			return n, err
		}
		id := run.GetExecution()
		err := temporal.SignalWorkflow(ctx, id.GetWorkflowId(), id.GetRunId(), workflows.SignalIndex, nil)
		if ended := new(serviceerror.NotFound); err != nil && !errors.As(err, &ended) {
			return n, fmt.Errorf("signal %s: %w", id.GetWorkflowId(), err)
		}
		n++
	}
	return n, nil
}

// MissingSearchAttributes returns the Search Attributes that the Namespace lacks, by name. One of
// another type is an error with advice.
func MissingSearchAttributes(ctx context.Context, namespace string, temporal client.Client) (map[string]enums.IndexedValueType, error) {
	there, err := temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("list search attributes: %w", err)
	}
	missing := map[string]enums.IndexedValueType{}
	for _, key := range workflows.SearchAttributes() {
		name, want := key.GetName(), key.GetValueType()
		switch found, ok := there.GetCustomAttributes()[name]; {
		case !ok:
			missing[name] = want
		case found != want:
			return nil, permanent(fmt.Errorf("search attribute %s of namespace %s: found type %v, want %v; remove it or use another namespace", name, namespace, found, want))
		}
	}
	return missing, nil
}
