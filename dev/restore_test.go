package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// dump makes a copy of a ledger. restore puts the copy back while a worker runs.
func dump(t *testing.T, databaseURL string) (restore func()) {
	t.Helper()
	list := "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
	open := func() *sql.DB {
		driver, name := "pgx", databaseURL
		if u, err := url.Parse(databaseURL); err == nil { // PgBouncer may use a server connection without the prepared statement
			q := u.Query()
			q.Set("default_query_exec_mode", "exec")
			u.RawQuery = q.Encode()
			name = u.String()
		}
		if path, ok := strings.CutPrefix(databaseURL, "sqlite:"); ok {
			list = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
			driver, name = "sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_pragma=busy_timeout(10000)"}).String()
		}
		db, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	defer db.Close()
	var tables []string
	names, err := db.Query(list)
	if err != nil {
		t.Fatal(err)
	}
	for names.Next() {
		var table string
		if err := names.Scan(&table); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	if err := names.Close(); err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	copied := map[string][][]any{}
	for _, table := range tables {
		rows, err := db.Query("SELECT * FROM " + table)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			row, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range row {
				into[i] = &row[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			copied[table] = append(copied[table], row)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		db := open()
		defer db.Close()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		for _, table := range tables {
			if _, err := tx.Exec("DELETE FROM " + table); err != nil {
				t.Fatal(err)
			}
			for _, row := range copied[table] {
				var places []string
				for i := range row {
					places = append(places, fmt.Sprintf("$%d", i+1))
				}
				if _, err := tx.Exec("INSERT INTO "+table+" VALUES ("+strings.Join(places, ", ")+")", row...); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// A ledger is restored from a copy that is older than bills, an adjustment and an open
// run. Nothing is billed from incomplete events. The lost bills are put back as they
// were, and an operator decides about the session whose callbacks are lost.
func TestALedgerIsRestoredFromAnOlderCopy(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		c := settings(t, map[string]string{"database-url": databaseURL, "reconcile-interval": "1s", "server-secrets": "1=server secret",
			"server-api-url": zegofake.New(1, "server secret").Serve(t), "overdue-after": "1h", "settling": "0s", "prices": "*=EUR 2"})
		c.Temporal.Namespace = strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) // the audit covers all runs in it
		setUp(t, c)
		address := start(t, c, both)
		temporalClient := dial(t, c)
		books, err := ledger.Open(c.DatabaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer books.Close()
		looked := func(above int64) int64 {
			t.Helper()
			var last ledger.Look
			wait(t, "a worker has looked", func() bool {
				var err error
				last, err = books.LastLook(t.Context())
				return err == nil && last.Number > above+1
			})
			return last.Number
		}
		noon := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		closeOut := func(s zego.RoomClose) {
			t.Helper()
			stay(t, c, s, "a", noon, noon.Add(time.Minute))
			stay(t, c, s, "b", noon, noon.Add(10*time.Minute))
			if a := post(t, address, s); a.code != 200 {
				t.Fatalf("answer %+v", a)
			}
			result(t, temporalClient, s)
		}
		first, second, adjusted, open := newClose(), newClose(), newClose(), newClose()
		for _, s := range []*zego.RoomClose{&first, &second, &adjusted, &open} {
			s.RoomCloseTime = noon.Add(20 * time.Minute)
		}
		closeOut(first)
		look := looked(0)
		restoreCopy := dump(t, databaseURL)

		open.RoomCloseTime = time.Now().UTC().Truncate(time.Millisecond)
		closeOut(second)
		closeOut(adjusted)
		stay(t, c, adjusted, "late", noon, noon.Add(15*time.Minute))
		wait(t, "its bill is adjusted", func() bool {
			made, err := books.Adjustments(t.Context(), session.ID{AppID: 1, RoomSessionID: adjusted.RoomSessionID})
			return err == nil && len(made) == 1 && adjustmentClosed(t, c, adjusted)
		})
		stay(t, c, open, "a", noon, noon.Add(time.Minute))
		looked(look)
		figures := func(s zego.RoomClose) string {
			t.Helper()
			b, err := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: s.RoomSessionID})
			if err != nil {
				return err.Error()
			}
			made, err := books.Adjustments(t.Context(), session.ID{AppID: 1, RoomSessionID: s.RoomSessionID})
			if err != nil {
				t.Fatal(err)
			}
			said := fmt.Sprintf("%+v", b)
			for _, a := range made {
				said += fmt.Sprintf("; %+v %+v %v", a.ID, a.Difference, a.Usage)
			}
			return said
		}
		want := map[string]string{}
		all := map[string]zego.RoomClose{"first": first, "second": second, "adjusted": adjusted}
		for name, s := range all {
			want[name] = figures(s)
		}

		restoreCopy()
		if _, err := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: second.RoomSessionID}); err == nil {
			t.Fatal("the copy has the bill")
		}

		// An operator resets a run at once.
		id := session.Of(&second).WorkflowID()
		if _, err := temporalClient.WorkflowService().ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: c.Temporal.Namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id}, Reason: "test", RequestId: "1", WorkflowTaskFinishEventId: 4,
		}); err != nil {
			t.Fatal(err)
		}
		result(t, temporalClient, second)
		if got := figures(second); got != want["second"] {
			t.Errorf("after a reset\nfound %s\nwant  %s", got, want["second"])
		}

		// The open session is closed now. Its callbacks are lost.
		if a := post(t, address, open); a.code != 200 {
			t.Fatalf("answer %+v", a)
		}
		openID := session.Of(&open).WorkflowID()
		wait(t, "its bill is blocked", func() bool { return strings.Contains(detailsOf(temporalClient, openID), "was restored from a copy") })
		if b, err := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: open.RoomSessionID}); err == nil {
			t.Errorf("billed from incomplete events: %+v", b)
		}

		t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
		t.Setenv("TEMPORAL_NAMESPACE", c.Temporal.Namespace)
		dev := func(args ...string) (int, string) {
			t.Helper()
			var out lines
			code := run(t.Context(), append([]string{"dev"}, args...), &out, &out)
			return code, out.String()
		}
		stores := []string{"--data", c.Data, "--database-url", c.DatabaseURL, "--inbox", c.Inbox()}
		repair := append([]string{"repair", "--task-queue", c.TaskQueue}, stores...)
		// Temporal's list of runs lags behind.
		wait(t, "the repair finds what there is", func() bool {
			_, text := dev(repair...)
			return strings.Contains(text, "restore the bill: 1") && strings.Contains(text, "restore the adjustment: 1") && strings.Contains(text, "nothing was changed")
		})
		if _, err := books.Bill(t.Context(), session.ID{AppID: 1, RoomSessionID: adjusted.RoomSessionID}); err == nil {
			t.Error("a dry run changes something")
		}
		if code, text := dev(append(repair, "--yes")...); code != 0 || !strings.Contains(text, "2 of 2 repairs made") {
			t.Errorf("repair: %d\n%s", code, text)
		}
		for name, s := range all {
			if got := figures(s); got != want[name] {
				t.Errorf("%s after the repair\nfound %s\nwant  %s", name, got, want[name])
			}
		}
		if code, text := dev(append([]string{"audit"}, stores...)...); code != 0 || !strings.Contains(text, "The ledger was restored from a copy") {
			t.Errorf("audit: %d\n%s", code, text)
		}

		// One of the lost callbacks is sent again. No adjustment is made from it alone.
		stay(t, c, second, "b", noon, noon.Add(10*time.Minute))
		adjustment := workflows.AdjustmentID(activities.Adjustment{Session: session.Of(&second), Number: 1})
		wait(t, "its adjustment is blocked", func() bool {
			return strings.Contains(detailsOf(temporalClient, adjustment), "a person has to decide about a restored bill")
		})
		if got := figures(second); got != want["second"] {
			t.Errorf("after a part was sent again\nfound %s\nwant  %s", got, want["second"])
		}

		// All are sent again, and the operator approves the bill.
		stay(t, c, open, "a", noon, noon.Add(time.Minute))
		if code, text := dev("blocked", "retry", "--step", "billing", "--reason", "callbacks were sent again", openID); code != 0 {
			t.Fatalf("retry: %s", text)
		}
		wait(t, "the new figures are to be approved", func() bool { return strings.Contains(detailsOf(temporalClient, openID), "60 s") })
		if code, text := dev("blocked", "retry", "--step", "billing", "--reason", "right so", openID); code != 0 {
			t.Fatalf("retry: %s", text)
		}
		result(t, temporalClient, open)
		if b := bill(t, c, open); b.Usage.Seconds != 60 || !strings.Contains(b.Usage.Estimated.String(), "events_lost") {
			t.Errorf("bill %+v", b)
		}
	})
}

// adjustmentClosed reports whether the run of a session's first adjustment has closed.
func adjustmentClosed(t *testing.T, c *config.Config, s zego.RoomClose) bool {
	run, err := dial(t, c).DescribeWorkflowExecution(t.Context(), workflows.AdjustmentID(activities.Adjustment{Session: session.Of(&s), Number: 1}), "")
	return err == nil && run.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED
}

// detailsOf returns the current details of a run, or "" while no worker answers.
func detailsOf(client client.Client, id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	value, err := client.QueryWorkflow(ctx, id, "", "__temporal_workflow_metadata")
	var metadata sdk.WorkflowMetadata
	if err != nil || value.Get(&metadata) != nil {
		return ""
	}
	return metadata.GetCurrentDetails()
}
