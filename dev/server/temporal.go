package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log/tag"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/fx"
)

const clusterName = "active"

// dynamicConfig changes defaults of the server that are made for a shared production
// cluster. Workflow Updates, eager start, worker heartbeats and versioning are on by
// default.
var dynamicConfig = dynamicconfig.StaticClient{
	// By default a timer may be a second late, which is long for a test.
	dynamicconfig.TimerProcessorMaxTimeShift.Key(): time.Millisecond,
	// New search attributes are usable after one refresh.
	dynamicconfig.NamespaceCacheRefreshInterval.Key(): 200 * time.Millisecond,
	// A page of the Web UI, or a test that polls a list, exceeds the default of 10 a
	// second.
	dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 1000,
	// Tests register search attributes repeatedly.
	dynamicconfig.FrontendMaxNamespaceNamespaceReplicationInducingAPIsRPSPerInstance.Key(): 100,
	dynamicconfig.FrontendGlobalNamespaceNamespaceReplicationInducingAPIsRPS.Key():         100,
	// One process gains nothing from a partitioned Task Queue.
	dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
	dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	// Housekeeping of large databases, with workers that the server doesn't stop.
	dynamicconfig.TaskQueueScannerEnabled.Key():       false,
	dynamicconfig.HistoryScannerEnabled.Key():         false,
	dynamicconfig.EnableParentClosePolicyWorker.Key(): false, // the history service does that work
	// The default of 128000 workflows may take gigabytes.
	dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8192,
	// Send no telemetry.
	dynamicconfig.EnableServerVersionCheck.Key(): false,
}

func dynamicConfigFor(o Options) dynamicconfig.StaticClient {
	c := maps.Clone(dynamicConfig)
	c[dynamicconfig.MatchingEnableFairness.Key()] = o.Fair
	return c
}

// temporalModule is Temporal's module with a handle of the server, which can stop
// services that a failed start has left. It leaves out tracing, which would take over the
// process's OpenTelemetry settings and error handler.
func temporalModule(server **temporal.ServerImpl) fx.Option {
	return fx.Options(
		temporal.TopLevelModule,
		fx.Replace([]trace.SpanExporter{}),
		fx.Populate(server),
	)
}

func temporalOptions(o Options, frontend string, ports *ports, db *config.SQL, log *logger) []temporal.ServerOption {
	rpc := func(ip string, port int) config.Service {
		return config.Service{RPC: config.RPC{BindOnIP: ip, GRPCPort: port}}
	}
	local := func(port int) static.Hosts {
		return static.SingleLocalHost(fmt.Sprintf("%s:%d", loopback, port))
	}
	var global config.Global
	if o.TLS != nil {
		ours := config.ClientTLS{DisableHostVerification: true, ForceTLS: true}
		global.TLS.Frontend = config.GroupTLS{
			Server: config.ServerTLS{CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, ClientCAFiles: []string{o.TLS.CA}, RequireClientAuth: true},
			Client: ours,
		}
		global.TLS.SystemWorker = config.WorkerTLS{CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, Client: ours}
	}
	history, matching, worker := port(ports.history), port(ports.matching), port(ports.worker)
	return []temporal.ServerOption{
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithConfig(&config.Config{
			Global: global,
			Persistence: config.Persistence{
				DefaultStore:     "sqlite",
				VisibilityStore:  "sqlite",
				NumHistoryShards: 1,
				DataStores:       map[string]config.DataStore{"sqlite": {SQL: db}},
			},
			ClusterMetadata: &cluster.Config{
				FailoverVersionIncrement: 10,
				MasterClusterName:        clusterName,
				CurrentClusterName:       clusterName,
				ClusterInformation: map[string]cluster.ClusterInformation{
					clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
				},
			},
			DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
			Services: map[string]config.Service{
				string(primitives.FrontendService): rpc(o.IP, port(ports.frontend)),
				string(primitives.HistoryService):  rpc(loopback, history),
				string(primitives.MatchingService): rpc(loopback, matching),
				string(primitives.WorkerService):   rpc(loopback, worker),
			},
			PublicClient: config.PublicClient{HostPort: frontend},
			Archival: config.Archival{
				History:    config.HistoryArchival{State: config.ArchivalDisabled},
				Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
			},
			NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
				History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
				Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			}},
		}),
		// With known hosts the services need no gossip, no ports for it, and start
		// faster.
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: static.SingleLocalHost(frontend),
			primitives.HistoryService:  local(history),
			primitives.MatchingService: local(matching),
			primitives.WorkerService:   local(worker),
		}),
		temporal.WithDynamicConfigClient(dynamicConfigFor(o)),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithCustomMetricsHandler(metrics.NoopMetricsHandler),
		temporal.WithLogger(log),
	}
}

// logger is Temporal's logger on slog.
type logger struct {
	to       *slog.Logger
	building atomic.Bool // build is running, in one goroutine
	stopping atomic.Bool // services now report each other as missing
	fatal    chan error  // the first fatal error after build
}

func newLogger(to *slog.Logger) *logger {
	return &logger{to: to, fatal: make(chan error, 1)}
}

func (l *logger) log(level slog.Level, msg string, tags []tag.Tag) {
	ctx := context.Background()
	if l.stopping.Load() ||
		strings.HasPrefix(msg, "HTTP API port has not been set") || // intended
		strings.HasPrefix(msg, "GetHistory page size is larger") { // logged whenever the Web UI shows a run
		level = min(level, slog.LevelDebug)
	}
	if !l.to.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(tags))
	for _, t := range tags {
		attrs = append(attrs, slog.Any(t.Key(), t.Value()))
	}
	l.to.LogAttrs(ctx, level, msg, attrs...)
}

// Log routine messages of the start one level lower than the server does.
func (l *logger) Debug(msg string, tags ...tag.Tag)  { l.log(slog.LevelDebug-4, msg, tags) }
func (l *logger) Info(msg string, tags ...tag.Tag)   { l.log(slog.LevelDebug, msg, tags) }
func (l *logger) Warn(msg string, tags ...tag.Tag)   { l.log(slog.LevelWarn, msg, tags) }
func (l *logger) Error(msg string, tags ...tag.Tag)  { l.log(slog.LevelError, msg, tags) }
func (l *logger) DPanic(msg string, tags ...tag.Tag) { l.log(slog.LevelError, msg, tags) }

func (l *logger) Panic(msg string, tags ...tag.Tag) {
	l.log(slog.LevelError, msg, tags)
	panic(msg)
}

// Fatal is called for errors at which the server would end its process. Here it must not.
// During [Server.build] it panics, and build recovers. Later it ends the calling
// goroutine. The start and stop of a service survive that, and the error becomes Start's
// if Start is still waiting.
func (l *logger) Fatal(msg string, tags ...tag.Tag) {
	l.log(slog.LevelError, msg, tags)
	err := errors.New(msg)
	for _, t := range tags {
		if t.Key() == "error" {
			err = fmt.Errorf("%s: %v", msg, t.Value())
		}
	}
	if l.building.Load() {
		panic(fatalError{err})
	}
	select {
	case l.fatal <- err:
	default:
	}
	runtime.Goexit()
}

type fatalError struct{ error }
