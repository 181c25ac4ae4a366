// Package service runs Closeout: it opens its two parts, the webhook and the worker, and
// stops them in order.
package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/webhook"
)

// Parts selects the parts of Closeout that run in this process.
type Parts struct {
	// Webhook takes callbacks.
	Webhook bool
	// Worker runs Workflows.
	Worker bool
	// Activities, if set, replaces the standard steps.
	Activities any
	// LogDropped, if set, returns the number of dropped log lines.
	LogDropped func() int64
	// Extension is what the program adds.
	Extension Extension
	// Started, if set, is called once when all parts run, with the webhook's address or nil.
	Started func(callbacks net.Addr)
}

// process holds what the parts share.
type process struct {
	config   *config.Config
	parts    Parts
	log      *slog.Logger
	metrics  *metrics
	tracing  *telemetry.Traces // nil without traces
	health   *health
	asked    *questions
	dialed   *config.Config // with this process's client options
	temporal client.Client
	starts   starter.Options
	opened   closers
}

// Run runs the parts until ctx ends and then stops them in order: it closes the listener, answers
// open requests, drains the inbox and stops the worker. It returns nil after such a stop. Temporal
// may be unavailable, even at the start.
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
	// Listen on both addresses first, so that an address in use fails before anything starts.
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
		if public, err = secure(webhook.Watch(public, c.TLSCert != ""), c, log); err != nil {
			return err
		}
	}
	metrics := newMetrics()
	if parts.LogDropped != nil {
		metrics.NewCounterFunc(prometheus.CounterOpts{Name: "closeout_log_dropped_total", Help: "Log lines that were dropped, because nobody read them or writing failed."},
			func() float64 { return float64(parts.LogDropped()) })
	}
	p := &process{config: c, parts: parts, log: log, metrics: metrics, health: &health{worker: parts.Worker}}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(ctx)
	// Serve operators from here on, however long the parts take to open.
	serve(running, group, admin, &http.Server{
		Handler: expectedHosts(c.AdminListen, log, adminRouter(p.health, metrics.Handler())), ReadHeaderTimeout: 5 * time.Second,
	}, c.StopTimeout)
	group.Go(func() error {
		err := p.run(running, public)
		if err != nil && running.Err() != nil && errors.Is(err, context.Cause(running)) {
			err = nil // stopped during the start
		}
		stop()
		p.opened.close()
		return err
	})
	return p.opened.wait(running, group, stopLimit(c, parts), log)
}

// run opens the parts and runs them until ctx ends.
func (p *process) run(ctx context.Context, public net.Listener) error {
	if err := p.dial(ctx); err != nil {
		return err
	}
	var w *webhookPart
	var k *workerPart
	if p.parts.Webhook {
		w = &webhookPart{process: p, listener: public, drained: make(chan struct{})}
		p.opened.add("the webhook", w.Close)
		if err := w.open(ctx); err != nil {
			return err
		}
	}
	if p.parts.Worker {
		k = &workerPart{process: p}
		p.opened.add("the worker", k.Close)
		if err := k.open(ctx); err != nil {
			return err
		}
	}
	build := buildinfo.Read()
	p.log.Info("closeout starting", "version", build.Version, "commit", build.Commit, "date", build.Date, "settings", p.config)
	p.health.questions.Store(p.asked)
	started := func() {
		if p.parts.Started == nil {
			return
		}
		var callbacks net.Addr
		if w != nil {
			callbacks = public.Addr()
		}
		p.parts.Started(callbacks)
	}

	group, ctx := errgroup.WithContext(ctx)
	drained := ctx.Done()
	if w != nil {
		drained = w.drained
		group.Go(func() error { return w.Run(ctx) })
	}
	if k != nil {
		group.Go(func() error { return k.Run(ctx, drained, started) })
	} else {
		started()
	}
	err := group.Wait()
	p.log.Info("closeout stopped")
	return err
}

// dial creates the client for Temporal and the parts that depend only on it.
func (p *process) dial(ctx context.Context) error {
	c := *p.config // leave the caller's unchanged
	if c.Traces {
		var err error
		if p.tracing, err = telemetry.NewTraces(ctx, p.log); err != nil {
			return err
		}
		p.opened.add("traces", p.tracing.Close)
		traced, err := p.tracing.Interceptor()
		if err != nil {
			return err
		}
		others := c.Temporal.Interceptors
		c.Temporal.Interceptors = append(others[:len(others):len(others)], traced)
	}
	if compression := &c.Temporal.ConnectionOptions.GrpcCompression; p.parts.Webhook && *compression == nil {
		// Compression took a sixth of the CPU time of a start, which has a kilobyte or two.
		*compression = &client.GrpcCompressionNone{}
	}
	if p.parts.Worker {
		c.Temporal.DataConverter, c.Temporal.FailureConverter = c.PayloadKeys.ForWorker()
	}
	temporal, err := Dial(&c, p.log, p.metrics.Temporal())
	if err != nil {
		return err
	}
	p.opened.add("the client for Temporal", temporal.Close)
	p.dialed, p.temporal = &c, temporal
	p.asked = &questions{
		temporal:     askNamespace(answerWithin, temporal, c.Temporal.Namespace),
		certificates: askCertificates(answerWithin, &c),
		tasks:        askStranded(answerWithin, &c, temporal),
	}
	p.metrics.Gauges(readEvery, readRuns(&c, temporal), runGauges...)
	data, _ := c.PayloadKeys.ForClient()
	p.starts = starter.Options{
		Temporal: temporal, TaskQueue: c.TaskQueue, Data: data, Weights: c.AppWeights, Settling: c.Settling,
		Route: p.parts.Extension.WorkflowOf, Immediate: p.parts.Extension.StartsAtOnce, Log: p.log,
		Events: p.parts.Extension.Events, Signaler: temporal.WorkflowService(), Namespace: c.Temporal.Namespace,
	}
	return nil
}

// Dial returns a client for Temporal. It connects on first use. The metrics may be nil.
func Dial(c *config.Config, log *slog.Logger, metrics client.MetricsHandler) (client.Client, error) {
	options := c.Temporal
	if options.DataConverter == nil {
		options.DataConverter, options.FailureConverter = c.PayloadKeys.ForClient()
	}
	// By default the client would wait up to 10 s to reconnect after an outage, and queue every
	// callback until then.
	backoff := grpcbackoff.DefaultConfig
	backoff.BaseDelay, backoff.MaxDelay = 100*time.Millisecond, time.Second
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff, MinConnectTimeout: 5 * time.Second}))
	options.Logger = tlog.NewStructuredLogger(slog.New(outage.Limit(log.Handler())))
	options.MetricsHandler = metrics
	if c.TemporalCert != "" && options.ConnectionOptions.TLS != nil {
		// New connections use a renewed certificate.
		shown, err := newCertificate(TemporalCertificate(c), log, time.Now)
		if err != nil {
			return nil, err
		}
		options.ConnectionOptions.TLS = options.ConnectionOptions.TLS.Clone()
		options.ConnectionOptions.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown.current(), nil }
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

// serve serves until ctx ends and answers the open requests. Then it closes the channel.
func serve(ctx context.Context, group *errgroup.Group, l net.Listener, server *http.Server, timeout time.Duration) <-chan struct{} {
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
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
		return nil
	})
	return drained
}
