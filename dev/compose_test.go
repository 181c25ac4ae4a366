package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// The guarantees of the compose file: no port is open to other machines, images are
// pinned, secrets are files, and our containers have minimal privileges.
func TestComposeFile(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Image       string
			Build       any
			Ports       []string
			Secrets     []string
			Volumes     []string
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Environment map[string]string
			MemLimit    string `yaml:"mem_limit"`
			Logging     struct{ Options map[string]string }
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var built []string
	pinned := regexp.MustCompile(`^[a-z/-]+:v?\d+[\w.-]*$`)
	for name, s := range file.Services {
		ours := s.Image == "closeout:local"
		if s.Build != nil {
			built = append(built, name)
		}
		if !ours && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q isn't pinned", name, s.Image)
		}
		if ours && (!s.ReadOnly || strings.Join(s.CapDrop, "") != "ALL" || len(s.SecurityOpt) == 0) {
			t.Errorf("%s may do more than it needs", name)
		}
		if s.MemLimit == "" || s.Logging.Options["max-size"] == "" || s.Logging.Options["max-file"] == "" {
			t.Errorf("%s: its memory or its log has no limit", name)
		}
		if soft := s.Environment["GOMEMLIMIT"]; ours && name != "setup" && !nineTenths(t, soft, s.MemLimit) {
			t.Errorf("%s: GOMEMLIMIT is %q and the limit %s, want nine tenths of it", name, soft, s.MemLimit)
		}
		if _, traced := s.Environment["OTEL_EXPORTER_OTLP_ENDPOINT"]; ours && !traced {
			t.Errorf("%s: traces can't be switched on", name)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") || ours && strings.HasSuffix(port, ":9090") {
				t.Errorf("%s: port %q is open to others", name, port)
			}
		}
		for variable, value := range s.Environment {
			if regexp.MustCompile(`SECRET|PASSWORD|PWD|APPS|TOKEN`).MatchString(variable) && !strings.HasPrefix(value, "/run/secrets/") {
				t.Errorf("%s: %s is a secret and not in a file", name, variable)
			}
		}
		for _, secret := range s.Secrets {
			if file.Secrets[secret].File == "" {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, named := file.Volumes[from]; !named && !inAClone(t, from) {
				t.Errorf("%s: there is no volume %s", name, from)
			}
		}
	}
	// The tested images are the pinned ones.
	mod := read(t, "go.mod")
	for service, module := range map[string]string{"temporal": "go.temporal.io/server v", "temporal-schema": "go.temporal.io/server v", "temporal-ui": "github.com/temporalio/ui-server/v2 v"} {
		_, tag, _ := strings.Cut(file.Services[service].Image, ":")
		if !strings.Contains(mod, module+tag+"\n") {
			t.Errorf("%s: image %q is another version than go.mod's %s", service, file.Services[service].Image, module)
		}
	}
	if len(built) != 1 || file.Services[built[0]].Image != "closeout:local" {
		t.Errorf("%q are built, want one for all: each would have an image of its own by the same name", built)
	}
	for name, secret := range file.Secrets {
		if path := strings.Replace(secret.File, "${CLOSEOUT_SECRETS:-./deploy/compose}", "./deploy/compose", 1); !inAClone(t, path) {
			t.Errorf("secret %s: there is no file %s", name, path)
		}
	}
}

// nineTenths reports whether a GOMEMLIMIT is nine tenths of a memory limit in Compose,
// within one percent.
func nineTenths(t *testing.T, soft, limit string) bool {
	t.Helper()
	mebibytes := func(text string, units map[string]float64) float64 {
		for unit, factor := range units {
			if number, err := strconv.ParseFloat(strings.TrimSuffix(text, unit), 64); strings.HasSuffix(text, unit) && err == nil {
				return number * factor
			}
		}
		return 0
	}
	share := mebibytes(soft, map[string]float64{"MiB": 1, "GiB": 1024}) / mebibytes(limit, map[string]float64{"m": 1, "g": 1024})
	return share > .89 && share < .91
}

// .env.example has every variable of the stack, with its default.
func TestEnvExampleHasEveryVariable(t *testing.T) {
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`\$\{(\w+):-([^}]+)\}`).FindAllStringSubmatch(read(t, "../docker-compose.yml"), -1) {
		want[m[1]] = m[2]
	}
	got := map[string]string{}
	for line := range strings.Lines(read(t, "../.env.example")) {
		if name, value, set := strings.Cut(strings.TrimSpace(line), "="); set && !strings.HasPrefix(name, "#") {
			got[name] = value
		}
	}
	if len(want) < 8 || !maps.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// The smoke test waits at least as long as a run takes.
func TestTheSmokeTestWaitsForTheBill(t *testing.T) {
	duration := func(file, pattern string) time.Duration {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindSubmatch(b)
		if found == nil {
			t.Fatalf("nothing in %s is like %s", file, pattern)
		}
		d, err := time.ParseDuration(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	settling := duration("docker-compose.yml", `CLOSEOUT_SETTLING: "\$\{CLOSEOUT_SETTLING:-(\w+)\}"`)
	// It also waits for the settling time of the stack.
	usual := duration(filepath.Join("docs", "configuration.md"), `(?s)## .CLOSEOUT_SETTLING.\n.*?Default: .(\w+).`)
	if wait := duration("Makefile", `status --wait (\w+) `); wait < max(settling, usual)+time.Minute {
		t.Errorf("it waits for %v, and a bill is made after %v, or %v", wait, settling, usual)
	}
}

// inAClone reports whether a clone of the repository has the file.
func inAClone(t *testing.T, path string) bool {
	t.Helper()
	if !strings.HasPrefix(path, "./") {
		return false
	}
	_, err := os.Stat(filepath.Join("..", path))
	return err == nil
}
