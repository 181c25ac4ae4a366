// Package buildinfo reports which build of the program runs.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
)

// Set by the linker, where the build has no repository to look into, as in an image: go build -ldflags "-X <this package>.version=v1.2.3".
var version, commit, date string

// Info is a build. What is unknown is empty, the version "(devel)".
type Info struct {
	Version string // a tag or a pseudo-version of the main module
	Library string // the version of Closeout, in a program that has it as a dependency
	Commit  string // of the main module's repository, with "+dirty" if files were changed
	Date    string // of that commit, by RFC 3339
	Go      string
}

// Read returns the build of this program.
var Read = sync.OnceValue(func() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return read(build, Info{Version: version, Commit: commit, Date: date})
})

// module is the path of Closeout's own module.
const module = "github.com/closeouthq/closeout"

// read prefers what the linker set to what Go recorded.
func read(build *debug.BuildInfo, linked Info) Info {
	settings := map[string]string{}
	for _, s := range build.Settings {
		settings[s.Key] = s.Value
	}
	recorded := settings["vcs.revision"]
	if recorded != "" && settings["vcs.modified"] == "true" {
		recorded += "+dirty"
	}
	info := Info{
		Version: cmp.Or(linked.Version, build.Main.Version, "(devel)"),
		Commit:  cmp.Or(linked.Commit, recorded),
		Date:    cmp.Or(linked.Date, settings["vcs.time"]),
		Go:      build.GoVersion,
	}
	for _, d := range build.Deps {
		if d.Path == module {
			info.Library = d.Version
		}
	}
	return info
}

// String returns the version with what else is known, for people.
func (i Info) String() string {
	s := i.Version
	if i.Library != "" {
		s += " with closeout " + i.Library
	}
	if i.Commit != "" {
		s += ", commit " + i.Commit
	}
	if i.Date != "" {
		s += " of " + i.Date
	}
	return fmt.Sprintf("%s, %s, %s/%s", s, i.Go, runtime.GOOS, runtime.GOARCH)
}
