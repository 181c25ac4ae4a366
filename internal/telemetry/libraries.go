package telemetry

import (
	"io"
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

var adoptGRPC = sync.OnceFunc(func() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, grpcErrors{})) })

// grpcErrors logs the errors that gRPC writes, as in "2026/11/30 12:00:00 ERROR: ...".
type grpcErrors struct{}

func (grpcErrors) Write(line []byte) (int, error) {
	text := string(line)
	if _, message, prefixed := strings.Cut(text, " ERROR: "); prefixed {
		text = message
	}
	slog.Error("connection failed", "library", "grpc", "message", strings.TrimSpace(text))
	return len(line), nil
}
