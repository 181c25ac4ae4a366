package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/closeouthq/closeout/dev/server"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/workflows"
)

// Against a Temporal that requires a client certificate, a session is closed out with
// settings from the environment and from a profile. Errors in the settings name what was
// found and what would do.
func TestMutualTLS(t *testing.T) {
	authority, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	serverCert, serverKey := authority.Issue(t, testenv.For("temporal.example.com", time.Hour))
	cert, key := authority.Issue(t, testenv.For("closeout", time.Hour))
	othersCert, othersKey := other.Issue(t, testenv.For("closeout", time.Hour))
	secured, err := server.Start(t.Context(), server.Options{
		Dir: t.TempDir(), UIPort: -1, Logger: quiet, TLS: &server.TLS{Cert: serverCert, Key: serverKey, CA: authority.Cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secured.Stop() }()

	good := map[string]string{
		"TEMPORAL_ADDRESS": secured.Address(), "TEMPORAL_TLS_SERVER_NAME": "temporal.example.com", "TEMPORAL_TLS_SERVER_CA_CERT_PATH": authority.Cert,
		"TEMPORAL_TLS_CLIENT_CERT_PATH": cert, "TEMPORAL_TLS_CLIENT_KEY_PATH": key,
	}
	closesOut := func(t *testing.T) {
		c := settings(t, nil)
		var err error
		if c.Temporal, err = envconfig.LoadDefaultClientOptions(); err != nil {
			t.Fatal(err)
		}
		c.Temporal.Namespace = client.DefaultNamespace
		setUp(t, c)
		address := start(t, c, both)
		closed := newClose()
		if a := post(t, address, closed); a.code != 200 {
			t.Fatalf("answer %+v", a)
		}
		if r := result(t, dial(t, c), closed); r.State != workflows.StateDone {
			t.Errorf("result %+v", r)
		}
	}
	t.Run("by the environment", func(t *testing.T) {
		for name, value := range good {
			t.Setenv(name, value)
		}
		closesOut(t)
	})
	t.Run("by a profile", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "temporal.toml")
		text := fmt.Sprintf("[profile.prod]\naddress = %q\n[profile.prod.tls]\nserver_name = 'temporal.example.com'\nserver_ca_cert_path = %q\nclient_cert_path = %q\nclient_key_path = %q\n",
			secured.Address(), authority.Cert, cert, key)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TEMPORAL_CONFIG_FILE", file)
		t.Setenv("TEMPORAL_PROFILE", "prod")
		closesOut(t)
	})

	doctor := func(t *testing.T) string {
		var out lines
		run(t.Context(), []string{"dev", "doctor", "--data", t.TempDir(), "--admin-listen", "127.0.0.1:1"}, &out, &out)
		line, _, _ := strings.Cut(out.String()[strings.Index(out.String(), "temporal "):], "\n")
		return line
	}
	for _, tt := range []struct {
		name   string
		change map[string]string // an empty value unsets it
		want   []string
	}{
		{"good", nil, []string{"answers, with TLS"}},
		{"no TLS", map[string]string{"TEMPORAL_TLS_SERVER_NAME": "", "TEMPORAL_TLS_SERVER_CA_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""},
			[]string{"can't be reached, without TLS", "TEMPORAL_TLS=true"}},
		{"no client certificate", map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""},
			[]string{"certificate required", "Temporal wants a client certificate: TEMPORAL_TLS_CLIENT_CERT_PATH"}},
		{"a client certificate of another authority", map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": othersCert, "TEMPORAL_TLS_CLIENT_KEY_PATH": othersKey},
			[]string{"Temporal refuses our client certificate"}},
		{"another authority", map[string]string{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": other.Cert}, []string{"x509: ", "→ TEMPORAL_TLS_SERVER_CA_CERT_PATH must name"}},
		{"the machine's authorities", map[string]string{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, []string{"signed by unknown authority", "→ TEMPORAL_TLS_SERVER_CA_CERT_PATH must name"}},
		{"another name", map[string]string{"TEMPORAL_TLS_SERVER_NAME": "temporal.example.org"}, []string{"not temporal.example.org", "→ TEMPORAL_TLS_SERVER_NAME must be a name"}},
		{"no name", map[string]string{"TEMPORAL_TLS_SERVER_NAME": ""}, []string{"→ TEMPORAL_TLS_SERVER_NAME must be a name"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range good {
				if changed, ok := tt.change[name]; ok {
					value = changed
				}
				t.Setenv(name, value)
				if value == "" {
					os.Unsetenv(name)
				}
			}
			line := doctor(t)
			for _, want := range tt.want {
				if !strings.Contains(line, want) {
					t.Errorf("without %q: %s", want, line)
				}
			}
			if strings.Contains(line, "PRIVATE KEY") {
				t.Errorf("it shows a key: %s", line)
			}
		})
	}
}
