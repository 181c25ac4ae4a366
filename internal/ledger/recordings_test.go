package ledger_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// recordingEvent returns the event of a recording callback that ZEGO sends the given seconds after noon.
func recordingEvent(t *testing.T, task string, event zego.RecordingEvent, sequence uint64, sent int64, files ...zego.RecordedFile) ledger.Event {
	t.Helper()
	u, ok := ledger.EventOf(&zego.Recording{Common: zego.Common{Event: zego.EventRecording, AppID: math.MaxUint32, Timestamp: noon.Unix() + sent},
		TaskID: task, RoomID: "Zimmer 7 é'\"", EventType: event, Sequence: sequence, Files: files}, time.Now())
	if !ok {
		t.Fatal("EventOf returned no event for a recording callback")
	}
	return u
}

func file(name string, status zego.FileStatus) zego.RecordedFile {
	return zego.RecordedFile{FileID: name, URL: "https://bucket/" + name, Format: "mp4", Size: math.MaxInt64, Duration: 1500 * time.Millisecond,
		UserID: "u", StreamID: "s", Begin: noon, MediaTrackType: 3, Status: status}
}

func recordings(t *testing.T, l *ledger.Ledger) ([]ledger.RecordingTask, []ledger.RoomLife) {
	t.Helper()
	of := session.Session{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}, RoomID: "Zimmer 7 é'\"", RoomCloseTime: noon}
	if err := l.EndRoom(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	tasks, lives, err := l.RecordingsOf(t.Context(), of, noon.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return tasks, lives
}

// A task ends up the same however often its callbacks come, in any order and in any batches. A
// higher number doesn't turn an uploaded file into a lost one.
func TestRecordingCallbacksInAnyOrder(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		all := func(task string) []ledger.Event {
			return []ledger.Event{
				recordingEvent(t, task, zego.RecordingNoStream, 0, 10),
				recordingEvent(t, task, zego.RecordingUploaded, 1, 20, file("a", zego.FileInBackup), file("b", zego.FileFailed)),
				recordingEvent(t, task, zego.RecordingUploading, 2, 30),
				recordingEvent(t, task, zego.RecordingUploaded, 3, 40, file("a", zego.FileInBackup), file("b", zego.FileUploaded), file("c", zego.FileUploaded)),
				recordingEvent(t, task, zego.RecordingAborted, 4, 50),
				recordingEvent(t, task, 4711, 5, 60),
				recordingEvent(t, task, zego.RecordingUploaded, 6, 70, file("a", zego.FileFailed), file("c", zego.FileFailed)),
			}
		}
		want := ledger.RecordingTask{AppID: math.MaxUint32, TaskID: "0000000000000000", RoomID: "Zimmer 7 é'\"",
			First: noon.Add(10 * time.Second), Last: noon.Add(70 * time.Second), Uploaded: true, Ended: true, Files: []ledger.RecordedFile{
				{RecordedFile: file("a", zego.FileInBackup), Sequence: 3, ReportedAt: noon.Add(20 * time.Second), Contradicted: zego.FileFailed},
				{RecordedFile: file("b", zego.FileUploaded), Sequence: 3, ReportedAt: noon.Add(40 * time.Second)},
				{RecordedFile: file("c", zego.FileUploaded), Sequence: 3, ReportedAt: noon.Add(40 * time.Second), Contradicted: zego.FileFailed},
			}}
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		var tasks []string
		for i := range 30 {
			task := fmt.Sprintf("%016d", i)
			tasks = append(tasks, task)
			usage := slices.Concat(all(task), all(task)[:random.IntN(7)])
			random.Shuffle(len(usage), func(i, j int) { usage[i], usage[j] = usage[j], usage[i] })
			for len(usage) > 0 {
				n := 1 + random.IntN(len(usage))
				if err := l.Record(t.Context(), usage[:n]); err != nil {
					t.Fatal(err)
				}
				usage = usage[n:]
			}
		}
		got, _ := recordings(t, l)
		if len(got) != len(tasks) {
			t.Fatalf("seed %d: %d tasks, want %d", seed, len(got), len(tasks))
		}
		for i, task := range got {
			task.Changes = 0 // how many there were depends on the order
			want.TaskID = tasks[i]
			if !reflect.DeepEqual(task, want) {
				t.Errorf("seed %d: got %+v\nwant %+v", seed, task, want)
			}
		}
	})
}

// A callback after the archive makes the task late if it reports a file that the archive lacks,
// whatever the sequence numbers are.
func TestFilesMissingFromAnArchiveAreLateInAnyOrder(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		const app, room, number = math.MaxUint32, "Zimmer 7 é'\"", math.MaxUint64
		record := func(u ledger.Event) {
			if err := l.Record(t.Context(), []ledger.Event{u}); err != nil {
				t.Fatal(err)
			}
		}
		late := func() int {
			t.Helper()
			tasks, err := l.LateRecordings(t.Context(), noon.Add(time.Hour), noon.Add(-time.Hour), ledger.RecordingTask{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(tasks)
		}
		highest := recordingEvent(t, "0000000000000001", zego.RecordingUploaded, math.MaxInt64, 5, file("b", zego.FileUploaded))
		record(highest)
		if err := l.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: app, RoomSessionID: number}, RoomID: room, RoomCloseTime: noon}, read(t, l, "0000000000000001")); err != nil {
			t.Fatal(err)
		}
		record(highest)
		record(recordingEvent(t, "0000000000000001", zego.RecordingUploaded, 2, 6, file("b", zego.FileFailed)))
		if n := late(); n != 0 {
			t.Errorf("%d late tasks after a callback without news, want 0", n)
		}
		record(recordingEvent(t, "0000000000000001", zego.RecordingUploaded, 1, 4, file("a", zego.FileUploaded), file("b", zego.FileUploaded)))
		if n := late(); n != 1 {
			t.Errorf("%d late tasks after a callback about another file, want 1", n)
		}
	})
}

func TestContinuingTaskIsNotUploaded(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for i, step := range []struct {
			usage ledger.Event
			want  bool
		}{
			{recordingEvent(t, "T", zego.RecordingNoStream, 0, 0), false},
			{recordingEvent(t, "T", zego.RecordingUploaded, 3, 1), true},
			{recordingEvent(t, "T", zego.RecordingNoStream, 2, 0), true}, // arrives late
			{recordingEvent(t, "T", zego.RecordingResumed, 4, 2), false},
			{recordingEvent(t, "T", zego.RecordingEnded, 6, 3), false},
			{recordingEvent(t, "T", zego.RecordingUploaded, 5, 3), true},
		} {
			if err := l.Record(t.Context(), []ledger.Event{step.usage}); err != nil {
				t.Fatal(err)
			}
			if tasks, _ := recordings(t, l); len(tasks) != 1 || tasks[0].Uploaded != step.want {
				t.Errorf("step %d: %+v, want uploaded %v", i, tasks, step.want)
			}
		}
	})
}

func TestLivesOfARoom(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		const app, room = math.MaxUint32, "Zimmer 7 é'\""
		at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
		if err := l.Record(t.Context(), []ledger.Event{
			{ID: session.ID{AppID: app, RoomSessionID: 1}, RoomID: room, Event: zego.EventRoomCreate, Create: at(0), SeenAt: at(0)},
			{ID: session.ID{AppID: app, RoomSessionID: 2}, RoomID: room, Event: zego.EventRoomLogin, Stay: "b", User: "b", Login: at(31), SeenAt: at(31)},
			{ID: session.ID{AppID: app, RoomSessionID: 2}, RoomID: room, Event: zego.EventRoomLogin, Stay: "a", User: "a", Login: at(30), SeenAt: at(30)},
			{ID: session.ID{AppID: app, RoomSessionID: 3}, RoomID: "another", Event: zego.EventRoomCreate, Create: at(0), SeenAt: at(0)},
			{ID: session.ID{AppID: 1, RoomSessionID: 4}, RoomID: room, Event: zego.EventRoomCreate, Create: at(0), SeenAt: at(0)},
			{ID: session.ID{AppID: app, RoomSessionID: 5}, RoomID: room, Event: zego.EventRoomCreate, Create: at(-120), SeenAt: at(-120)}, // too long ago
		}); err != nil {
			t.Fatal(err)
		}
		if err := l.EndRoom(t.Context(), session.Session{ID: session.ID{AppID: app, RoomSessionID: 2}, RoomID: room, RoomCloseTime: at(40)}); err != nil {
			t.Fatal(err)
		}
		_, lives := recordings(t, l)
		want := []ledger.RoomLife{
			{RoomSessionID: 1, Created: at(0)},
			{RoomSessionID: 2, Login: at(30), Closed: at(40)},
			{RoomSessionID: math.MaxUint64, Closed: noon},
		}
		if !reflect.DeepEqual(lives, want) {
			t.Errorf("got %+v\nwant %+v", lives, want)
		}
	})
}

func TestRecordingBelongsToOneSession(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		if err := l.AssignRecording(t.Context(), session.ID{AppID: math.MaxUint32, RoomSessionID: 1}, "T"); !errors.Is(err, ledger.ErrNoRecording) {
			t.Errorf("assign an unknown task: %v", err)
		}
		if err := l.Record(t.Context(), []ledger.Event{recordingEvent(t, "T", zego.RecordingUploaded, 0, 0, file("a", zego.FileUploaded)), recordingEvent(t, "U", zego.RecordingUploaded, 0, 0)}); err != nil {
			t.Fatal(err)
		}
		left := func() (names []string) {
			tasks, err := l.LeftRecordings(t.Context(), noon.Add(time.Second), 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				names = append(names, task.TaskID)
			}
			return names
		}
		if got := left(); !slices.Equal(got, []string{"T"}) {
			t.Errorf("left: %v, want only the task with a file", got)
		}
		for _, number := range []uint64{1, math.MaxUint64} { // an operator may correct a mistake
			if err := l.AssignRecording(t.Context(), session.ID{AppID: math.MaxUint32, RoomSessionID: number}, "T"); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.SaveRecording(t.Context(), math.MaxUint32, "T", "a", `{"name":"x"}`); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}}, append(read(t, l, "T"), ledger.RecordingTask{AppID: math.MaxUint32, TaskID: "gone"})); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: 1}}, read(t, l, "T")); err != nil {
			t.Fatal(err)
		}
		tasks, _ := recordings(t, l)
		if len(tasks) != 2 || !tasks[0].Assigned || tasks[0].RoomSessionID != math.MaxUint64 || tasks[0].ArchivedAt.IsZero() || tasks[0].Files[0].Saved == "" || tasks[1].Assigned {
			t.Errorf("got %+v", tasks)
		}
		if err := l.AssignRecording(t.Context(), session.ID{AppID: math.MaxUint32, RoomSessionID: 1}, "T"); !errors.Is(err, ledger.ErrRecordingArchived) {
			t.Errorf("assign an archived task: %v", err)
		}
		if got := left(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// A task is listed as late until it is archived or handed over.
func TestLateRecordingsAreListedUntilHandedOver(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		const app, room = math.MaxUint32, "Zimmer 7 é'\""
		a := file("a", zego.FileUploaded)
		if err := l.Record(t.Context(), []ledger.Event{
			recordingEvent(t, "C", zego.RecordingUploaded, 0, 1, a), recordingEvent(t, "B", zego.RecordingUploaded, 0, 2, a), recordingEvent(t, "A", zego.RecordingUploaded, 0, 2, a),
			recordingEvent(t, "no files", zego.RecordingUploaded, 0, 3), recordingEvent(t, "long ago", zego.RecordingUploaded, 0, -4000, a),
		}); err != nil {
			t.Fatal(err)
		}
		late := func() (names []string) {
			t.Helper()
			for after := (ledger.RecordingTask{}); ; {
				page, err := l.LateRecordings(t.Context(), time.Now(), noon.Add(-time.Hour), after, 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, task := range page {
					names = append(names, task.TaskID)
				}
				if len(page) < 2 {
					return names
				}
				after = page[1]
			}
		}
		expect := func(what string, want ...string) {
			t.Helper()
			if got := late(); !slices.Equal(got, want) {
				t.Errorf("%s: %q are late, want %q", what, got, want)
			}
		}
		of := session.Session{ID: session.ID{AppID: app, RoomSessionID: math.MaxUint64}, RoomID: room, CloseReason: "2", RoomCloseTime: noon, Reconciled: true}
		recordings(t, l) // records the room's end
		if got, archived, err := l.Archived(t.Context(), session.ID{AppID: app, RoomSessionID: math.MaxUint64}); err != nil || archived {
			t.Errorf("archived: %+v %v, %v", got, archived, err)
		}
		expect("before the archive is made")
		if err := l.ArchivedRecordings(t.Context(), of, read(t, l, "C")); err != nil {
			t.Fatal(err)
		}
		if got, archived, err := l.Archived(t.Context(), session.ID{AppID: app, RoomSessionID: math.MaxUint64}); err != nil || !archived || got != of {
			t.Errorf("got %+v %v, %v, want %+v", got, archived, err, of)
		}
		expect("after", "A", "B")
		if err := l.HandOver(t.Context(), read(t, l, "A")[0]); err != nil {
			t.Fatal(err)
		}
		expect("with A taken on", "B")
		if err := l.AssignRecording(t.Context(), session.ID{AppID: app, RoomSessionID: math.MaxUint64}, "A"); err != nil {
			t.Fatal(err)
		}
		expect("with A assigned", "A", "B")

		// An archived or handed-over task is late again if a new callback reports files.
		for _, sequence := range []uint64{0, 1, 2} {
			if sequence == 2 {
				if err := l.HandOver(t.Context(), read(t, l, "C")[0]); err != nil {
					t.Fatal(err)
				}
				expect("with C taken on", "A", "B")
			}
			if err := l.Record(t.Context(), []ledger.Event{recordingEvent(t, "C", zego.RecordingUploaded, sequence, 5, a)}); err != nil {
				t.Fatal(err)
			}
			expect(fmt.Sprintf("after another callback about C, with number %d", sequence), [][]string{{"A", "B"}, {"A", "B", "C"}, {"A", "B", "C"}}[sequence]...)
		}

		// An operator may assign a task to a session of another room.
		other := session.Session{ID: session.ID{AppID: app, RoomSessionID: 7}, RoomID: "other", RoomCloseTime: noon}
		u := recordingEvent(t, "elsewhere", zego.RecordingUploaded, 0, 9, a)
		u.RoomID = "nowhere"
		if err := errors.Join(l.Record(t.Context(), []ledger.Event{u}), l.ArchivedRecordings(t.Context(), other, nil)); err != nil {
			t.Fatal(err)
		}
		expect("in a room without sessions", "A", "B", "C")
		if err := l.AssignRecording(t.Context(), session.ID{AppID: app, RoomSessionID: 7}, "elsewhere"); err != nil {
			t.Fatal(err)
		}
		expect("with that assigned", "A", "B", "C", "elsewhere")
	})
}

// read returns a recording task.
func read(t *testing.T, l *ledger.Ledger, id string) []ledger.RecordingTask {
	t.Helper()
	task, err := l.RecordingTask(t.Context(), math.MaxUint32, id)
	if err != nil {
		t.Fatal(err)
	}
	return []ledger.RecordingTask{task}
}

// A file that is reported while its task is archived, or while a run is started for it, is late.
func TestTaskThatChangedSinceItWasReadStaysLate(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		of := session.Session{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}, RoomID: "Zimmer 7 é'\"", CloseReason: "2", RoomCloseTime: noon}
		sequence := uint64(0)
		change := func() error {
			sequence++
			return l.Record(t.Context(), []ledger.Event{recordingEvent(t, "T", zego.RecordingUploaded, sequence, 1, file(fmt.Sprint(sequence), zego.FileUploaded))})
		}
		if err := errors.Join(change(), l.ArchivedRecordings(t.Context(), of, nil)); err != nil {
			t.Fatal(err)
		}
		for name, note := range map[string]func(ledger.RecordingTask) error{
			"it was archived": func(task ledger.RecordingTask) error {
				return l.ArchivedRecordings(t.Context(), of, []ledger.RecordingTask{task})
			},
			"a run adds it":                func(task ledger.RecordingTask) error { return l.HandOver(t.Context(), task) },
			"there is no archive":          func(task ledger.RecordingTask) error { return l.NotLate(t.Context(), task, time.Now().Add(time.Hour)) },
			"a run is open in its session": func(task ledger.RecordingTask) error { return l.LateAt(t.Context(), task, time.Now().Add(time.Hour)) },
		} {
			for what, change := range map[string]func() error{"a new file": change, "an assignment": func() error {
				return l.AssignRecording(t.Context(), of.ID, "T")
			}} {
				before := read(t, l, "T")[0]
				if err := errors.Join(change(), note(before)); err != nil {
					t.Fatal(err)
				}
				late := func() int {
					tasks, err := l.LateRecordings(t.Context(), time.Now(), noon.Add(-time.Hour), ledger.RecordingTask{}, 2)
					if err != nil {
						t.Fatal(err)
					}
					return len(tasks)
				}
				if n := late(); n != 1 {
					t.Errorf("%d tasks are late after %s, and the note that %s; want 1", n, what, name)
				}
				if err := note(read(t, l, "T")[0]); err != nil {
					t.Fatal(err)
				}
				if n := late(); n != 0 {
					t.Errorf("%d tasks are late after the note that %s, want none", n, name)
				}
				if err := change(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
