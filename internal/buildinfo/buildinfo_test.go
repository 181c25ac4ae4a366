package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestReadPrefersTheLinkersValues(t *testing.T) {
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: "b06c831"}, {Key: "vcs.time", Value: "2026-11-29T16:59:00Z"}, {Key: "vcs.modified", Value: modified}}
	}
	for _, test := range []struct {
		name   string
		build  debug.BuildInfo
		linked Info
		want   Info
	}{
		{"nothing is known", debug.BuildInfo{}, Info{}, Info{Version: "(devel)"}},
		{"built in a repository", debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: vcs("false"), GoVersion: "go1.26.11"}, Info{},
			Info{Version: "v1.2.3", Commit: "b06c831", Date: "2026-11-29T16:59:00Z", Go: "go1.26.11"}},
		{"built in one with changes", debug.BuildInfo{Settings: vcs("true")}, Info{}, Info{Version: "(devel)", Commit: "b06c831+dirty", Date: "2026-11-29T16:59:00Z"}},
		{"built in an image", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, Info{Version: "v1.2.3", Commit: "c0ffee", Date: "2026-11-30T00:00:00Z"},
			Info{Version: "v1.2.3", Commit: "c0ffee", Date: "2026-11-30T00:00:00Z"}},
		{"a program of another module", debug.BuildInfo{Main: debug.Module{Version: "v3.0.0"}, Deps: []*debug.Module{{Path: module, Version: "v1.2.3"}}}, Info{},
			Info{Version: "v3.0.0", Library: "v1.2.3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := read(&test.build, test.linked); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
