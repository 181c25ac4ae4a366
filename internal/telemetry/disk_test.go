package telemetry

import (
	"errors"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/inbox"
)

func TestTheRoomOnTheDiskIsMeasured(t *testing.T) {
	for _, test := range []struct {
		name string
		look func() (uint64, uint64, error)
		want bool
	}{
		{"a folder that is there", func() (uint64, uint64, error) { return inbox.DiskUsage(t.TempDir()) }, true},
		{"a disk that can't be asked", func() (uint64, uint64, error) { return 0, 0, errors.New("stale") }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := NewMetrics()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Disk(test.look); err != nil {
				t.Fatal(err)
			}
			text := scrape(t, m)
			for _, name := range []string{"closeout_data_free_bytes", "closeout_data_size_bytes"} {
				if got := strings.Contains(text, "\n"+name+" "); got != test.want || strings.Contains(text, "\n"+name+" 0\n") {
					t.Errorf("%s is there: %v, want %v\n%s", name, got, test.want, text)
				}
			}
		})
	}
}

// OpenTelemetry's own buckets begin at 5 s, and a quantile of what takes
// milliseconds would be seconds.
func TestTemporalsLatenciesHaveBucketsBelowASecond(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	m.Temporal().Timer("temporal_workflow_task_schedule_to_start_latency").Record(0)
	m.Temporal().Counter("temporal_request").Inc(1)
	text := scrape(t, m)
	for _, want := range []string{`temporal_workflow_task_schedule_to_start_latency_seconds_bucket{le="0.05"}`, `{le="30"}`, "\ntemporal_request 1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s:\n%s", want, text)
		}
	}
}

func TestTheBuildIsAMetric(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	if text := scrape(t, m); !strings.Contains(text, "\ncloseout_build_info{goversion=\"go1.") {
		t.Error(text)
	}
}
