// Package service makes a running Closeout of its parts.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	_ "gocloud.dev/blob/azureblob" // azblob:// buckets
	_ "gocloud.dev/blob/gcsblob"   // gs:// buckets
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// maxActivities bounds the activities that a worker runs at once.
const maxActivities = 100

// Parts says what of Closeout runs in this process.
type Parts struct {
	// Webhook takes callbacks.
	Webhook bool
	// Worker runs workflows.
	Worker bool
	// Activities, if set, are what a worker does instead of the steps that the
	// settings describe.
	Activities any
	// LogDropped, if set, returns how many lines of the log were dropped.
	LogDropped func() int64
	// Extension is what the program adds.
	Extension Extension
	// Started, if set, is called once when all of it runs, with the address that
	// callbacks are taken on, if they are.
	Started func(callbacks net.Addr)
}

// Run runs the parts until ctx ends, and then stops them in order: it accepts no
// more, answers what is open, empties the inbox and stops the worker. It returns
// nil after such a stop. Temporal may be away, at the start too.
func Run(ctx context.Context, c *config.Config, parts Parts, log *slog.Logger) error {
	if err := parts.Extension.Check(); err != nil {
		return err
	}
	if init := parts.Extension.Init; init != nil {
		closer, err := init(ctx)
		if err != nil {
			return err
		}
		if closer != nil {
			defer closer.Close()
		}
	}
	// Both addresses are taken before anything is begun, so that one which is
	// in use is an error and not half a start.
	admin, err := listen(ctx, "CLOSEOUT_ADMIN_LISTEN", c.AdminListen)
	if err != nil {
		return err
	}
	defer admin.Close()
	var public net.Listener
	if parts.Webhook {
		if public, err = listen(ctx, "CLOSEOUT_LISTEN", c.Listen); err != nil {
			return err
		}
		defer public.Close()
		public = webhook.Watch(public, c.TLSCert != "")
		if c.TLSCert != "" {
			if public, err = secure(public, c.TLSCert, c.TLSKey, log); err != nil {
				return err
			}
		}
	}

	metrics, err := telemetry.NewMetrics()
	if err != nil {
		return err
	}
	if parts.LogDropped != nil {
		if err := metrics.LogDropped(parts.LogDropped); err != nil {
			return err
		}
	}
	// Operators can ask from here on, however long the parts take to open.
	h := &health{worker: parts.Worker}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(ctx)
	serve(running, group, admin, &http.Server{Handler: expectedHosts(c.AdminListen, log, adminRouter(h, metrics)), ReadHeaderTimeout: 5 * time.Second}, c.StopTimeout)
	opened := &closers{}
	group.Go(func() error {
		err := run(running, c, parts, public, h, metrics, opened, log)
		if err != nil && running.Err() != nil && errors.Is(err, context.Cause(running)) {
			err = nil // stopped while it started
		}
		stop()
		opened.close()
		return err
	})
	return opened.wait(running, group, stopLimit(c, parts), log)
}

// run opens the parts and runs them until ctx ends. What is to be closed after that
// it adds to opened.
func run(ctx context.Context, c *config.Config, parts Parts, public net.Listener, h *health, metrics *telemetry.Metrics, opened *closers, log *slog.Logger) (err error) {
	var traces *telemetry.Traces
	if c.Traces {
		if traces, err = telemetry.NewTraces(ctx, log); err != nil {
			return err
		}
		opened.add("traces", traces.Close)
		log = traces.Logger(log)
	}
	dialed := *c // the caller's stays as it is
	if dialed.Temporal.Interceptors, err = traces.Temporal(c.Temporal.Interceptors); err != nil {
		return err
	}
	if compression := &dialed.Temporal.ConnectionOptions.GrpcCompression; parts.Webhook && *compression == nil {
		// A start is a kilobyte or two, and to compress it was a sixth of what it took of a CPU here.
		*compression = &client.GrpcCompressionNone{}
	}
	if parts.Worker {
		dialed.Temporal.DataConverter, dialed.Temporal.FailureConverter = c.PayloadKeys.ForWorker()
	}
	temporal, err := Dial(&dialed, log, metrics)
	if err != nil {
		return err
	}
	opened.add("the client for Temporal", temporal.Close)

	asked := &questions{temporal: askNamespace(answerWithin, temporal, c.Temporal.Namespace), certificates: askCertificates(answerWithin, Certificates(c))}
	if err := metrics.Runs(lookAtRuns(c, temporal)); err != nil {
		return err
	}
	asked.tasks = askStranded(answerWithin, c, temporal)
	var router http.Handler
	var backlogs []backlog
	notify := func(context.Context) {}
	data, _ := c.PayloadKeys.ForClient()
	startOptions := starter.Options{
		Temporal: temporal, TaskQueue: c.TaskQueue, Data: data, Weights: c.AppWeights, Settling: c.Settling,
		Route: parts.Extension.WorkflowOf, Immediate: parts.Extension.StartsAtOnce, Log: log,
	}
	if parts.Webhook {
		box, err := patiently(ctx, log, "open the inbox", func() (*inbox.Inbox, error) { return inbox.Open(ctx, c.Inbox(), log) })
		if err != nil {
			return fmt.Errorf("CLOSEOUT_DATA: %w", err)
		}
		opened.add("the inbox", func() { _ = box.Close() })
		startOptions.Observe = func(outcome string) { metrics.Start(outcome, false) }
		// An eager run begins here, whichever build of a deployment is current.
		startOptions.Eager = parts.Worker && c.BuildID == ""
		closes := starter.New(startOptions)
		received := &receiver{closes: starter.NewReceiver(closes, box, metrics.Start)}
		opened.add("starts that are under way", received.closes.Wait)
		starts := received.closes.Delivery
		asked.inbox, asked.starts = askQueue(answerWithin, box), starts.Fault
		backlogs = append(backlogs, backlog{"room_close", starts.Relay, asked.inbox.waiting, starts.Fault})
		if err := metrics.Inbox(func(ctx context.Context) (l telemetry.Inbox, err error) {
			l.Takes = starts.Fault() == nil
			l.Limit, l.InFlight = starts.Load()
			return l, asked.inbox.gauge(ctx, &l)
		}); err != nil {
			return err
		}
		space := probe.New(answerWithin, func(context.Context) (s [2]uint64, err error) {
			s[0], s[1], err = inbox.DiskUsage(c.Data)
			return s, err
		})
		if err := metrics.Disk(func() (free, size uint64, err error) {
			s, err := space.Get(ctx)
			return s[0], s[1], err
		}); err != nil {
			return err
		}
		keyring, err := zego.NewKeyring(c.Apps, c.CallbackWindow, time.Now)
		if err != nil {
			return err
		}
		options := webhook.Options{
			Receiver: metrics.Receiver(traces.Receiver(received)),
			Keyring:  keyring,
			Token:    c.CallbackToken,
			Log:      log,
			Observe:  metrics.Callback, ObserveField: metrics.CallbackField,
		}
		if c.Participants {
			usage, err := patiently(ctx, log, "open the inbox of usage", func() (*usage, error) { return openUsage(ctx, c, !parts.Worker, metrics, log) })
			if err != nil {
				return err
			}
			opened.add("the inbox of usage and its ledger", usage.close)
			closes.Contradicted = usage.Contradicted
			asked.usage, asked.ledger, asked.stores = usage.queue, askLedger(answerWithin, usage.ledger), usage.delivery.Fault
			notifier := starter.NewNotifier(usage.ledger, temporal, log)
			usage.stored, notify = notifier.Stored, notifier.Run
			received.events = usage.events
			backlogs = append(backlogs, backlog{"usage", usage.delivery.Relay, usage.queue.waiting, usage.delivery.Fault})
		}
		if hooks := parts.Extension.Hooks; hooks != nil {
			theirs := temporal
			if parts.Worker { // whose client panics at what it can't decrypt
				own := dialed
				own.Temporal.DataConverter, own.Temporal.FailureConverter = c.PayloadKeys.ForClient()
				if theirs, err = Dial(&own, log, metrics); err != nil {
					return err
				}
				opened.add("the hooks' client for Temporal", theirs.Close)
			}
			options.Hooks = hooks(theirs)
		}
		router = traces.Callbacks(webhook.Router(options))
	}
	var newWorker func(fatal func(error)) (worker.Worker, error)
	var reconciler *reconcile.Reconciler
	var watch *reconcile.Watch
	if parts.Worker {
		acts := parts.Activities
		if acts == nil {
			standard, err := patiently(ctx, log, "open the ledger and the buckets", func() (*steps.Standard, error) {
				standard, closeSteps, err := openSteps(ctx, c)
				if err == nil {
					opened.add("the ledger and the buckets", closeSteps)
				}
				return standard, err
			})
			if err != nil {
				return err
			}
			metrics.Steps(standard)
			acts = standard
			books := standard.Billing.Ledger
			asked.ledger = cmp.Or(asked.ledger, askLedger(answerWithin, books))
			if reconciler, err = newReconciler(c, books, starter.New(startOptions)); err != nil {
				return err
			}
			reconciler.Observe = metrics.Reconciled
			watch = newWatch(c, temporal, standard.Billing, reconciler, log)
			if err := metrics.Overdue(func(ctx context.Context) (ledger.Overdues, error) {
				return books.CountOverdue(ctx, time.Now().Add(-c.OverdueAfter))
			}); err != nil {
				return err
			}
		}
		for _, made := range append([]any{acts}, parts.Extension.Activities...) {
			if names := unmade(made); len(names) > 0 {
				return fmt.Errorf("activities of %T: %v: nil, want them made with what their steps need", made, names)
			}
		}
		newWorker = func(fatal func(error)) (worker.Worker, error) {
			options := workerOptions(c, fatal)
			if parts.Extension.Worker != nil {
				parts.Extension.Worker(&options)
			}
			w := worker.New(temporal, c.TaskQueue, options)
			return w, parts.Extension.register(w, acts, reconciler)
		}
	}

	build := buildinfo.Read()
	log.Info("closeout starts", "version", build.Version, "commit", build.Commit, "date", build.Date, "settings", c)
	h.questions.Store(asked)
	group, ctx := errgroup.WithContext(ctx)
	started := func() {}
	if parts.Started != nil {
		var callbacks net.Addr
		if parts.Webhook {
			callbacks = public.Addr()
		}
		started = func() { parts.Started(callbacks) }
	}
	drained := ctx.Done()
	if parts.Webhook {
		drained = serve(ctx, group, public, webhook.NewServer(router, webhook.ServerOptions{Log: log, IdleTimeout: c.IdleTimeout, Observe: metrics.ConnectionFault}), c.StopTimeout)
		for _, b := range backlogs {
			group.Go(func() error { b.empty(ctx, drained, c.DrainTimeout, log.With("inbox", b.name)); return nil })
		}
		group.Go(func() error { notify(ctx); return nil })
		log.Info("callbacks are taken", "address", public.Addr().String(), "path", webhook.Path, "tls", c.TLSCert != "")
	}
	if parts.Worker {
		h.polled = func() {
			if watch != nil {
				group.Go(func() error { watch.Loop(ctx, log); return nil })
			}
			started()
		}
		group.Go(func() error { return work(ctx, drained, c, newWorker, h, log) })
	} else {
		started()
	}
	err = group.Wait()
	log.Info("closeout has stopped")
	return err
}

// Dial makes a client for Temporal. It doesn't connect before it is used.
func Dial(c *config.Config, log *slog.Logger, metrics *telemetry.Metrics) (client.Client, error) {
	options := c.Temporal
	if options.DataConverter == nil {
		options.DataConverter, options.FailureConverter = c.PayloadKeys.ForClient()
	}
	// After an outage the SDK would wait for up to 10 s before it looks again, and
	// every callback in that time would be queued.
	pause := grpcbackoff.DefaultConfig
	pause.BaseDelay, pause.MaxDelay = 100*time.Millisecond, time.Second
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: 5 * time.Second}))
	options.Logger = tlog.NewStructuredLogger(slog.New(outage.Limit(log.Handler())))
	if metrics != nil {
		options.MetricsHandler = metrics.Temporal()
	}
	if c.TemporalCert != "" && options.ConnectionOptions.TLS != nil {
		// A certificate that is replaced is shown from the next connection on.
		for _, files := range Certificates(c) {
			if files.For != "Temporal" {
				continue
			}
			shown, err := newCertificate(files, log, time.Now)
			if err != nil {
				return nil, err
			}
			options.ConnectionOptions.TLS = options.ConnectionOptions.TLS.Clone()
			options.ConnectionOptions.TLS.GetClientCertificate = shown.getClient
		}
	}
	temporal, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("make a client for Temporal at %s: %w", options.HostPort, err)
	}
	return temporal, nil
}

func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: can't listen on %s; choose another address or stop what uses it: %w", setting, address, err)
	}
	return l, nil
}

// serve serves until ctx ends, and then answers what is open. When that is done,
// it closes the channel.
func serve(ctx context.Context, group *errgroup.Group, l net.Listener, server *http.Server, drain time.Duration) <-chan struct{} {
	drained := make(chan struct{})
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		defer close(drained)
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
		return nil
	})
	return drained
}

// openSteps gives the steps what they need.
func openSteps(ctx context.Context, c *config.Config) (*steps.Standard, func(), error) {
	var opened []func() error
	closeAll := func() {
		for _, f := range opened {
			_ = f()
		}
	}
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return nil, nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	opened = append(opened, books.Close)
	recordings, err := archive.OpenBucket(ctx, c.RecordingsURL)
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("CLOSEOUT_RECORDINGS_URL: open the bucket: %w", err)
	}
	opened = append(opened, recordings.Close)
	kept, err := archive.OpenBucket(ctx, c.ArchiveURL)
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: open the bucket: %w", err)
	}
	opened = append(opened, kept.Close)
	return &steps.Standard{
		Billing: &steps.Billing{
			Ledger: books,
			API:    activities.Endpoint{Name: "the billing API", URL: c.BillingURL, Token: c.BillingToken},
			Prices: c.Prices, NotCollected: !c.Participants,
			MaxMinutes: c.MaxBill, MaxRoomLife: c.MaxRoomLife,
		},
		Recordings: &steps.Recordings{Finding: finding(c, books), Source: recordings, Archive: kept, Options: c.ArchiveOptions()},
	}, closeAll, nil
}

// finding says how recordings are found.
func finding(c *config.Config, books *ledger.Ledger) steps.Finding {
	r := c.Recordings
	if r.Expected == "none" {
		return steps.Finding{}
	}
	return steps.Finding{Ledger: books, Prefix: r.Prefix, Grace: r.Grace, Stable: r.Stable, Poll: r.Poll, Deadline: r.Deadline}
}

// workerOptions are those of a worker. fatal hears of what ends it.
func workerOptions(c *config.Config, fatal func(error)) worker.Options {
	pollers := worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{
		InitialNumberOfPollers: 8, MinimumNumberOfPollers: 2, MaximumNumberOfPollers: 50,
	})
	options := worker.Options{
		MaxConcurrentActivityExecutionSize: maxActivities,
		// Two pollers, the default, bring some 40 tasks a second from a server that
		// has much to do, and runs that were started would wait to be finished.
		WorkflowTaskPollerBehavior: pollers,
		ActivityTaskPollerBehavior: pollers,
		// Without it, activities would be cut off at once.
		WorkerStopTimeout: c.StopTimeout,
		OnFatalError:      fatal,
	}
	if c.BuildID != "" {
		options.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: c.DeploymentName, BuildID: c.BuildID},
			// A run stays with the code that it began with.
			DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
		}
	}
	return options
}

// work runs a worker, as soon as Temporal is there for it and until drained.
func work(ctx context.Context, drained <-chan struct{}, c *config.Config, newWorker func(fatal func(error)) (worker.Worker, error), health *health, log *slog.Logger) error {
	fatal := make(chan error, 1)
	w, err := retry(ctx, log, "start the worker", func() (worker.Worker, error) {
		w, err := newWorker(func(err error) { fatal <- err })
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		// It asks Temporal, and heeds no context.
		return patiently(ctx, log, "start the worker", func() (worker.Worker, error) { return w, w.Start() })
	})
	if err != nil {
		return nil // stopped before Temporal came
	}
	health.polling.Store(true)
	health.polled()
	log.Info("the worker is polling", "task_queue", c.TaskQueue, "namespace", c.Temporal.Namespace,
		"deployment", c.DeploymentName, "build_id", c.BuildID)
	defer w.Stop()
	select {
	case <-drained:
		return nil
	case err := <-fatal:
		return fmt.Errorf("worker: %w", err)
	}
}

// retry tries until it succeeds or ctx ends, with a growing pause, and says so.
func retry[T any](ctx context.Context, log *slog.Logger, what string, try func() (T, error)) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = 5 * time.Second
	var last error
	trouble := outage.New(log, what, "it is tried again")
	result, err := backoff.Retry(ctx, try, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			last = err
			trouble.Fail(err)
		}))
	if err == nil {
		trouble.End()
	}
	switch {
	case err != nil && ctx.Err() != nil && last != nil:
		return result, fmt.Errorf("%s: %w; the last try: %w", what, err, last)
	case err != nil:
		return result, fmt.Errorf("%s: %w", what, err)
	}
	return result, nil
}
