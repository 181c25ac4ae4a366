package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/service"
)

// archived archives files of a session in the archive of a data folder.
func archived(t *testing.T, data string, session uint64, files ...string) {
	t.Helper()
	open := func(name string) *blob.Bucket {
		b, err := archive.OpenBucket(t.Context(), "file://"+filepath.ToSlash(filepath.Join(data, name))+"?create_dir=true")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	from, to := open("recordings"), open("archive")
	mover, err := archive.NewMover(from, to, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var items []archive.Item
	for _, name := range files {
		if err := from.WriteAll(t.Context(), name, []byte("content of "+name), nil); err != nil {
			t.Fatal(err)
		}
		items = append(items, archive.Item{Key: name, Name: name, About: archive.About{DurationMS: 61500}})
	}
	folder := "1/" + strings.TrimPrefix(filepath.ToSlash(filepath.Join("/", jsonNumber(session))), "/") + "/"
	if _, err := mover.Move(t.Context(), folder, archive.Manifest{AppID: 1, RoomID: "lobby", RoomSessionID: session},
		func(context.Context) ([]archive.Item, error) { return items, nil }, archive.Progress{}, nil); err != nil {
		t.Fatal(err)
	}
}

func jsonNumber(n uint64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func archiveCommand(data string, args ...string) (code int, stdout, stderr string) {
	var out, faults bytes.Buffer
	code = cli.Main(context.Background(), service.Extension{}, append([]string{"closeout", "archive"}, append(args, "--data", data)...), &out, &faults)
	return code, out.String(), faults.String()
}

func TestArchiveShowsTheManifest(t *testing.T) {
	data := t.TempDir()
	archived(t, data, 18446744073709551615, "a b.mp4")
	archived(t, data, 7)
	for _, arg := range []string{"18446744073709551615", "room-close-1-18446744073709551615"} {
		code, out, fault := archiveCommand(data, "show", arg)
		if code != 0 {
			t.Fatalf("%s: %d %s", arg, code, fault)
		}
		for _, want := range []string{`Session 18446744073709551615 of room "lobby" of app 1`, "1 recordings of 18 bytes", "1m1.5s", filepath.Join(data, "archive", "1", "18446744073709551615", "recordings", "a b.mp4")} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: there is no %q in\n%s", arg, want, out)
			}
		}
	}
	code, out, _ := archiveCommand(data, "show", "--json", "18446744073709551615")
	var m archive.Manifest
	if err := json.Unmarshal([]byte(out), &m); code != 0 || err != nil || m.Version != archive.Version || len(m.Files) != 1 || m.Files[0].DurationMS != 61500 {
		t.Errorf("%d, %v: %s", code, err, out)
	}
	if code, out, _ := archiveCommand(data, "show", "7"); code != 0 || !strings.Contains(out, "0 recordings of 0 bytes") {
		t.Errorf("%d: %s", code, out)
	}
	for arg, want := range map[string]string{"8": "8: there is no manifest in the archive", "room-close-2-7": "2/7/manifest.json: there is no manifest"} {
		if code, _, fault := archiveCommand(data, "show", arg); code != 1 || !strings.Contains(fault, want) {
			t.Errorf("%s: %d %s", arg, code, fault)
		}
	}
}

func TestArchiveVerifyListsWhatIsWrong(t *testing.T) {
	data := t.TempDir()
	archived(t, data, 7, "a.mp4", "b.mp4")
	archived(t, data, 8, "c.mp4")
	in := filepath.Join(data, "archive", "1")
	if err := os.MkdirAll(filepath.Join(in, "9", "recordings"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "9", "recordings", "d.mp4"), []byte("d"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, fault := archiveCommand(data, "verify", "--all"); code != 0 || !strings.Contains(out, "2 sessions, 3 objects, 48 bytes read, 0 faults; 1 sessions have no manifest yet") {
		t.Errorf("%d %s %s", code, out, fault)
	}
	for path, content := range map[string]string{filepath.Join("7", "recordings", "a.mp4"): "content of A.mp4", filepath.Join("8", "manifest.json"): "{"} {
		if err := os.WriteFile(filepath.Join(in, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, fault := archiveCommand(data, "verify", "--all")
	if code != 1 || !strings.Contains(out, "1/7/recordings/a.mp4: its SHA-256 is ") || !strings.Contains(out, "1/8/manifest.json: ") || !strings.Contains(fault, "2 objects are missing or changed") {
		t.Errorf("%d %s %s", code, out, fault)
	}
	var v struct {
		Sessions, Objects int
		Faults            []archive.Fault
	}
	code, out, _ = archiveCommand(data, "verify", "7", "--json")
	if err := json.Unmarshal([]byte(out), &v); code != 1 || err != nil || v.Sessions != 1 || v.Objects != 2 || len(v.Faults) != 1 || v.Faults[0].Name != "1/7/recordings/a.mp4" {
		t.Errorf("%d, %v: %s", code, err, out)
	}
	for args, want := range map[string]int{"show lobby": 2, "verify": 2, "verify --all 7": 2, "verify 10": 1} {
		if code, _, fault := archiveCommand(data, strings.Fields(args)...); code != want || fault == "" {
			t.Errorf("%q: %d %s", args, code, fault)
		}
	}
}
