package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The ledger of bills has a session with 540 s and 90 s for app 1 on 2026-11-03, and one with a
// minute for app 2.
func TestReconcileUsageComparesEachDay(t *testing.T) {
	data := bills(t)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "usage.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const days = "\ufeffDate,AppID,More,Minutes,Seconds\n2026-11-02 00:00:00,1,x,\"1,000.5\",1\n2026/11/03,1,x,8,480\n20261103,2,x,4,240\n2026-11-04,1,x,0,0\n"
	const columns = "--app 1 --day-column Date --minutes-column Minutes "
	for _, test := range []struct {
		name, args, text string
		code             int
		want             []string
	}{
		{"days", columns + "--where AppID=1 ", days, 0, []string{
			"2026-11-02  1000.50   0.00        1000.50     0         0",
			"2026-11-03  8.00      ", "  1         ", "2026-11-04  0.00      0.00        0.00        0         0", "total       1008.50"}},
		{"rows of one day are added", columns, days, 0, []string{"2026-11-03  12.00 "}},
		{"seconds", "--app 2 --day-column Date --seconds-column Seconds --where AppID=2 ", days, 0, []string{"2026-11-03  4.00      1.00        3.00        1 "}},
		{"another offset", columns + "--utc-offset -13:00 ", days, 0, []string{"2026-11-02  1000.50   ", "2026-11-03  12.00     0.00  "}},
		{"JSON", columns + "--json ", days, 0, []string{`"zego_ms": 60030000`, `"sessions": 1`}},
		{"no such column", "--app 1 --day-column Day --minutes-column Min ", days, 1, []string{`found no column "Day"`, `found no column "Min"`, `"Minutes"`}},
		{"no time", "--app 1 --day-column Date ", days, 2, []string{"--minutes-column, --seconds-column: found none"}},
		{"two times", columns + "--seconds-column Seconds ", days, 2, []string{"found both"}},
		{"no day", columns, "Date,Minutes\nsoon,1\n", 1, []string{`line 2, column "Date": found "soon"`}},
		{"no number", columns, "Date,Minutes\n2026-11-03,1e3\n", 1, []string{`line 2, column "Minutes": found "1e3"`}},
		{"a short row", columns, "Date,Minutes\n2026-11-03\n", 1, []string{"line 2: found 1 columns"}},
		{"no rows", columns, "Date,Minutes\n", 1, []string{"found no rows"}},
		{"an empty file", columns, "", 1, []string{"read the header"}},
		{"a bad offset", columns + "--utc-offset 8h ", days, 2, []string{`--utc-offset: found "8h"`}},
	} {
		code, stdout, stderr := closeout("reconcile usage " + test.args + "--data " + data + " " + file(test.text))
		if code != test.code {
			t.Errorf("%s: %d\n%s%s", test.name, code, stdout, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s:\n%s%swant %q", test.name, stdout, stderr, want)
			}
		}
	}
}
