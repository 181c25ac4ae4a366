package service

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/webhook"
)

func TestOpenStepsNamesTheSetting(t *testing.T) {
	good := config.Config{DatabaseURL: "sqlite:" + t.TempDir() + "/l.db", RecordingsURL: "file://" + t.TempDir(), ArchiveURL: "file://" + t.TempDir()}
	for setting, change := range map[string]func(*config.Config){
		"CLOSEOUT_DATABASE_URL":   func(c *config.Config) { c.DatabaseURL = "postgres://u:hunter2@h:port/db" },
		"CLOSEOUT_RECORDINGS_URL": func(c *config.Config) { c.RecordingsURL = "file:///no/such/folder" },
		"CLOSEOUT_ARCHIVE_URL":    func(c *config.Config) { c.ArchiveURL = "s3://bucket?no_such_option=1" },
	} {
		c := good
		change(&c)
		var opened closers
		_, err := openSteps(t.Context(), &c, &opened)
		opened.close()
		if err == nil || !strings.HasPrefix(err.Error(), setting+": ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", setting, err)
		}
	}
	var opened closers
	steps, err := openSteps(t.Context(), &good, &opened)
	if err != nil {
		t.Fatal(err)
	}
	if names := unmade(steps); len(names) > 0 {
		t.Errorf("%v are not made", names)
	}
	opened.close()
}

func TestMetrics(t *testing.T) {
	metrics := newMetrics()
	metrics.callback("room_close", webhook.Outcome(webhook.Started), 0)
	metrics.callback("", webhook.RefusedSignature, 0)
	w := httptest.NewRecorder()
	adminRouter(&health{}, metrics.Handler()).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`closeout_callbacks_total{event="room_close",outcome="started"} 1`, `closeout_callbacks_total{event="",outcome="bad_signature"} 1`, "go_goroutines "} {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d without %s", w.Code, want)
		}
	}
}
