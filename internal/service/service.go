// Package service makes a running Closeout of its parts.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob:// buckets
	_ "gocloud.dev/blob/fileblob"  // file:// buckets
	_ "gocloud.dev/blob/gcsblob"   // gs:// buckets
	_ "gocloud.dev/blob/s3blob"    // s3:// buckets
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// maxActivities bounds the activities that a worker runs at once. Each may hold
// a copy buffer and connections to a bucket.
const maxActivities = 100

// Parts says what of Closeout runs in this process.
type Parts struct {
	// Webhook takes callbacks.
	Webhook bool
	// Worker runs workflows.
	Worker bool
	// Started, if set, is called once when all of it runs, with the address that
	// callbacks are taken on, if they are.
	Started func(callbacks net.Addr)
}

// Run runs the parts until ctx ends, and then stops them in order: it accepts no
// more, answers what is open, and stops the worker. It returns nil after such a
// stop. Temporal may be away, at the start too.
func Run(ctx context.Context, c *config.Config, parts Parts, log *slog.Logger) error {
	// Both addresses are taken before anything else happens, so that one which is
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
	}

	metrics, err := telemetry.NewMetrics()
	if err != nil {
		return err
	}
	temporal, err := Dial(c, log, metrics)
	if err != nil {
		return err
	}
	defer temporal.Close()

	var router http.Handler
	if parts.Webhook {
		keyring, err := zego.NewKeyring(c.Apps, c.CallbackWindow, time.Now)
		if err != nil {
			return err
		}
		router = webhook.Router(webhook.Options{
			Keyring: keyring,
			Intake:  &intake.Intake{Temporal: temporal, TaskQueue: c.TaskQueue, Log: log},
			Token:   c.CallbackToken,
			Log:     log,
			Observe: metrics.Callback,
		})
	}
	var steps *activities.Steps
	if parts.Worker {
		var closeSteps func()
		if steps, closeSteps, err = openSteps(ctx, c); err != nil {
			return err
		}
		defer closeSteps()
	}

	log.Info("closeout starts", "settings", c)
	group, ctx := errgroup.WithContext(ctx)
	health := &health{temporal: temporal, namespace: c.Temporal.Namespace, worker: parts.Worker}
	serve(ctx, group, admin, &http.Server{Handler: adminRouter(health, metrics), ReadHeaderTimeout: 5 * time.Second}, c.StopTimeout)
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
		drained = serve(ctx, group, public, webhook.NewServer(router, log), c.StopTimeout)
		log.Info("callbacks are taken", "address", public.Addr().String(), "path", webhook.Path)
	}
	if parts.Worker {
		health.polled = started
		group.Go(func() error { return work(ctx, drained, c, temporal, steps, health, log) })
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
	// After an outage the SDK would wait for up to 10 s before it looks again, and
	// every callback in that time would have to be sent again.
	pause := grpcbackoff.DefaultConfig
	pause.BaseDelay, pause.MaxDelay = 100*time.Millisecond, time.Second
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: 5 * time.Second}))
	options.Logger = tlog.NewStructuredLogger(log)
	if metrics != nil {
		options.MetricsHandler = metrics.Temporal()
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
func openSteps(ctx context.Context, c *config.Config) (*activities.Steps, func(), error) {
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
	recordings, err := blob.OpenBucket(ctx, c.RecordingsURL)
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("CLOSEOUT_RECORDINGS_URL: open the bucket: %w", err)
	}
	opened = append(opened, recordings.Close)
	archive, err := blob.OpenBucket(ctx, c.ArchiveURL)
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: open the bucket: %w", err)
	}
	opened = append(opened, archive.Close)
	return &activities.Steps{
		Billing: &activities.Billing{
			Ledger: books,
			API: activities.BillingAPI{
				URL:   c.BillingURL,
				Token: c.BillingToken,
				Client: &http.Client{
					// Elsewhere a bill could be taken for done, and the token would leak.
					CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
				},
			},
		},
		Recordings: &activities.Recordings{Source: recordings, Archive: archive},
	}, closeAll, nil
}

// work runs a worker, as soon as Temporal is there for it and until drained.
func work(ctx context.Context, drained <-chan struct{}, c *config.Config, temporal client.Client, steps *activities.Steps, health *health, log *slog.Logger) error {
	fatal := make(chan error, 1)
	w, err := retry(ctx, log, "start the worker", func() (worker.Worker, error) {
		w := worker.New(temporal, c.TaskQueue, worker.Options{
			MaxConcurrentActivityExecutionSize: maxActivities,
			// Without it, activities would be cut off at once.
			WorkerStopTimeout: c.StopTimeout,
			OnFatalError:      func(err error) { fatal <- err },
		})
		workflows.Register(w)
		w.RegisterActivity(steps)
		return w, w.Start()
	})
	if err != nil {
		return nil // stopped before Temporal came
	}
	health.polling.Store(true)
	health.polled()
	log.Info("the worker is polling", "task_queue", c.TaskQueue, "namespace", c.Temporal.Namespace)
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
	result, err := backoff.Retry(ctx, try, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, next time.Duration) {
			last = err
			log.Warn("can't "+what+" yet", "error", err, "next_try", next.Round(time.Millisecond))
		}))
	switch {
	case err != nil && ctx.Err() != nil && last != nil:
		return result, fmt.Errorf("%s: %w; the last try: %w", what, err, last)
	case err != nil:
		return result, fmt.Errorf("%s: %w", what, err)
	}
	return result, nil
}

// health tells whether this process does its work.
type health struct {
	temporal  client.Client
	namespace string
	worker    bool
	polling   atomic.Bool
	polled    func() // called when polling becomes true
}

// check gives what is wrong.
func (h *health) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var faults []error
	// An answer for the namespace says more than an open port.
	if _, err := h.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: h.namespace}); err != nil {
		faults = append(faults, fmt.Errorf("namespace %s of Temporal: %w", h.namespace, err))
	}
	if h.worker && !h.polling.Load() {
		faults = append(faults, errors.New("the worker isn't polling yet"))
	}
	return errors.Join(faults...)
}

// adminRouter serves what only operators should reach.
func adminRouter(h *health, metrics *telemetry.Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", metrics.Handler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
