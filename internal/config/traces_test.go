package config_test

import (
	"os"
	"strings"
	"testing"
)

func TestTracesAreOptIn(t *testing.T) {
	type env = map[string]string
	tests := []struct {
		name  string
		env   env
		want  bool
		fault string
	}{
		{"not asked for", nil, false, ""},
		{"not asked for, yet said how", env{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_SERVICE_NAME": "a"}, false, ""},
		{"a place", env{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, true, ""},
		{"a place for traces", env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, true, ""},
		{"an exporter", env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, true, ""},
		{"none", env{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, false, ""},
		{"nothing at all", env{"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "zipkin"}, false, ""},
		{"another exporter", env{"OTEL_TRACES_EXPORTER": "zipkin"}, false, `OTEL_TRACES_EXPORTER: found "zipkin", want otlp or none`},
		{"another protocol", env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, true, `OTEL_EXPORTER_OTLP_PROTOCOL: found "grpc", want http/protobuf`},
		{"another protocol for others", env{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, ""},
		{"no URL", env{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318?key=hunter2"}, true, "OTEL_EXPORTER_OTLP_ENDPOINT: not a URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, variable := range os.Environ() {
				if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
					t.Setenv(name, "")
				}
			}
			c, err := load(t, tt.env, nil, false)
			if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error %v, want %q", err, tt.fault)
			}
			if c.Traces != tt.want {
				t.Errorf("traces %v, want %v", c.Traces, tt.want)
			}
		})
	}
}
