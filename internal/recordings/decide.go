package recordings

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// note carries data from one attempt to the next.
type note struct {
	Listing string    `json:"listing"`
	Since   time.Time `json:"since"`
}

// decide waits for missing files, and blocks if waiting does not help.
func (p *planner) decide(r Rules) {
	var before note
	_ = json.Unmarshal([]byte(p.Waited.Note), &before) // an unreadable note counts as none
	now := note{fingerprint(p.loose), p.Now}
	if now.Listing == before.Listing {
		now.Since = before.Since
	}
	noted, _ := json.Marshal(now)
	left, early := r.Deadline-p.Waited.Elapsed, r.Grace-p.Waited.Elapsed
	if p.Late || p.Named {
		early = 0 // a recording is known
	}
	wait := func(pause time.Duration, what string) {
		until := p.Now.Add(left).UTC().Format(time.RFC3339)
		p.Wait = &Wait{For: what + p.kept() + ", until " + until, Pause: max(pause, time.Second), Note: string(noted)}
	}
	stays := r.Stable - p.Now.Sub(now.Since)
	switch {
	// Do not block while files can still be saved: a blocked step makes no attempts.
	case len(p.stuck) > 0 && early <= 0 && (!p.retry || left <= 0):
		p.Blocked = Sentence(slices.Concat(p.stuck, p.missing)) + p.kept()
	case len(p.missing) > 0 && left <= 0:
		p.Blocked = fmt.Sprintf("not all of the recordings are there after %v; missing: %s%s", r.Deadline, Sentence(p.missing), p.kept())
	case len(p.missing) > 0:
		pause := r.Poll << min(p.Waited.Times, 20)
		if pause <= 0 || pause > maxPause {
			pause = maxPause
		}
		wait(min(pause, left), Sentence(slices.Concat(p.stuck, p.missing)))
	case early > 0:
		wait(early, "recordings that begin to show")
		p.Wait.Early = true
	case len(p.loose) > 0 && stays > 0 && left <= 0:
		p.Blocked = fmt.Sprintf("the files in the bucket still change after %v", r.Deadline)
	case len(p.loose) > 0 && stays > 0:
		wait(min(stays, left), fmt.Sprintf("files in the bucket to stay unchanged: %d", len(p.loose)))
	}
}

// kept says how long ZEGO keeps the unsaved files.
func (p *planner) kept() string {
	files, first := 0, zego.BackupKept
	for _, f := range p.backup {
		if left := Left(*f, p.Now); left > 0 {
			files++
			first = min(first, left)
		}
	}
	if files == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d in ZEGO's backup storage, for %d h more)", files, int(first.Hours()))
}

// maxName bounds a name or a reason in a list, in bytes.
const maxName = 300

// Sentence joins the first few items.
func Sentence(what []string) string {
	const named = 5
	if more := len(what) - named; more > 0 {
		return strings.Join(what[:named], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(what, "; ")
}

func either(sessions []uint64) string {
	var words []string
	for _, id := range sessions {
		words = append(words, strconv.FormatUint(id, 10))
	}
	return strings.Join(words, " or ")
}

// fingerprint returns a digest of the objects.
func fingerprint(objects []Object) string {
	if len(objects) == 0 {
		return ""
	}
	objects = slices.SortedFunc(slices.Values(objects), func(a, b Object) int { return cmp.Compare(a.Key, b.Key) })
	h := sha256.New()
	for _, o := range objects {
		fmt.Fprintf(h, "%q %d %d\n", o.Key, o.Size, o.ModTime.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
