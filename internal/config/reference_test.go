package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const referenceFile = "../../docs/configuration.md"

// docs/configuration.md is generated from the settings:
//
//	go test ./internal/config -run Reference -update
func TestReferenceIsUpToDate(t *testing.T) {
	want := reference()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md is out of date: go test ./internal/config -run Reference -update")
	}
}

// reference returns the content of docs/configuration.md.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made by: go test ./internal/config -run Reference -update -->

Every setting is an environment variable and a flag: ` + "`CLOSEOUT_ADMIN_LISTEN` is `--admin-listen`" + `. A flag wins. All settings are checked at the start,
and the error names all wrong ones. Booleans are ` + "`on` or `off`, or `true` or `false`" + `. ` + "`closeout <command> --help`" + ` lists the settings of a command.

A secret can be in a file instead. Name the file in the variable with the suffix ` + "`_FILE`" + `, or in the flag with the suffix ` + "`-file`" + `. Logs never show
a secret, and show only the scheme and the host of a URL.

`)
	for _, s := range Settings() {
		b.WriteString("## `" + s.Env + "`\n\n")
		b.WriteString(strings.ToUpper(s.Usage[:1]) + strings.ReplaceAll(s.Usage[1:], "/zego/callbacks/<token>", "`/zego/callbacks/<token>`") + ".")
		if s.More != "" {
			b.WriteString("\n" + strings.ReplaceAll(s.More, ". ", ".\n")) // one sentence a line
		}
		b.WriteString("\n\nFlag `--" + s.Flag() + "`")
		if s.Secret {
			b.WriteString("; or a file: `" + s.Env + "_FILE`, `--" + s.Flag() + "-file`")
		}
		if s.Default != "" {
			b.WriteString(". Default: `" + s.Default + "`")
		}
		b.WriteString(". Used by: " + s.UsedBy + ".\n\n")
	}
	b.WriteString(`## Temporal

Closeout reads Temporal's [environment configuration](https://docs.temporal.io/develop/environment-configuration), as Temporal's programs do:
` + "`TEMPORAL_ADDRESS`" + ` (default ` + "`localhost:7233`" + `), ` + "`TEMPORAL_NAMESPACE`" + ` (default ` + "`default`" + `), ` + "`TEMPORAL_API_KEY`, `TEMPORAL_TLS_CLIENT_CERT_PATH`" + `,
` + "`TEMPORAL_TLS_CLIENT_KEY_PATH`" + ` and others, or the profile ` + "`TEMPORAL_PROFILE`" + ` in ` + "`temporal.toml`" + `. [Connect to Temporal](temporal.md#connect) has examples.

## The command in ` + "`dev/`" + `

` + "`go run -C dev .`" + ` has the same settings. In addition ` + "`CLOSEOUT_DEV_TEMPORAL_PORT`" + ` (` + "`--temporal-port`, `7233`" + `) and ` + "`CLOSEOUT_DEV_UI_PORT`" + `
(` + "`--ui-port`, `8233`" + `) choose Temporal's ports. Without ` + "`CLOSEOUT_APPS`" + ` there is one app, 1, with the secret ` + "`secret`" + `.

## Others

` + "`GOGC`, `GOMEMLIMIT` and `GOMAXPROCS`" + ` are Go's. The default of ` + "`GOGC`" + ` is 50, so that the garbage of a burst needs less memory.

` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + ` and OpenTelemetry's other variables turn on traces: see [telemetry](telemetry.md#traces).
`)
	return b.String()
}
