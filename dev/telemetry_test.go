package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	foundation "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// spans is a collector of traces.
type spans struct {
	*httptest.Server
	mu  sync.Mutex
	all []*tracepb.Span
}

func collect(t *testing.T) *spans {
	t.Helper()
	s := &spans{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/traces" {
			return // see ours
		}
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil {
			t.Errorf("spans: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, of := range request.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				s.all = append(s.all, scope.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // milliseconds
	return s
}

// ours reports whether a request comes from a step. In other tests, clients may still
// send to this port, which a killed webhook had.
func ours(r *http.Request) bool { return r.Header.Get("Idempotency-Key") != "" }

// named returns the spans with a name and an attribute.
func (s *spans) named(name, key, value string) (found []*tracepb.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.all {
		if span.Name == name && attributes(span)[key] == value {
			found = append(found, span)
		}
	}
	return found
}

// attributes returns the string attributes of a span.
func attributes(span *tracepb.Span) map[string]string {
	all := map[string]string{}
	for _, a := range span.Attributes {
		all[a.Key] = a.Value.GetStringValue()
	}
	return all
}

// One callback is one trace, from the webhook to the requests of the steps.
func TestOneCallbackIsOneTrace(t *testing.T) {
	traces := collect(t)
	var mu sync.Mutex
	var parents []string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if ours(r) {
			mu.Lock()
			defer mu.Unlock()
			parents = append(parents, r.Header.Get("Traceparent"))
		}
	}))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c)
	address := start(t, c, both)
	closed := newClose()
	if a := post(t, address, closed); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	result(t, dial(t, c), closed)
	if a := post(t, address, closed); a.Status != "duplicate" {
		t.Errorf("answer %+v", a)
	}
	forged := newClose()
	forged.Signature = strings.Repeat("0", 40)
	post(t, address, forged)

	// The spans with their parents. Spans of other callbacks have no child.
	for _, outcome := range []string{"started", "duplicate", "refused"} {
		wait(t, "there is a callback "+outcome, func() bool { return len(traces.named("callback", "outcome", outcome)) == 1 })
	}
	root := traces.named("callback", "outcome", "started")[0]
	if event := attributes(root)["event"]; event != "room_close" || len(root.ParentSpanId) != 0 {
		t.Errorf("callback %v", root)
	}
	id := session.Of(&closed).WorkflowID()
	above := map[string]string{
		"StartWorkflow:RoomClose":         "callback",
		"RunWorkflow:RoomClose":           "StartWorkflow:RoomClose",
		"StartActivity:FinalizeBill":      "RunWorkflow:RoomClose",
		"RunActivity:FinalizeBill":        "StartActivity:FinalizeBill",
		"POST the billing API":            "RunActivity:FinalizeBill",
		"StartActivity:ArchiveRecordings": "RunWorkflow:RoomClose",
		"RunActivity:ArchiveRecordings":   "StartActivity:ArchiveRecordings",
	}
	found := map[string]*tracepb.Span{"callback": root}
	for name := range above {
		key, value := "temporalWorkflowID", id
		if strings.HasPrefix(name, "POST") {
			key, value = "", ""
		}
		wait(t, "there is "+name, func() bool { return len(traces.named(name, key, value)) == 1 })
		found[name] = traces.named(name, key, value)[0]
	}
	for name, parent := range above {
		if string(found[name].ParentSpanId) != string(found[parent].SpanId) || string(found[name].TraceId) != string(root.TraceId) {
			t.Errorf("%s is not below %s", name, parent)
		}
	}
	last := found["POST the billing API"]
	mu.Lock()
	defer mu.Unlock()
	if want := fmt.Sprintf("00-%x-%x-01", last.TraceId, last.SpanId); !slices.Equal(parents, []string{want}) {
		t.Errorf("the billing API received %q, want %q", parents, want)
	}

	traces.mu.Lock()
	defer traces.mu.Unlock()
	for _, span := range traces.all {
		for _, private := range []string{closed.RoomID, closed.Signature, closed.Nonce, api.URL} {
			if strings.Contains(span.String(), private) {
				t.Errorf("%s contains %s: %v", span.Name, private, span)
			}
		}
	}
}

func TestTracesAreOffByDefault(t *testing.T) {
	traces := collect(t)
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	var mu sync.Mutex
	var parents []string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if ours(r) {
			mu.Lock()
			defer mu.Unlock()
			parents = append(parents, r.Header.Get("Traceparent"))
		}
	}))
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c)
	closed := newClose()
	post(t, start(t, c, both), closed)
	result(t, dial(t, c), closed)
	api.Close()
	if !slices.Equal(parents, []string{""}) || len(traces.all) != 0 {
		t.Errorf("the billing API received %q, the collector of %v", parents, traces.all)
	}
}

// exported makes a process produce all its metrics, and returns them.
func exported(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	var mu sync.Mutex
	bills := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch bills++; bills {
		case 1, 2: // the quick attempt and the first attempt of the Activity; the server dispatches the next
			w.WriteHeader(http.StatusServiceUnavailable)
		case 4:
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	t.Cleanup(api.Close)
	c := settings(t, map[string]string{"billing-url": api.URL, "admin-listen": "127.0.0.1:" + freePort(t)})
	parts := both
	parts.LogDropped = new(telemetry.Buffer).Dropped
	setUp(t, c)
	address := start(t, c, parts)
	temporalClient := dial(t, c)
	done, blocked := newClose(), newClose()
	record(t, c, done, "a.mp4", []byte("four"))
	post(t, address, done)
	result(t, temporalClient, done)
	post(t, address, blocked)
	wait(t, "a run is blocked", func() bool {
		return runs(t, temporalClient, "CloseoutState = 'blocked' AND WorkflowId = '"+session.Of(&blocked).WorkflowID()+"'") == 1
	})
	again := newClose()
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	key := session.Of(&again).IdempotencyKey(workflows.Billing.Name)
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: key, Session: session.Of(&again)}); err != nil {
		t.Fatal(err)
	}
	post(t, address, map[string]any{ // with an unreadable field
		"event": zego.EventRoomClose, "appid": again.AppID, "timestamp": again.Timestamp, "nonce": again.Nonce, "signature": again.Signature,
		"room_id": again.RoomID, "room_session_id": again.RoomSessionID, "close_reason": "kicked", "room_close_time": strconv.FormatInt(again.RoomCloseTime.UnixMilli(), 10),
	})
	result(t, temporalClient, again)
	// Store a comparison with ZEGO's counts. No app is compared without a server secret.
	if err := books.NoteComparison(t.Context(), ledger.Comparison{AppID: again.AppID, At: time.Now(), Rooms: 2, Users: 2, UnknownRooms: 1, UnknownUsers: 1}); err != nil {
		t.Fatal(err)
	}
	code, text := get(t, c, "/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// labels returns the labels of all series of a metric.
func labels(family *dto.MetricFamily) []string {
	all := map[string]bool{}
	for _, series := range family.Metric {
		for _, l := range series.Label {
			all[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

var (
	metricRow  = regexp.MustCompile("(?m)^\\| `(closeout_\\w+)` \\| (\\w+) \\|([^|]*)\\|")
	metricUsed = regexp.MustCompile(`\b((?:closeout|temporal|go|process)_\w+)(?:\{([^}]*)\})?`)
	labelUsed  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
)

// The documentation, the alerts and the dashboard use only metrics and labels that a
// running process has.
func TestMetricsMatchTheDocumentation(t *testing.T) {
	families := exported(t)
	// The metrics count what the process did.
	for name, want := range map[string]float64{`closeout_bills_total{outcome="made"}`: 2, `closeout_bills_total{outcome="found"}`: 3, `closeout_bills_total{outcome="posted"}`: 2, "closeout_archived_files_total": 1, "closeout_archived_bytes_total": 4} {
		name, label, _ := strings.Cut(name, "{")
		found := false
		for _, series := range families[name].GetMetric() {
			if of := series.Label; len(of) == 1 && label != of[0].GetName()+`="`+of[0].GetValue()+`"}` {
				continue
			}
			found = true
			if got := series.Counter.GetValue(); got != want {
				t.Errorf("%s{%s is %v, want %v", name, label, got, want)
			}
		}
		if !found {
			t.Errorf("there is no %s{%s", name, label)
		}
	}
	if n := families["closeout_runs_blocked"].GetMetric(); len(n) != 1 || n[0].Gauge.GetValue() < 1 {
		t.Errorf("closeout_runs_blocked %v", n)
	}
	if skew := families["closeout_callback_skew_seconds"].GetMetric(); len(skew) != 1 || skew[0].Histogram.GetSampleCount() != 3 {
		t.Errorf("closeout_callback_skew_seconds %v", skew)
	}

	documented := map[string]bool{}
	for _, row := range metricRow.FindAllStringSubmatch(read(t, "../docs/telemetry.md"), -1) {
		name, kind, of := row[1], row[2], strings.FieldsFunc(row[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		slices.Sort(of)
		documented[name] = true
		family := families[name]
		if family == nil {
			t.Errorf("docs/telemetry.md: there is no %s", name)
			continue
		}
		if is := strings.ToLower(family.GetType().String()); is != kind || !slices.Equal(labels(family), of) {
			t.Errorf("docs/telemetry.md: %s is a %s with labels %q, and said to be a %s with %q", name, is, labels(family), kind, of)
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "closeout_") && !documented[name] {
			t.Errorf("docs/telemetry.md lacks %s", name)
		}
	}

	used := map[string]string{} // expressions, by origin
	for _, r := range rules(t) {
		used[r.Expr] = "alert " + r.Alert
	}
	for _, p := range dashboard(t).Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			used[target.Expr] = "panel " + p.Title
		}
	}
	for expr, where := range used {
		for _, m := range metricUsed.FindAllStringSubmatch(expr, -1) {
			family := families[m[1]]
			if family == nil { // parts of a histogram
				name, _, _ := cutLast(m[1], "_")
				family = families[name]
			}
			if family == nil {
				t.Errorf("%s: there is no %s", where, m[1])
				continue
			}
			for _, l := range labelUsed.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "job" && l[1] != "instance" && !slices.Contains(labels(family), l[1]) {
					t.Errorf("%s: %s has no label %s", where, m[1], l[1])
				}
			}
		}
	}
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, "../deploy/prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatalf("rules %+v", file)
	}
	return file.Groups[0].Rules
}

type board struct {
	Panels []struct {
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func dashboard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "../deploy/grafana/closeout.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// Each alert links to instructions.
func TestAlertsLinkToInstructions(t *testing.T) {
	documentation := read(t, "../docs/telemetry.md")
	tests := read(t, "../deploy/prometheus/alerts_test.yml")
	for _, r := range rules(t) {
		page, there := strings.CutPrefix(r.Annotations["runbook_url"], "https://github.com/closeouthq/closeout/blob/main/")
		file, anchor, _ := strings.Cut(page, "#")
		if !there || !exists("../"+file) || !slices.ContainsFunc(strings.Split(read(t, "../"+file), "\n"), func(line string) bool { return anchorOf(line) == anchor }) {
			t.Errorf("%s: runbook_url %q leads nowhere", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
			t.Errorf("%s: %+v", r.Alert, r)
		}
		if !strings.Contains(documentation, "`"+r.Alert+"`") {
			t.Errorf("docs/telemetry.md lacks %s", r.Alert)
		}
		if !strings.Contains(tests, r.Alert) {
			t.Errorf("alerts_test.yml doesn't try %s", r.Alert)
		}
	}
}

// anchorOf returns the anchor that Markdown viewers make of a heading.
func anchorOf(line string) string {
	if !strings.HasPrefix(line, "#") {
		return ""
	}
	return regexp.MustCompile(`[^a-z0-9-]`).ReplaceAllString(strings.ReplaceAll(strings.ToLower(strings.TrimLeft(line, "# ")), " ", "-"), "")
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		testenv.Skip(t, "it needs promtool, of Debian's package prometheus: "+err.Error())
	}
	for _, arguments := range [][]string{{"test", "rules", "alerts_test.yml"}, {"check", "rules", "alerts.yml"}, {"check", "config", "prometheus.yml"}} {
		command := exec.Command(promtool, arguments...)
		command.Dir = filepath.Join("..", "deploy", "prometheus")
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
}

// Grafana ignores unknown options, which would change a panel silently.
func TestDashboardKeepsToGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins() // the schemas of the kinds of panels
	//lint:ignore SA1019 the schema of what every Grafana imports; v2 is for what new ones make
	var schema foundation.Dashboard
	err := schema.UnmarshalJSONStrict([]byte(read(t, "../deploy/grafana/closeout.json")))
	if err != nil && err.Error() != "" { // an empty list of errors isn't nil
		t.Error(err)
	}
	if err := schema.Validate(); err != nil {
		t.Error(err)
	}
}

// Grafana moves overlapping panels to other places.
func TestPanelsDoNotOverlap(t *testing.T) {
	taken := map[string]string{}
	for _, p := range dashboard(t).Panels {
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				at := strconv.Itoa(x) + "," + strconv.Itoa(y)
				if taken[at] != "" || x >= 24 {
					t.Errorf("%q and %q are both at %s", taken[at], p.Title, at)
				}
				taken[at] = p.Title
			}
		}
	}
	for _, file := range []string{"datasources/prometheus.yml", "dashboards/closeout.yml"} {
		var any map[string]any
		b, err := os.ReadFile(filepath.Join("..", "deploy", "grafana", "provisioning", filepath.FromSlash(file)))
		if err == nil {
			err = yaml.Unmarshal(b, &any)
		}
		if err != nil || any["apiVersion"] != 1 {
			t.Errorf("%s: %v %v", file, err, any)
		}
	}
}
