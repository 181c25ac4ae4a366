package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// `doctor` reports what is missing before setup, then a run without a worker, and nothing
// after the worker has started.
func TestDoctorOnARealTemporal(t *testing.T) {
	c := settings(t, map[string]string{"admin-listen": "127.0.0.1:" + freePort(t), "reconcile-interval": "24h"})
	c.Temporal.Namespace = "doctor"
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	t.Setenv("TEMPORAL_NAMESPACE", "doctor")
	doctor := func(arguments ...string) (code int, text string) {
		t.Helper()
		var out lines
		code = run(t.Context(), append([]string{"dev", "doctor", "--data", c.Data, "--admin-listen", c.AdminListen, "--task-queue", c.TaskQueue}, arguments...), &out, &out)
		return code, out.String()
	}
	expect := func(wantCode int, wants ...string) {
		t.Helper()
		code, text := doctor()
		for _, want := range wants {
			if code != wantCode || !strings.Contains(text, want) {
				t.Errorf("%d, want %d and %q:\n%s", code, wantCode, want, text)
			}
		}
	}

	expect(1, "ok    temporal ", "FAIL  namespace          doctor isn't there", "skip  search attributes", "FAIL  ledger ", "warn  running process")

	setUp(t, c)
	expect(0, "ok    namespace          doctor keeps closed runs for 720h", "ok    search attributes  CloseoutState Keyword, RoomSessionId Keyword, ", "warn  workflow pollers ", "ok    ledger ", "warn  reconciliation ")

	closed := newClose()
	session := session.Of(&closed)
	if _, err := dial(t, c).ExecuteWorkflow(t.Context(), workflows.StartOptions(session, c.TaskQueue), workflows.RoomClose, session); err != nil {
		t.Fatal(err)
	}
	wait(t, "the server reports a waiting task", func() bool {
		code, text := doctor()
		return code == 1 && strings.Contains(text, "FAIL  workflow pollers   task queue "+c.TaskQueue+": 0 workers, 1 waiting tasks: no worker polls it")
	})

	start(t, c, both)
	result(t, dial(t, c), closed)
	wait(t, "it finds nothing wrong", func() bool {
		code, text := doctor()
		return code == 0 && strings.Contains(text, " ok, 0 warned, 0 failed, 0 skipped")
	})

	versioned := []string{"--temporal-deployment-name", "doctor", "--temporal-worker-build-id", "1"}
	if code, text := doctor(versioned...); code != 0 || !strings.Contains(text, "warn  deployment         doctor isn't there") {
		t.Errorf("before a worker of the Worker Deployment runs: %d\n%s", code, text)
	}
	build := *c
	build.DeploymentName, build.BuildID, build.AdminListen = "doctor", "1", ""
	start(t, &build, service.Parts{Worker: true})
	wait(t, "it knows the Worker Deployment's version", func() bool {
		_, text := doctor(versioned...)
		return strings.Contains(text, "ok    deployment         doctor has 1 versions of at most 100")
	})

	if code, text := doctor("--apps", "x", "--listen", "80"); code != 1 || strings.Count(text, "FAIL  settings") != 2 {
		t.Errorf("with wrong settings: %d\n%s", code, text)
	}
}

// Temporal reports a Namespace as missing for a short time after it was registered. That is not an
// outage.
func TestSetupOfANewNamespaceLogsNoError(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	c.Temporal.Namespace = fmt.Sprintf("new-%d", rand.Uint64())
	var log lines
	if err := service.Setup(t.Context(), c, telemetry.NewLogger(&log, slog.LevelInfo, false)); err != nil || strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "search attributes set up") {
		t.Errorf("%v\n%s", err, log.String())
	}
}
