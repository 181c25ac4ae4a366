package telemetry

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/grpclog"
)

// AdoptLibraries redirects the logs of libraries to log: package log, gRPC and
// OpenTelemetry.
func AdoptLibraries(log *slog.Logger) {
	slog.SetDefault(log) // also the output of package log
	adoptGRPC()          // allowed once per process
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry failed", "library", "opentelemetry", "error", err) }))
}

var adoptGRPC = sync.OnceFunc(func() { grpclog.SetLoggerV2(grpcLogger{}) })

// grpcLogger is a [grpclog.LoggerV2] that logs errors, as gRPC's default does.
type grpcLogger struct{}

func (grpcLogger) error(text string) {
	slog.Error("connection failed", "library", "grpc", "message", strings.TrimSpace(text))
}

func (grpcLogger) Info(...any)                         {}
func (grpcLogger) Infoln(...any)                       {}
func (grpcLogger) Infof(string, ...any)                {}
func (grpcLogger) Warning(...any)                      {}
func (grpcLogger) Warningln(...any)                    {}
func (grpcLogger) Warningf(string, ...any)             {}
func (l grpcLogger) Error(args ...any)                 { l.error(fmt.Sprint(args...)) }
func (l grpcLogger) Errorln(args ...any)               { l.error(fmt.Sprintln(args...)) }
func (l grpcLogger) Errorf(format string, args ...any) { l.error(fmt.Sprintf(format, args...)) }

// Fatal need not end the process, because gRPC exits after it.
func (l grpcLogger) Fatal(args ...any)                 { l.error(fmt.Sprint(args...)) }
func (l grpcLogger) Fatalln(args ...any)               { l.error(fmt.Sprintln(args...)) }
func (l grpcLogger) Fatalf(format string, args ...any) { l.error(fmt.Sprintf(format, args...)) }
func (grpcLogger) V(int) bool                          { return false }
