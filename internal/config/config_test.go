package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
)

// load loads a configuration with only these settings in the environment.
func load(t *testing.T, env, flags map[string]string, apps bool) (*config.Config, error) {
	t.Helper()
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "CLOSEOUT_") || strings.HasPrefix(name, "TEMPORAL_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("TEMPORAL_CONFIG_FILE", filepath.Join(t.TempDir(), "none.toml"))
	for name, value := range env {
		t.Setenv(name, value)
	}
	return config.Load(func(name string) (string, bool) { v, ok := flags[name]; return v, ok }, apps)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, map[string]string{"CLOSEOUT_APPS": "1=secret"}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	data, err := filepath.Abs("data")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":8080" || c.AdminListen != "127.0.0.1:9090" || c.CallbackWindow != 10*time.Minute || c.Data != data ||
		c.DatabaseURL != "sqlite:"+filepath.Join(data, "ledger.db") || c.BillingURL != "" || c.TaskQueue != "closeout" ||
		!strings.HasPrefix(c.RecordingsURL, "file://"+data+"/recordings?") || !strings.HasPrefix(c.ArchiveURL, "file://"+data+"/archive?") ||
		c.Temporal.HostPort != "localhost:7233" || c.Temporal.Namespace != "default" {
		t.Errorf("defaults %+v", c)
	}
}

func TestApps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "apps")
	if err := os.WriteFile(file, []byte("# the apps\n1 = secret, older\r\n\n4294967295=with=sign\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	marked := filepath.Join(t.TempDir(), "marked")
	if err := os.WriteFile(marked, []byte("\ufeff1=secret\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		env, flags map[string]string
		want       map[uint32][]string
	}{
		{"one", map[string]string{"CLOSEOUT_APPS": "1=secret"}, nil, map[uint32][]string{1: {"secret"}}},
		{"several", map[string]string{"CLOSEOUT_APPS": "1=secret,older; 2=b;"}, nil, map[uint32][]string{1: {"secret", "older"}, 2: {"b"}}},
		{"file with a BOM", map[string]string{"CLOSEOUT_APPS_FILE": marked}, nil, map[uint32][]string{1: {"secret"}}},
		{"file", map[string]string{"CLOSEOUT_APPS_FILE": file}, nil, map[uint32][]string{1: {"secret", "older"}, 4294967295: {"with=sign"}}},
		{"flag over environment", map[string]string{"CLOSEOUT_APPS": "1=secret"}, map[string]string{"apps": "2=b"}, map[uint32][]string{2: {"b"}}},
		{"file by flag", nil, map[string]string{"apps-file": file}, map[uint32][]string{1: {"secret", "older"}, 4294967295: {"with=sign"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, tt.env, tt.flags, true)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(c.Apps, tt.want) {
				t.Errorf("apps %v, want %v", c.Apps, tt.want)
			}
		})
	}
}

// The error has every fault, with the setting's name as the user set it, a valid value and no
// secret.
func TestFaults(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	utf16 := filepath.Join(t.TempDir(), "utf16")
	if err := os.WriteFile(utf16, []byte("\xff\xfe1\x00=\x00a\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		env, flags map[string]string
		want       []string
	}{
		{"nothing", nil, nil, []string{"CLOSEOUT_APPS: missing, want appid=secret"}},
		{"all at once", map[string]string{
			"CLOSEOUT_APPS": "hunter2", "CLOSEOUT_LISTEN": "8080", "CLOSEOUT_ADMIN_LISTEN": "localhost:http:80", "CLOSEOUT_CALLBACK_TOKEN": "hunter2",
			"CLOSEOUT_CALLBACK_WINDOW": "10", "CLOSEOUT_DATABASE_URL": "mysql://root:hunter2@db/x", "CLOSEOUT_RECORDINGS_URL": "ftp://x", "CLOSEOUT_ARCHIVE_URL": "/srv",
			"CLOSEOUT_BILLING_URL": "billing:80", "CLOSEOUT_MAKE_BUCKETS": "yes", "CLOSEOUT_RETENTION": "1h", "CLOSEOUT_STOP_TIMEOUT": "-1s", "CLOSEOUT_LOG_LEVEL": "loud", "CLOSEOUT_LOG_FORMAT": "xml",
		}, nil, []string{
			"CLOSEOUT_APPS: entry 1: doesn't begin with an appid", `CLOSEOUT_LISTEN: found "8080"`, "CLOSEOUT_ADMIN_LISTEN: found", "CLOSEOUT_CALLBACK_TOKEN: want at least 8",
			`CLOSEOUT_CALLBACK_WINDOW: found "10"`, "CLOSEOUT_DATABASE_URL: not a URL with one of the schemes postgres, ", "CLOSEOUT_RECORDINGS_URL: not", "CLOSEOUT_ARCHIVE_URL: not",
			"CLOSEOUT_BILLING_URL: not", `CLOSEOUT_MAKE_BUCKETS: found "yes", want on or off`, `CLOSEOUT_RETENTION: found "1h", want at least 24h`, `CLOSEOUT_STOP_TIMEOUT: found "-1s"`, `CLOSEOUT_LOG_LEVEL: found "loud"`, `CLOSEOUT_LOG_FORMAT: found "xml"`,
		}},
		{"window too short", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_CALLBACK_WINDOW": "10ms"}, nil, []string{`CLOSEOUT_CALLBACK_WINDOW: found "10ms", want 0 or at least 1s`}},
		{"by flag", map[string]string{"CLOSEOUT_APPS": "1=a"}, map[string]string{"listen": "x"}, []string{`--listen: found "x"`}},
		{"apps", map[string]string{"CLOSEOUT_APPS": "1=a;1=b;2=;3=a,,b;x=hunter2"}, nil,
			[]string{"entry 2: app 1 is there twice", "entry 3: app 2 has an empty secret", "entry 4: app 3 has an empty secret", "entry 5: doesn't begin"}},
		{"no app in it", map[string]string{"CLOSEOUT_APPS": ";"}, nil, []string{"CLOSEOUT_APPS: no app in it"}},
		{"both", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_APPS_FILE": empty}, nil, []string{"CLOSEOUT_APPS: set together with CLOSEOUT_APPS_FILE"}},
		{"one bucket for both", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_RECORDINGS_URL": "s3://b", "CLOSEOUT_ARCHIVE_URL": "s3://b"}, nil,
			[]string{"CLOSEOUT_ARCHIVE_URL: the same as CLOSEOUT_RECORDINGS_URL"}},
		{"one bucket for both, with other options", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_RECORDINGS_URL": "s3://b?endpoint=http://s&prefix=p/&region=x",
			"CLOSEOUT_ARCHIVE_URL": "s3://b?region=x&prefix=p/&ssetype=AES256&endpoint=http://s"}, nil, []string{"CLOSEOUT_ARCHIVE_URL: the same as CLOSEOUT_RECORDINGS_URL"}},
		{"one folder for both, with other options", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_RECORDINGS_URL": "file:///srv/both/", "CLOSEOUT_ARCHIVE_URL": "file:///srv/both?create_dir=true"}, nil,
			[]string{"CLOSEOUT_ARCHIVE_URL: the same as CLOSEOUT_RECORDINGS_URL"}},
		{"what a folder hasn't", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_ARCHIVE_CLASS": "GLACIER", "CLOSEOUT_ARCHIVE_ENCRYPTION": "AES256", "CLOSEOUT_ARCHIVE_TAGS": "a=b"}, nil,
			[]string{`CLOSEOUT_ARCHIVE_CLASS, CLOSEOUT_ARCHIVE_ENCRYPTION, CLOSEOUT_ARCHIVE_TAGS: found "GLACIER", but a folder has no storage classes, want none`,
				`found "AES256", but a folder has no encryption`, `found "a=b", but a folder has no tags`}},
		{"what S3 doesn't know", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_ARCHIVE_URL": "s3://b", "CLOSEOUT_ARCHIVE_ENCRYPTION": "rot13"}, nil, []string{`found the encryption "rot13", want AES256`}},
		{"of the archive", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_ARCHIVE_TRANSFERS": "0", "CLOSEOUT_ARCHIVE_TAGS": "a", "CLOSEOUT_RECORDINGS_DELETE": "maybe"}, nil,
			[]string{`CLOSEOUT_ARCHIVE_TRANSFERS: found "0", want a number from 1 to 64`, `CLOSEOUT_ARCHIVE_TAGS: found "a", want name=value`, `CLOSEOUT_RECORDINGS_DELETE: found "maybe"`}},
		{"UTF-16", map[string]string{"CLOSEOUT_APPS_FILE": utf16}, nil, []string{"CLOSEOUT_APPS_FILE: " + utf16 + " is in UTF-16, want UTF-8"}},
		{"deleting what apps may share", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_RECORDINGS_DELETE": "true", "CLOSEOUT_RECORDINGS": "bucket", "CLOSEOUT_RECORDINGS_PREFIX": "zego/{{.room_id}}/"}, nil,
			[]string{"CLOSEOUT_RECORDINGS_DELETE: found on together with a CLOSEOUT_RECORDINGS_PREFIX that several apps may share, want {{.appid}}/ in it"}},
		{"empty file", map[string]string{"CLOSEOUT_APPS_FILE": empty}, nil, []string{"CLOSEOUT_APPS_FILE: " + empty + " is empty"}},
		{"no such file", map[string]string{"CLOSEOUT_APPS_FILE": empty + "2"}, nil, []string{"CLOSEOUT_APPS_FILE: read the secret: open " + empty + "2"}},
		{"a deployment and no build", map[string]string{"CLOSEOUT_APPS": "1=a", "TEMPORAL_DEPLOYMENT_NAME": "closeout"}, nil,
			[]string{"TEMPORAL_DEPLOYMENT_NAME, TEMPORAL_WORKER_BUILD_ID: found one of the two, want both or none"}},
		{"a build and no deployment", map[string]string{"CLOSEOUT_APPS": "1=a"}, map[string]string{"temporal-worker-build-id": "1.4.2"},
			[]string{"TEMPORAL_DEPLOYMENT_NAME, TEMPORAL_WORKER_BUILD_ID: found one of the two, want both or none"}},
		{"a certificate and no key", map[string]string{"CLOSEOUT_APPS": "1=a", "CLOSEOUT_TLS_CERT": "cert.pem"}, nil,
			[]string{"CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: found one of the two, want both or none"}},
		{"a key and no certificate", map[string]string{"CLOSEOUT_APPS": "1=a"}, map[string]string{"tls-key": "key.pem"},
			[]string{"CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: found one of the two, want both or none"}},
		{"a dot in a deployment's name", map[string]string{"CLOSEOUT_APPS": "1=a", "TEMPORAL_DEPLOYMENT_NAME": "close.out", "TEMPORAL_WORKER_BUILD_ID": "1"}, nil,
			[]string{`TEMPORAL_DEPLOYMENT_NAME: found "close.out", want no '.' and no ':' in it`}},
		{"a colon in a deployment's name", map[string]string{"CLOSEOUT_APPS": "1=a", "TEMPORAL_WORKER_BUILD_ID": "1"}, map[string]string{"temporal-deployment-name": "close:out"},
			[]string{`--temporal-deployment-name: found "close:out", want no '.' and no ':' in it`}},
		{"Temporal's", map[string]string{"CLOSEOUT_APPS": "1=a", "TEMPORAL_TLS_CLIENT_CERT_PATH": "/no/such.pem"}, nil, []string{"TEMPORAL_*: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.env, tt.flags, true)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret:\n%v", err)
			}
		})
	}
}

func TestArchiveOptions(t *testing.T) {
	c, err := load(t, map[string]string{
		"CLOSEOUT_RECORDINGS_URL": "s3://from", "CLOSEOUT_ARCHIVE_URL": "s3://to", "CLOSEOUT_ARCHIVE_CLASS": "STANDARD_IA", "CLOSEOUT_ARCHIVE_ENCRYPTION": "aws:kms=k",
		"CLOSEOUT_ARCHIVE_TAGS": "team=voice, kept=7y", "CLOSEOUT_RECORDINGS_DELETE": "true",
	}, nil, false)
	want := archive.Options{SourceURL: "s3://from", ArchiveURL: "s3://to", Transfers: 4, Class: "STANDARD_IA", Encryption: "aws:kms=k",
		Tags: map[string]string{"team": "voice", "kept": "7y"}, DeleteSources: true}
	if got := c.ArchiveOptions(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("options %+v, want %+v, error %v", got, want, err)
	}
}

// A build ID may be any text. Often it is a version such as v1.4.2 or a commit.
func TestDeployment(t *testing.T) {
	c, err := load(t, map[string]string{"TEMPORAL_DEPLOYMENT_NAME": "close-out", "TEMPORAL_WORKER_BUILD_ID": "v1.4.2"}, nil, false)
	if err != nil || c.DeploymentName != "close-out" || c.BuildID != "v1.4.2" {
		t.Errorf("%q, %q, %v", c.DeploymentName, c.BuildID, err)
	}
	if c, err = load(t, nil, nil, false); err != nil || c.DeploymentName != "" || c.BuildID != "" {
		t.Errorf("unset: %q, %q, %v", c.DeploymentName, c.BuildID, err)
	}
}

func TestLogShowsNoSecret(t *testing.T) {
	c, err := load(t, map[string]string{
		"CLOSEOUT_APPS": "1=hunter2", "CLOSEOUT_CALLBACK_TOKEN": "hunter2hunter2", "CLOSEOUT_DATABASE_URL": "postgres://u:hunter2@db.example/x?password=hunter2",
		"CLOSEOUT_BILLING_URL": "https://u:hunter2@billing.example/hunter2", "CLOSEOUT_BILLING_TOKEN": "hunter2", "CLOSEOUT_ARCHIVE_URL": "s3://bucket?region=hunter2",
		"TEMPORAL_API_KEY": "hunter2",
	}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("settings", "settings", c)
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("the log shows a secret: %s", b.String())
	}
	for _, want := range []string{"apps=[1]", "postgres://db.example", "https://billing.example", "s3://bucket", "callback_token=true"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the log lacks %s: %s", want, b.String())
		}
	}
}

func TestAppsAreNotRequiredByAllCommands(t *testing.T) {
	if _, err := load(t, nil, nil, false); err != nil {
		t.Error(err)
	}
}

func TestRecordings(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"CLOSEOUT_RECORDINGS": "callback"}, ""},
		{map[string]string{"CLOSEOUT_RECORDINGS": "bucket", "CLOSEOUT_PARTICIPANTS": "off", "CLOSEOUT_RECORDINGS_PREFIX": "zego/{{.room_id}}/"}, ""},
		{map[string]string{"CLOSEOUT_RECORDINGS": "yes"}, `CLOSEOUT_RECORDINGS: found "yes", want none, callback or bucket`},
		{map[string]string{"CLOSEOUT_RECORDINGS": "callback", "CLOSEOUT_PARTICIPANTS": "off"}, "found callback together with CLOSEOUT_PARTICIPANTS=off"},
		{map[string]string{"CLOSEOUT_RECORDINGS_PREFIX": "{{.RoomID}}"}, `CLOSEOUT_RECORDINGS_PREFIX: found "{{.RoomID}}", want a template of appid, room_id and room_session_id`},
		{map[string]string{"CLOSEOUT_RECORDINGS_DEADLINE": "1m"}, "CLOSEOUT_RECORDINGS_DEADLINE: found 1m0s, want no less than CLOSEOUT_RECORDINGS_GRACE (2m0s)"},
		{map[string]string{"CLOSEOUT_RECORDINGS_DEADLINE": "400h"}, "want 1s to 336h"},
		{map[string]string{"CLOSEOUT_RECORDINGS_POLL": "1ms"}, "want 1s to 15m"},
	}
	for _, test := range tests {
		_, err := load(t, test.env, nil, false)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: %v, want %q", test.env, err, test.want)
		}
	}
}
