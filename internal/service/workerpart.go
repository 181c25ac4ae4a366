package service

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// maxActivities bounds the concurrent Activities of a worker.
const maxActivities = 100

// workerPart runs Workflows and Activities.
type workerPart struct {
	*process
	acts       any
	reconciler *reconcile.Reconciler // nil if the program replaces the standard steps
	watch      *reconcile.Watch      // nil without reconciliation
	people     attendance.Reader     // nil if the program replaces the standard steps
	lines      attendance.LineReader // nil if the program replaces the standard steps
	opened     closers
}

// open opens the ledger and the buckets, and creates the steps.
func (k *workerPart) open(ctx context.Context) error {
	if k.acts = k.parts.Activities; k.acts == nil {
		if err := k.openStandard(ctx); err != nil {
			return err
		}
	}
	for _, made := range append([]any{k.acts}, k.parts.Extension.Activities...) {
		if names := unmade(made); len(names) > 0 {
			return fmt.Errorf("activities of %T: %v: nil, want them made with what their steps need", made, names)
		}
	}
	return nil
}

func (k *workerPart) openStandard(ctx context.Context) error {
	if err := k.parts.Extension.CheckPrices(k.config); err != nil {
		return err
	}
	standard, err := patiently(ctx, k.log, "open the ledger and the buckets", func() (*steps.Standard, error) {
		return openSteps(ctx, k.config, &k.opened)
	})
	if err != nil {
		return err
	}
	k.acts = standard
	k.metrics.worker(standard)
	books := standard.Billing.Ledger
	api, err := newServerAPI(k.config, books)
	if err != nil {
		return err
	}
	if standard.Recordings.Finding.Ledger != nil {
		standard.Recordings.Finding.API = api
	}
	books.Rules.Func = k.parts.Extension.Exclude
	k.health.ledger.CompareAndSwap(nil, books)
	books.Price = k.parts.Extension.Price
	k.asked.ledger = cmp.Or(k.asked.ledger, askLedger(answerWithin, books))
	k.lines = func(ctx context.Context, s session.Session, adjustment int) iter.Seq2[pricing.Line, error] {
		if _, err := books.Bill(ctx, s.ID); err != nil {
			return func(yield func(pricing.Line, error) bool) { yield(pricing.Line{}, err) }
		}
		return books.Lines(ctx, s.ID, adjustment)
	}
	k.people = books.Participants
	k.reconciler = newReconciler(k.config, books, api, starter.New(k.starts))
	notifier := starter.NewNotifier(books, k.temporal, k.log)
	k.reconciler.Found = func(ctx context.Context, app uint32, t serverapi.Task) error {
		return notifier.Notify(ctx, app, t.TaskID, t.RoomID, t.Begin)
	}
	k.reconciler.Observe = func(outcome string, sessions int) {
		k.metrics.reconciled.WithLabelValues(outcome).Add(float64(sessions))
	}
	k.reconciler.Swept = k.metrics.sweep
	k.watch = newWatch(k.config, k.temporal, standard.Billing, k.reconciler, k.log)
	k.metrics.overdue(func(ctx context.Context) (ledger.Overdues, error) {
		return books.CountOverdue(ctx, time.Now().Add(-k.config.OverdueAfter))
	})
	k.metrics.unknown(func(ctx context.Context) ([]ledger.Comparison, error) {
		return books.Comparisons(ctx, time.Now().Add(-reconcile.ComparedFor))
	})
	return nil
}

// Run starts the worker once Temporal is available, calls polling, and stops when drained is
// closed.
func (k *workerPart) Run(ctx context.Context, drained <-chan struct{}, polling func()) error {
	c, fatal := k.config, make(chan error, 1)
	var w worker.Worker
	err := retry(ctx, k.log, "start the worker", func() (err error) {
		options := workerOptions(c, func(err error) { fatal <- err })
		if k.parts.Extension.Worker != nil {
			k.parts.Extension.Worker(&options)
		}
		if k.people != nil {
			options.BackgroundActivityContext = attendance.WithLines(attendance.With(
				cmp.Or(options.BackgroundActivityContext, context.Background()), k.people), k.lines)
		}
		starting := worker.New(k.temporal, c.TaskQueue, options)
		if err := k.parts.Extension.register(starting, k.acts, k.reconciler); err != nil {
			return permanent(err)
		}
		// Start calls Temporal and ignores contexts.
		w, err = patiently(ctx, k.log, "start the worker", func() (worker.Worker, error) { return starting, starting.Start() })
		return err
	})
	if err != nil {
		return nil // stopped before Temporal was available
	}
	defer w.Stop()
	k.health.polling.Store(true)
	k.log.Info("worker polling", "task_queue", c.TaskQueue, "namespace", c.Temporal.Namespace,
		"deployment", c.DeploymentName, "build_id", c.BuildID)
	var beside sync.WaitGroup
	defer beside.Wait()
	if k.watch != nil {
		beside.Go(func() { k.watch.Loop(ctx, k.log) })
	}
	polling()
	select {
	case <-drained:
		return nil
	case err := <-fatal:
		return fmt.Errorf("worker: %w", err)
	}
}

// Close closes the ledger and the buckets.
func (k *workerPart) Close() { k.opened.close() }

// openSteps opens the stores of the standard steps and adds them to opened.
func openSteps(ctx context.Context, c *config.Config, opened *closers) (*steps.Standard, error) {
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	books.Rules = c.Exclude
	opened.add("the ledger", func() { _ = books.Close() })
	recordings, err := archive.OpenBucket(ctx, c.RecordingsURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_RECORDINGS_URL: open the bucket: %w", err)
	}
	opened.add("the recordings' bucket", func() { _ = recordings.Close() })
	target, err := archive.OpenBucket(ctx, c.ArchiveURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: open the bucket: %w", err)
	}
	opened.add("the archive's bucket", func() { _ = target.Close() })
	finding := steps.Finding{}
	if r := c.Recordings; r.Expected != "none" {
		finding = steps.Finding{Ledger: books, Prefix: r.Prefix, Rules: r.Rules}
	}
	return &steps.Standard{
		Billing: &steps.Billing{
			Ledger: books,
			API:    activities.Endpoint{Name: "the billing API", URL: c.BillingURL, Token: c.BillingToken},
			Prices: c.Prices, NotCollected: !c.Participants,
			MaxMinutes: c.MaxBill, MaxRoomLife: c.MaxRoomLife, MissingWait: c.MissingWait,
		},
		Recordings: &steps.Recordings{Finding: finding, Source: recordings, Archive: target, Options: c.ArchiveOptions()},
	}, nil
}

// workerOptions returns a worker's options. fatal is called with the error that ends the worker.
func workerOptions(c *config.Config, fatal func(error)) worker.Options {
	pollers := worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{
		InitialNumberOfPollers: 8, MinimumNumberOfPollers: 2, MaximumNumberOfPollers: 50,
	})
	options := worker.Options{
		MaxConcurrentActivityExecutionSize: maxActivities,
		// The default of two pollers fetches some 40 tasks a second from a busy server, so that
		// started runs would wait.
		WorkflowTaskPollerBehavior: pollers,
		ActivityTaskPollerBehavior: pollers,
		// By default, Activities are cancelled at once.
		WorkerStopTimeout: c.StopTimeout,
		OnFatalError:      fatal,
	}
	if c.BuildID != "" {
		options.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: c.DeploymentName, BuildID: c.BuildID},
			// A run stays with the code it started with.
			DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
		}
	}
	return options
}
