package recordings_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

const theTask = "YZ4joOE4IwmFAAAT"

// named returns ZEGO's name for a recording with the given begin.
func named(task, room string, begin time.Time) string {
	return fmt.Sprintf("%s_%s_u_s_A_%s000.aac", task, room, begin.Format("20060102150405"))
}

// planned plans for session 2 of room "r", which lasted from minute 20 to 30, as the Activity does:
// it reads what the plan needs from the bucket. It also returns what it read and saved.
func planned(t *testing.T, f recordings.Facts, bucket map[string]recordings.Object) (p recordings.Plan, needed []string) {
	t.Helper()
	f.Session = session.Session{ID: session.ID{AppID: 7, RoomSessionID: 2}, RoomID: "r", RoomCloseTime: at(30)}
	f.Folder, f.Now = "7/2/", at(30).Add(f.Waited.Elapsed)
	f.Lives = append(f.Lives, ledger.RoomLife{RoomSessionID: 2, Created: at(20), Closed: at(30)})
	prefix, err := recordings.ParsePrefix("zego/")
	if err != nil {
		t.Fatal(err)
	}
	if f.Place, err = prefix.Of(f.Session); err != nil {
		t.Fatal(err)
	}
	f.Owned, _ = f.Place.Own(7, "")
	if f.Faults == nil {
		f.Faults = map[*ledger.RecordedFile]recordings.Fault{}
	}
	f.Objects, f.Keys = map[string][]recordings.Object{}, map[string]*recordings.Object{}
	if f.Rooms == nil {
		f.Rooms = map[recordings.Room][]uint64{}
	}
	rules := recordings.Rules{Grace: 2 * time.Minute, Stable: 10 * time.Minute, Poll: 10 * time.Second, Deadline: 72 * time.Hour}
	for range 20 {
		p = rules.Plan(f)
		for _, s := range p.Save {
			needed = append(needed, "save "+s.Name)
			if strings.Contains(s.Reported.URL, "gone") {
				f.Faults[s.Reported] = recordings.Fault{Text: "404", Final: strings.Contains(s.Reported.URL, "for good")}
			} else {
				s.Reported.Saved = "{}"
			}
		}
		for _, prefix := range p.List {
			needed = append(needed, "list "+prefix)
			f.Objects[prefix] = nil
			for key, o := range bucket {
				if o.Key = key; strings.HasPrefix(key, prefix) && f.Keep(prefix, key) {
					f.Objects[prefix] = append(f.Objects[prefix], o)
				}
			}
		}
		for _, key := range p.Look {
			needed = append(needed, "look "+key)
			if o, ok := bucket[key]; ok {
				o.Key = key
				f.Keys[key] = &o
			} else {
				f.Keys[key] = nil
			}
		}
		for _, room := range p.Rooms {
			needed = append(needed, "room "+room.ID)
			f.Rooms[room] = nil
		}
		if len(p.Save)+len(p.List)+len(p.Look)+len(p.Rooms) == 0 {
			return p, needed
		}
	}
	t.Fatalf("it still needs %+v", p)
	return p, needed
}

func TestPlan(t *testing.T) {
	name := named(theTask, "r", at(25))
	told := func(status zego.FileStatus, change ...func(*ledger.RecordingTask)) []ledger.RecordingTask {
		f := ledger.RecordedFile{RecordedFile: zego.RecordedFile{FileID: name, Status: status, Size: 5, Begin: at(25)}, ReportedAt: at(30)}
		r := ledger.RecordingTask{AppID: 7, TaskID: theTask, RoomID: "r", Uploaded: true, First: at(26), Files: []ledger.RecordedFile{f}}
		for _, c := range change {
			c(&r)
		}
		return []ledger.RecordingTask{r}
	}
	url := func(u string) func(*ledger.RecordingTask) {
		return func(r *ledger.RecordingTask) { r.Files[0].URL = u }
	}
	five := recordings.Object{Size: 5}
	after := func(d time.Duration) recordings.Waited { return recordings.Waited{Elapsed: d} }
	const early, late = time.Minute, 3 * time.Minute
	for _, tt := range []struct {
		name   string
		facts  recordings.Facts
		bucket map[string]recordings.Object
		move   []string
		lost   []string
		wait   string        // part of what the step waits for
		pause  time.Duration // 0: any
		block  string        // part of why the step is blocked
		needs  string        // one of the things read or saved
	}{
		{name: "nothing, within the grace", facts: recordings.Facts{Waited: after(early)}, wait: "begin to show, until 2026-11-26T12:30:00Z", pause: time.Minute, needs: "list zego/"},
		{name: "nothing, after it", facts: recordings.Facts{Waited: after(late)}},
		{name: "what was uploaded", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: after(late)}, bucket: map[string]recordings.Object{"zego/" + name: five},
			move: []string{"zego/" + name}, needs: "list zego/" + theTask + "_"},
		{name: "and what lies beside it", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: after(late)}, bucket: map[string]recordings.Object{"zego/" + name: five, "zego/" + theTask + "_x.sw": five},
			move: []string{"zego/" + name, "zego/" + theTask + "_x.sw"}},
		{name: "what is missing", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: recordings.Waited{Elapsed: time.Hour, Times: 3}}, wait: "isn't in the bucket, until 2026-11-26T12:30:00Z", pause: 80 * time.Second},
		{name: "what is missing for long", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: recordings.Waited{Elapsed: time.Hour, Times: 99}}, wait: "isn't in the bucket", pause: 15 * time.Minute},
		{name: "what is missing for good", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: after(72 * time.Hour)}, block: "after 72h0m0s; missing: " + theTask},
		{name: "what is of another size", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Waited: after(late)}, bucket: map[string]recordings.Object{"zego/" + name: {Size: 4}}, wait: "4 bytes in the bucket and 5"},
		{name: "what isn't named by the rule", facts: recordings.Facts{Waited: after(late), Tasks: told(zego.FileUploaded, func(r *ledger.RecordingTask) {
			r.Files[0].FileID, r.Files[0].URL = "a.mp4", "https://b.example/7/in/a.mp4"
		})}, bucket: map[string]recordings.Object{"7/in/a.mp4": five}, move: []string{"7/in/a.mp4"}, needs: "look 7/in/a.mp4"},
		{name: "nothing of another app", facts: recordings.Facts{Waited: after(late), Tasks: told(zego.FileUploaded, func(r *ledger.RecordingTask) {
			r.Files[0].FileID, r.Files[0].URL = "a.mp4", "https://b.example/8/in/a.mp4"
		})}, bucket: map[string]recordings.Object{"8/in/a.mp4": five}, wait: "a.mp4, which was uploaded"},
		{name: "what ZEGO lost", facts: recordings.Facts{Tasks: told(zego.FileFailed), Waited: after(late)}, lost: []string{name}},
		{name: "what ZEGO keeps, first of all", facts: recordings.Facts{Tasks: told(zego.FileInBackup), Waited: after(late)}, move: []string{""}, needs: "save " + name},
		{name: "what can't be saved yet", facts: recordings.Facts{Tasks: told(zego.FileInBackup, url("https://gone")), Waited: after(70 * time.Hour)}, wait: "not saved yet: 404 (1 in ZEGO's backup storage, for 2 h more)"},
		{name: "what ZEGO no longer keeps", facts: recordings.Facts{Tasks: told(zego.FileInBackup, url("https://gone")), Waited: after(73 * time.Hour)}, block: "until 2026-11-26T12:30:00Z, can't be saved: 404"},
		{name: "what can never be saved", facts: recordings.Facts{Tasks: told(zego.FileInBackup, url("https://gone for good")), Waited: after(late)}, block: "can't be saved: 404"},
		{name: "a task that goes on", facts: recordings.Facts{Tasks: told(zego.FileUploaded, func(r *ledger.RecordingTask) { r.Uploaded, r.Files = false, nil }), Waited: after(late)}, wait: "may be of this session"},
		{name: "a task of two sessions", facts: recordings.Facts{Tasks: told(zego.FileUploaded), Lives: []ledger.RoomLife{{RoomSessionID: 1, Created: at(0), Closed: at(26)}}, Waited: after(late)}, block: "may be of session 1 or 2; assign it"},
		{name: "a callback that was refused", facts: recordings.Facts{Refused: []ledger.UnreadableCallback{{Unreadable: ledger.Unreadable{TaskID: theTask, Field: "f", Problem: "p"}}}, Waited: after(late)}, block: theTask + `": its callback was refused: f: p`},
		{name: "what no callback told of, while it changes", facts: recordings.Facts{Waited: after(late)}, bucket: map[string]recordings.Object{"7/2/by hand.mp4": five, "zego/" + name: five, "zego/" + named(theTask, "q", at(25)): five, "zego/" + named(theTask, "r", at(35)): five, "zego/notes.txt": five},
			wait: "files in the bucket to stay unchanged: 2", pause: 10 * time.Minute},
		{name: "what no callback told of, for too long", facts: recordings.Facts{Waited: after(72 * time.Hour)}, bucket: map[string]recordings.Object{"7/2/by hand.mp4": five}, block: "still change after 72h0m0s"},
		{name: "what may be of another room", facts: recordings.Facts{Waited: after(late)}, bucket: map[string]recordings.Object{"zego/" + named(theTask, "r", at(25)): five}, wait: "files in the bucket to stay unchanged: 1", needs: "room r_u"},
		{name: "what came late", facts: recordings.Facts{Late: true, Tasks: told(zego.FileUploaded)}, bucket: map[string]recordings.Object{"zego/" + name: five, "7/2/by hand.mp4": five}, move: []string{"zego/" + name}},
		{name: "what the manifest lists", facts: recordings.Facts{Late: true, Tasks: told(zego.FileUploaded), Listed: []recordings.Listed{{TaskID: theTask, Source: "zego/" + name}}}},
		{name: "foreign text", facts: recordings.Facts{Waited: after(late), Tasks: told(9, func(r *ledger.RecordingTask) { r.Files[0].FileID = "\u202egpj.exe" })}, wait: `\u202egpj.exe, which has the unknown status 9`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, needed := planned(t, tt.facts, tt.bucket)
			var keys []string
			for _, f := range p.Move {
				keys = append(keys, f.Object.Key)
			}
			slices.Sort(keys)
			wait := recordings.Wait{}
			if p.Wait != nil {
				wait = *p.Wait
			}
			if (tt.wait == "") != (p.Wait == nil) || !strings.Contains(wait.For, tt.wait) || tt.pause != 0 && wait.Pause != tt.pause {
				t.Errorf("it waits %v for %q, want %v for %q", wait.Pause, wait.For, tt.pause, tt.wait)
			}
			if (tt.block == "") != (p.Blocked == "") || !strings.Contains(p.Blocked, tt.block) {
				t.Errorf("it is blocked by %q, want %q", p.Blocked, tt.block)
			}
			if p.Wait == nil && p.Blocked == "" && (!slices.Equal(keys, tt.move) || !slices.Equal(p.Lost, tt.lost)) {
				t.Errorf("it moves %q and lost %q, want %q and %q", keys, p.Lost, tt.move, tt.lost)
			}
			if tt.needs != "" && !slices.Contains(needed, tt.needs) {
				t.Errorf("it looked up %q, want %q", needed, tt.needs)
			}
			if i := slices.IndexFunc(needed, func(n string) bool { return strings.HasPrefix(n, "save ") }); i > 0 {
				t.Errorf("it looked up %q before it saved", needed[:i])
			}
		})
	}
}

// Files without a callback are complete once they haven't changed for ten minutes.
func TestPlanTakesUnchangedFiles(t *testing.T) {
	bucket := map[string]recordings.Object{"7/2/a.mp4": {Size: 5}}
	first, _ := planned(t, recordings.Facts{Waited: recordings.Waited{Elapsed: 3 * time.Minute}}, bucket)
	note := first.Wait.Note
	if p, _ := planned(t, recordings.Facts{Waited: recordings.Waited{Elapsed: 13 * time.Minute, Note: note}}, bucket); p.Wait != nil || len(p.Move) != 1 {
		t.Errorf("plan %+v", p)
	}
	bucket["7/2/a.mp4"] = recordings.Object{Size: 6}
	if p, _ := planned(t, recordings.Facts{Waited: recordings.Waited{Elapsed: 13 * time.Minute, Note: note}}, bucket); p.Wait == nil {
		t.Errorf("with another size: plan %+v", p)
	}
}
