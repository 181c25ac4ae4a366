// Package config reads Closeout's settings from flags and the environment, and checks them all before anything starts.
package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/recordings"
)

// Config holds the settings, checked and with their defaults. The table in settings.go describes each.
type Config struct {
	// Apps and ServerSecrets are the secrets of each app, the current one first.
	Apps, ServerSecrets map[uint32][]string

	Listen, AdminListen string
	TLSCert, TLSKey     string
	CallbackToken       string
	CallbackWindow      time.Duration // 0 accepts any
	IdleTimeout         time.Duration
	Participants        bool

	// Data is an absolute path.
	Data                      string
	DatabaseURL               string
	RecordingsURL, ArchiveURL string
	MakeBuckets               bool

	ArchiveTransfers                int
	ArchiveClass, ArchiveEncryption string
	ArchiveTags                     map[string]string
	RecordingsHosts                 []string // none accepts any public address
	DeleteRecordings                bool
	Recordings                      Recordings

	BillingURL, BillingToken              string
	Prices                                metering.Prices
	MissingWait                           time.Duration
	Exclude                               metering.Rules
	MaxBill                               int64 // in minutes; 0 is no limit
	MaxRoomLife                           time.Duration
	Settling                              time.Duration
	ServerAPI, RecordingAPI, AnalyticsAPI string
	TestApps                              []uint32
	OverdueAfter                          time.Duration
	ReconcileEvery                        time.Duration // 0 is never

	TaskQueue               string
	DeploymentName, BuildID string
	AppWeights              map[uint32]float32 // 1 for other apps
	Retention               time.Duration
	UIURL                   string
	PayloadKeys             codec.Keys
	CodecListen, CodecToken string
	// Temporal says how to connect. TemporalCert and TemporalKey are the files of its client certificate, if any.
	Temporal                  client.Options
	TemporalCert, TemporalKey string

	StopTimeout, DrainTimeout time.Duration
	LogLevel                  slog.Level
	LogFormat                 string
	// Traces reports whether OpenTelemetry's own variables switch traces on.
	Traces bool
	// SecretFiles are the files that secrets were read from, and private keys.
	SecretFiles []SecretFile
}

// Recordings says how to know that a session's recordings are complete.
type Recordings struct {
	// Expected is "none", "callback" or "bucket".
	Expected string
	Prefix   recordings.Prefix
	recordings.Rules
}

// SecretFile is a file that holds a secret, and the setting that names it.
type SecretFile struct{ Setting, Path string }

// Inbox returns the folder of the callbacks for Temporal.
func (c *Config) Inbox() string { return filepath.Join(c.Data, "inbox") }

// EventInbox returns the folder of the callbacks for the ledger.
func (c *Config) EventInbox() string { return filepath.Join(c.Data, "events") }

// LookFile returns the file of the newest look into the ledger. Another ledger has another.
func (c *Config) LookFile() string {
	name := c.DatabaseURL
	if u, err := url.Parse(name); err == nil {
		u.User = nil // whose password may be replaced
		name = u.String()
	}
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(c.Data, "ledger-look-"+hex.EncodeToString(sum[:4])+".json")
}

// LedgerInData reports whether the ledger is the one in the data folder.
func (c *Config) LedgerInData() bool { return c.DatabaseURL == ledgerIn(c.Data) }

func ledgerIn(data string) string { return "sqlite:" + filepath.Join(data, "ledger.db") }

// ArchiveOptions returns how to archive recordings.
func (c *Config) ArchiveOptions() archive.Options {
	return archive.Options{
		SourceURL: c.RecordingsURL, ArchiveURL: c.ArchiveURL, Transfers: c.ArchiveTransfers,
		Hosts: c.RecordingsHosts, Class: c.ArchiveClass, Encryption: c.ArchiveEncryption, Tags: c.ArchiveTags, DeleteSources: c.DeleteRecordings,
	}
}

// Load reads the settings: those that flag knows by their flag, else from the environment. The error names every
// setting that is wrong. CLOSEOUT_APPS is required if apps is set.
func Load(flag func(name string) (string, bool), apps bool) (*Config, error) {
	c := &Config{}
	var faults []error
	for _, s := range c.settings() {
		value, name, err := s.find(flag)
		if file := s.file(flag); file != "" {
			c.SecretFiles = append(c.SecretFiles, SecretFile{s.Env + "_FILE", file})
		}
		if err == nil && value != "" {
			err = s.set(value)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		} else if apps && s.Env == "CLOSEOUT_APPS" && value == "" {
			faults = append(faults, errors.New("CLOSEOUT_APPS: missing, want appid=secret, as in CLOSEOUT_APPS='1234567890=your-callback-secret'"))
		}
	}
	c.DatabaseURL = cmp.Or(c.DatabaseURL, ledgerIn(c.Data))
	c.RecordingsURL = cmp.Or(c.RecordingsURL, folderURL(c.Data, "recordings"))
	c.ArchiveURL = cmp.Or(c.ArchiveURL, folderURL(c.Data, "archive"))

	faults = append(faults, c.check()...)
	var err error
	if err = c.loadTemporal(); err != nil {
		faults = append(faults, fmt.Errorf("TEMPORAL_*: %w", err))
	}
	for _, key := range []SecretFile{{"CLOSEOUT_TLS_KEY", c.TLSKey}, {"TEMPORAL_TLS_CLIENT_KEY_PATH", c.TemporalKey}} {
		if key.Path != "" {
			c.SecretFiles = append(c.SecretFiles, key)
		}
	}
	if c.Traces, err = traces(); err != nil {
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}

// check returns what is wrong with settings together.
func (c *Config) check() (faults []error) {
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	err := archive.Apart(c.RecordingsURL, c.ArchiveURL) // archived files would be found as recordings
	fault(err != nil, "CLOSEOUT_ARCHIVE_URL: %w", err)
	err = c.ArchiveOptions().Check()
	fault(err != nil, "CLOSEOUT_ARCHIVE_CLASS, CLOSEOUT_ARCHIVE_ENCRYPTION, CLOSEOUT_ARCHIVE_TAGS: %w", err)
	r := c.Recordings
	fault(c.DeleteRecordings && r.Expected != "none" && r.Prefix.AppFolder(1) == "",
		"CLOSEOUT_RECORDINGS_DELETE: found on together with a CLOSEOUT_RECORDINGS_PREFIX that several apps may share, want {{.appid}}/ in it, as recordings are deleted only below a folder of their app")
	fault(r.Expected == "callback" && !c.Participants,
		"CLOSEOUT_RECORDINGS: found callback together with CLOSEOUT_PARTICIPANTS=off, want it on, which stores recording callbacks as well, or bucket")
	fault(r.Deadline != 0 && (r.Grace > r.Deadline || r.Stable > r.Deadline),
		"CLOSEOUT_RECORDINGS_DEADLINE: found %v, want no less than CLOSEOUT_RECORDINGS_GRACE (%v) and CLOSEOUT_RECORDINGS_STABLE (%v)", r.Deadline, r.Grace, r.Stable)
	fault((c.TLSCert == "") != (c.TLSKey == ""), "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: found one of the two, want both or none")
	fault((c.DeploymentName == "") != (c.BuildID == ""), "TEMPORAL_DEPLOYMENT_NAME, TEMPORAL_WORKER_BUILD_ID: found one of the two, want both or none")
	return faults
}

// loadTemporal reads the settings of Temporal's client.
func (c *Config) loadTemporal() error {
	defer func() {
		c.Temporal.HostPort = cmp.Or(c.Temporal.HostPort, client.DefaultHostPort)
		c.Temporal.Namespace = cmp.Or(c.Temporal.Namespace, client.DefaultNamespace)
	}()
	profile, err := envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{})
	if err != nil {
		return err
	}
	if tls := profile.TLS; tls != nil && !tls.Disabled {
		c.TemporalCert, c.TemporalKey = tls.ClientCertPath, tls.ClientKeyPath
	}
	c.Temporal, err = profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	return err
}

// file returns the file that a secret is in, or "".
func (s Setting) file(flag func(string) (string, bool)) string {
	if !s.Secret {
		return ""
	}
	if v, ok := flag(s.Flag() + "-file"); ok {
		return v
	}
	return os.Getenv(s.Env + "_FILE")
}

// find returns the setting's value, and the name of where it came from.
func (s Setting) find(flag func(string) (string, bool)) (value, name string, err error) {
	if v, ok := flag(s.Flag()); ok {
		return v, "--" + s.Flag(), nil
	}
	value = os.Getenv(s.Env)
	file := s.file(flag)
	switch {
	case file == "":
		return cmp.Or(value, s.Default), s.Env, nil
	case value != "":
		return "", s.Env, fmt.Errorf("set together with %s_FILE, want one of the two", s.Env)
	}
	value, err = readSecret(file)
	return value, s.Env + "_FILE", err
}

func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	// Editors on Windows add byte order marks.
	if bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		return "", fmt.Errorf("%s is in UTF-16, want UTF-8", file)
	}
	value := strings.TrimSpace(strings.TrimPrefix(string(b), "\ufeff"))
	if value == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return value, nil
}

// traces reports whether OpenTelemetry's own variables name an exporter of traces, or an endpoint. It checks what the
// exporter would ignore, or report late.
func traces() (bool, error) {
	const all, ours = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return false, nil
	case exporter == "" && os.Getenv(all) == "" && os.Getenv(ours) == "":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: %w", found(exporter, "otlp or none"))
	}
	var faults []error
	for _, name := range []string{all, ours} {
		if v := os.Getenv(name); v != "" {
			if err := checkScheme(v, "http", "https"); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	protocol := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" // overrides the general one
	if os.Getenv(protocol) == "" {
		protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	if v := os.Getenv(protocol); v != "" && v != "http/protobuf" {
		faults = append(faults, fmt.Errorf("%s: %w", protocol, found(v, "http/protobuf, which collectors take at port 4318")))
	}
	return true, errors.Join(faults...)
}

// folderURL returns the URL of a bucket in the data folder.
func folderURL(data, name string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(data, name)), RawQuery: "create_dir=true"}
	return u.String()
}

// LogValue implements [slog.LogValuer]. It shows no secret, and of URLs only the scheme and the host.
func (c *Config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Any("apps", slices.Sorted(maps.Keys(c.Apps))),
		slog.String("listen", c.Listen),
		slog.String("admin_listen", c.AdminListen),
		slog.String("tls_cert", c.TLSCert),
		slog.Bool("callback_token", c.CallbackToken != ""),
		slog.String("data", c.Data),
		slog.String("database", Where(c.DatabaseURL)),
		slog.Bool("participants", c.Participants),
		slog.String("recordings", Where(c.RecordingsURL)),
		slog.String("archive", Where(c.ArchiveURL)),
		slog.String("recordings_expected", c.Recordings.Expected),
		slog.String("billing", Where(c.BillingURL)),
		slog.Duration("settling", c.Settling),
		slog.Any("server_secrets", slices.Sorted(maps.Keys(c.ServerSecrets))),
		slog.Duration("reconcile_interval", c.ReconcileEvery),
		slog.String("temporal", c.Temporal.HostPort),
		slog.String("namespace", c.Temporal.Namespace),
		slog.String("task_queue", c.TaskQueue),
		slog.String("deployment", c.DeploymentName),
		slog.String("build_id", c.BuildID),
		slog.Any("payload_keys", c.PayloadKeys.Names()),
		slog.Bool("traces", c.Traces),
	)
}

// Where returns what may be shown of a URL: the path of what is on this machine, otherwise the scheme and the host.
func Where(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || rawURL == "" {
		return ""
	}
	if u.Host == "" || u.Scheme == "file" || u.Scheme == "sqlite" {
		return cmp.Or(u.Opaque, u.Path)
	}
	return u.Scheme + "://" + u.Host
}
