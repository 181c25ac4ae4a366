// Package server runs a real Temporal server on a SQLite file, and its Web UI, inside the
// calling process, for development and tests without an installation. It has one node and
// no authentication, and TLS only for tests of clients. It isn't meant for production.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	startTimeout = time.Minute
	// Temporal stops its four services one after the other. Each waits one or two seconds
	// for open calls, mostly long polls of workers.
	stopTimeout = 15 * time.Second

	loopback = "127.0.0.1"
)

// Options configure a [Server]. Only Dir is required.
type Options struct {
	// Dir is the folder for the database, temporal.db. It is created if absent
	// and belongs to one server at a time.
	Dir string
	// IP is the address that the frontend and the Web UI listen on. Default: 127.0.0.1.
	// There is no password: anybody who can connect has full control.
	IP string
	// Port is the port of the gRPC frontend. 0 means a free port.
	Port int
	// UIPort is the port of the Web UI. 0 means a free port, -1 no Web UI.
	UIPort int
	// Namespace is registered if the database doesn't have it. Default: "default".
	Namespace string
	// Retention is how long Namespace keeps closed runs. Default: 7 days. An existing
	// Namespace keeps its own retention.
	Retention time.Duration
	// CodecEndpoint is the codec server of the Web UI. Default: none.
	CodecEndpoint string
	// Fair makes Task Queues dispatch the tasks of each fairness key in turn. By default
	// tasks are dispatched in order of arrival.
	Fair bool
	// TLS, if set, makes the frontend use TLS. UIPort must be -1.
	TLS *TLS
	// Logger gets the server's warnings and errors unchanged, and all other lines at
	// [slog.LevelDebug] and below. Default: [slog.Default].
	Logger *slog.Logger
}

// TLS names PEM files: a certificate for server and client, its key, and the certificate of
// the authority that signed it and the clients' certificates. Clients without a certificate
// are refused.
type TLS struct{ Cert, Key, CA string }

func (t *TLS) credentials() (credentials.TransportCredentials, error) {
	if t == nil {
		return insecure.NewCredentials(), nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	// #nosec G402 -- the server is in this process
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}), err
}

func (o *Options) setDefaults() error {
	if o.TLS != nil && o.UIPort != -1 {
		return errors.New("the Web UI doesn't support TLS: set UIPort to -1")
	}
	if o.Dir == "" {
		return errors.New("no folder given for the database")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("finding the folder %s: %w", o.Dir, err)
	}
	o.Dir = dir
	o.IP = cmp.Or(o.IP, loopback)
	if net.ParseIP(o.IP) == nil {
		return fmt.Errorf("%q is not an IP address to listen on", o.IP)
	}
	o.Namespace = cmp.Or(o.Namespace, "default")
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return nil
}

// Server is a running Temporal server. See [Start].
type Server struct {
	address, uiAddress string

	lock     *flock.Flock
	db       *database
	temporal *temporal.ServerImpl
	ui       *uiserver.Server
	uiDone   chan struct{}
	log      *logger

	stopOnce sync.Once
	stopErr  error
}

// Start starts a server. It returns when the frontend answers, Workflows can be started in
// the Namespace, and the Web UI shows its page. After an error nothing is left running. ctx
// bounds only the start.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("starting Temporal: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	s := &Server{log: newLogger(o.Logger)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting Temporal: %w", err), s.Stop())
		}
	}()

	// Find all mistakes of the user before anything runs.
	if err := s.lockDir(o.Dir); err != nil {
		return nil, err
	}
	ports, err := reservePorts(o)
	if err != nil {
		return nil, err
	}
	defer ports.release()
	if s.db, err = openDatabase(filepath.Join(o.Dir, "temporal.db"), o.Namespace, o.Retention); err != nil {
		return nil, err
	}

	s.address = dialable(ports.frontend.Addr())
	if err := s.startTemporal(ctx, o, ports); err != nil {
		return nil, err
	}
	if ports.ui != nil {
		s.uiAddress = dialable(ports.ui.Addr())
		if err := s.startUI(ctx, o, ports); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Address returns the frontend's host:port for a client on this machine.
func (s *Server) Address() string { return s.address }

// UIURL returns the address of the Web UI, or "" without one.
func (s *Server) UIURL() string {
	if s.uiAddress == "" {
		return ""
	}
	return "http://" + s.uiAddress
}

// Stop stops the Web UI, then Temporal, and releases the folder and the ports. Polling
// workers delay it by a second. Further calls return the result of the first.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stop() })
	return s.stopErr
}

func (s *Server) stop() error {
	s.log.stopping.Store(true)
	var errs []error
	if s.ui != nil {
		s.ui.Stop()
		<-s.uiDone
	}
	if s.temporal != nil {
		done := make(chan error, 1)
		go func() { done <- s.temporal.Stop(context.Background()) }()
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-time.After(stopTimeout):
			errs = append(errs, fmt.Errorf("temporal hasn't stopped after %s", stopTimeout))
		}
	}
	// Close the database after the server, and the lock after the database, so that no other
	// process writes to the file before this one has closed it.
	if s.db != nil {
		errs = append(errs, s.db.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}

func (s *Server) lockDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("creating the folder for the database: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "temporal.lock"))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return fmt.Errorf("locking %s: %w", dir, err)
	case !ok:
		return fmt.Errorf("another Temporal server is using %s: stop it, or use another folder", dir)
	}
	s.lock = lock
	return nil
}

func (s *Server) startTemporal(ctx context.Context, o Options, ports *ports) error {
	options := temporalOptions(o, s.address, ports, s.db.config, s.log)
	if err := ctx.Err(); err != nil {
		return err // a server that was built but not started can't be stopped
	}
	ports.releaseTemporal() // as late as possible
	server, err := s.build(options)
	if err == nil {
		err = server.Start()
	}
	if err == nil {
		err = s.awaitTemporal(ctx, o)
	}
	select {
	case fatal := <-s.log.fatal: // more specific than err
		return fatal
	default:
		return err
	}
}

// build makes the server, which opens its ports. It returns a fatal error of the server as
// an ordinary error.
func (s *Server) build(options []temporal.ServerOption) (_ *temporal.ServerFx, err error) {
	s.log.building.Store(true)
	defer s.log.building.Store(false)
	defer func() {
		if r := recover(); r != nil {
			fatal, ok := r.(fatalError)
			if !ok {
				panic(r)
			}
			err = fatal
		}
	}()
	return temporal.NewServerFx(temporalModule(&s.temporal), options...)
}

// awaitTemporal waits until the frontend is healthy, and until the history service answers
// that a Workflow of the Namespace doesn't exist.
func (s *Server) awaitTemporal(ctx context.Context, o Options) error {
	namespace := o.Namespace
	creds, err := o.TLS.credentials()
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return fmt.Errorf("connecting to the frontend: %w", err)
	}
	defer conn.Close()
	return s.await(ctx, "Temporal", func(ctx context.Context) error {
		health, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{
			Service: workflowservice.WorkflowService_ServiceDesc.ServiceName,
		}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("asking for the frontend's health: %w", err)
		}
		if health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("the frontend's health is %s", health.Status)
		}
		_, err = workflowservice.NewWorkflowServiceClient(conn).DescribeWorkflowExecution(ctx,
			&workflowservice.DescribeWorkflowExecutionRequest{
				Namespace: namespace,
				Execution: &commonpb.WorkflowExecution{WorkflowId: "no-such-workflow"},
			})
		var notFound *serviceerror.NotFound
		if err != nil && !errors.As(serviceerror.FromStatus(status.Convert(err)), &notFound) {
			return fmt.Errorf("asking namespace %s for a workflow: %w", namespace, err)
		}
		return nil
	})
}

func (s *Server) startUI(ctx context.Context, o Options, ports *ports) error {
	host := o.IP
	if net.ParseIP(host).To4() == nil {
		host = "[" + host + "]"
	}
	s.ui = uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host:                host,
		Port:                port(ports.ui),
		TemporalGRPCAddress: s.address,
		EnableUI:            true,
		DefaultNamespace:    o.Namespace,
		Codec:               uiconfig.Codec{Endpoint: o.CodecEndpoint},
		// With plain HTTP the browser doesn't send secure cookies.
		CORS:             uiconfig.CORS{CookieInsecure: true},
		DisableNewsFetch: true, // don't fetch news from the internet
		HideLogs:         true,
	}))
	s.uiDone = make(chan struct{})
	ports.ui.Close()
	go func() {
		defer close(s.uiDone)
		if err := s.ui.Start(); err != nil {
			s.log.to.Error("Web UI stopped", "error", err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return s.await(ctx, "the Web UI", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.UIURL(), nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("its page answers %s", res.Status)
		}
		return nil
	})
}

// await calls check until it succeeds, ctx ends, or the server fails.
func (s *Server) await(ctx context.Context, what string, check func(context.Context) error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %w)", what, ctx.Err(), err)
		case fatal := <-s.log.fatal:
			return fatal
		case <-tick.C:
		}
	}
}

// ports holds ports open until the servers open them, so that a port in use is found before
// anything starts, and free ports differ.
type ports struct {
	frontend, history, matching, worker, ui net.Listener
}

func reservePorts(o Options) (_ *ports, err error) {
	p := &ports{}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if p.frontend, err = listen(o.IP, o.Port, "Temporal's frontend"); err != nil {
		return nil, err
	}
	if o.UIPort != -1 {
		if p.ui, err = listen(o.IP, o.UIPort, "the Web UI"); err != nil {
			return nil, err
		}
	}
	// The services use these only among themselves.
	for _, l := range []*net.Listener{&p.history, &p.matching, &p.worker} {
		if *l, err = listen(loopback, 0, "Temporal's services"); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func listen(ip string, port int, what string) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("port %d of %s isn't free for %s: %w; stop the program that uses it, or choose another port", port, ip, what, err)
	}
	return l, nil
}

func (p *ports) releaseTemporal() { closeAll(p.frontend, p.history, p.matching, p.worker) }
func (p *ports) release()         { closeAll(p.frontend, p.history, p.matching, p.worker, p.ui) }

func closeAll(listeners ...net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close() // closing twice is harmless
		}
	}
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// dialable returns the address to dial for a listener, which may listen on all interfaces.
func dialable(a net.Addr) string {
	tcp := *a.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		tcp.IP = net.ParseIP(loopback)
	}
	return tcp.String()
}

// Serve runs a server until ctx ends. After the start it writes a line with the frontend's
// address to out. Use it in a process that does nothing else and may be killed.
func Serve(ctx context.Context, o Options, out io.Writer) error {
	s, err := Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, s.Address())
	<-ctx.Done()
	return s.Stop()
}
