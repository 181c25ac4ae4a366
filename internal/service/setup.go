package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
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
// search attributes, the schedule, the ledger's tables and, if the settings say so,
// the buckets. It waits until ctx ends for what doesn't answer, and may be run any
// number of times.
func Setup(ctx context.Context, c *config.Config, log *slog.Logger) error {
	temporal, err := Dial(c, log, nil)
	if err != nil {
		return err
	}
	defer temporal.Close()
	if err := setUpTemporal(ctx, c, temporal, log); err != nil {
		return err
	}

	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	defer books.Close()
	if err := insist(ctx, log, "set up the ledger", func() error { return migrate(ctx, books) }); err != nil {
		return err
	}
	log.Info("the ledger is set up")

	if !c.MakeBuckets {
		return nil
	}
	for _, b := range []struct{ setting, url string }{{"CLOSEOUT_RECORDINGS_URL", c.RecordingsURL}, {"CLOSEOUT_ARCHIVE_URL", c.ArchiveURL}} {
		made, err := retry(ctx, log, "make the bucket", func() (bool, error) { return makeBucket(ctx, b.setting, b.url) })
		if err != nil {
			return err
		}
		log.Info("the bucket is there", "bucket", config.Where(b.url), "made", made)
	}
	return nil
}

// migrate makes the ledger's tables. An error that no retry can help says what
// would, and is permanent.
func migrate(ctx context.Context, books *ledger.Ledger) error {
	err := books.Migrate(ctx)
	advice, final := ledger.Advice(err)
	if advice != "" {
		err = fmt.Errorf("%w; %s", err, advice)
	}
	if final {
		err = backoff.Permanent(err)
	}
	return err
}

func setUpTemporal(ctx context.Context, c *config.Config, temporal client.Client, log *slog.Logger) error {
	namespace := c.Temporal.Namespace
	err := insist(ctx, log, "set up the namespace", func() error {
		_, err := temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if missing := new(serviceerror.NamespaceNotFound); !errors.As(err, &missing) {
			return err
		}
		_, err = temporal.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace:                        namespace,
			Description:                      "Rooms closed out by Closeout",
			WorkflowExecutionRetentionPeriod: durationpb.New(c.Retention),
		})
		if exists := new(serviceerror.NamespaceAlreadyExists); errors.As(err, &exists) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	log.Info("the namespace is there", "namespace", namespace)

	err = insist(ctx, log, "set up the search attributes", func() error {
		return addSearchAttributes(ctx, namespace, temporal)
	})
	if err != nil {
		return err
	}
	log.Info("the search attributes are there", "namespace", namespace)

	if err := insist(ctx, log, "set up the schedule "+ScheduleID(c), func() error { return setUpSchedule(ctx, c, temporal) }); err != nil {
		return err
	}
	log.Info("the schedule is set up", "schedule", ScheduleID(c), "interval", c.ReconcileEvery)
	return nil
}

func addSearchAttributes(ctx context.Context, namespace string, temporal client.Client) error {
	missing, err := MissingSearchAttributes(ctx, namespace, temporal)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		_, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
		if exists := new(serviceerror.AlreadyExists); err != nil && !errors.As(err, &exists) {
			return fmt.Errorf("add search attributes: %w", err)
		}
	}
	var queries []string
	for _, key := range workflows.SearchAttributes() {
		queries = append(queries, key.GetName()+" IS NOT NULL")
	}
	// Temporal's caches learn of new ones a little later. Until then a start would
	// be refused.
	query := strings.Join(queries, " AND ")
	_, err = backoff.Retry(ctx, func() (any, error) {
		return temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: query})
	}, backoff.WithBackOff(backoff.NewConstantBackOff(100*time.Millisecond)), backoff.WithMaxElapsedTime(30*time.Second))
	if err != nil {
		return fmt.Errorf("query by search attributes: %w", err)
	}
	return nil
}

// MissingSearchAttributes gives those that the namespace lacks, by name. One that
// is there with another type is an error, which says what would do.
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
			return nil, backoff.Permanent(fmt.Errorf("search attribute %s of namespace %s: found type %v, want %v; remove it or use another namespace", name, namespace, found, want))
		}
	}
	return missing, nil
}

// insist is [retry] for what has no result.
func insist(ctx context.Context, log *slog.Logger, what string, try func() error) error {
	_, err := retry(ctx, log, what, func() (struct{}, error) { return struct{}{}, try() })
	return err
}
