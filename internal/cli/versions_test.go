package cli

import (
	"strings"
	"testing"
)

// At the limit, Temporal refuses the workers of a new build. Blocked runs keep versions in use, so
// the warning must leave time to decide about them.
func TestDoctorWarnsFromHalfOfADeploymentsVersionsOn(t *testing.T) {
	for versions, want := range map[int]string{0: statusOK, maxVersions/2 - 1: statusOK, maxVersions / 2: statusWarn, maxVersions: statusWarn} {
		r := versionsResult("rooms", versions, 7)
		if r.Status != want || !strings.Contains(r.Detail, "runs of former builds hold 7") || (r.Hint == "") != (want == statusOK) {
			t.Errorf("%d versions: %+v, want %s", versions, r, want)
		}
	}
}
