package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// lasting is a store that checks that a manifest's files were settled, and so are durable, before
// the manifest is written.
type lasting struct {
	store
	*testing.T
	settled atomic.Int64
}

func (l *lasting) settle(keys []string) error {
	l.settled.Store(int64(len(keys)))
	return l.store.settle(keys)
}

func (l *lasting) create(ctx context.Context, key string, content []byte) error {
	var m Manifest
	if err := json.Unmarshal(content, &m); err != nil || l.settled.Load() != int64(len(m.Files)) {
		l.Errorf("%s lists %d files, and %d last, %v", key, len(m.Files), l.settled.Load(), err)
	}
	return l.store.create(ctx, key, content)
}

func TestFilesOfAManifestSurviveAPowerFailure(t *testing.T) {
	everyStore(t, func(w *world) {
		w.store = &lasting{store: w.store, T: w.T}
		w.moved(w.put("a/b.mp4", []byte("a")), w.put("b.mp4", []byte("b")))
		if _, err := w.added(w.put("late.mp4", []byte("late"))); err != nil {
			w.Fatal(err)
		}
	})
}

// added adds items to the session's latest manifest.
func (w *world) added(items ...Item) (Manifest, error) {
	w.Helper()
	before, err := Latest(w.Context(), w.Archive, folder)
	if err != nil {
		w.Fatal(err)
	}
	return w.Add(w.Context(), folder, before, items, Progress{}, nil)
}

func names(m Manifest) (names []string) {
	for _, f := range m.Files {
		names = append(names, strings.TrimPrefix(f.Name, folder+"recordings/"))
	}
	return names
}

func TestNextManifestListsLateAndEarlierFiles(t *testing.T) {
	everyStore(t, func(w *world) {
		w.moved(w.put("a.mp4", []byte("a")), Item{Name: "lost.mp4", Lost: true})
		first := w.get(folder + "manifest.json")

		late := w.put("late/a.mp4", []byte("late"))
		late.Name = "a.mp4" // taken by the first recording
		lost := Item{Name: "lost too.mp4", Lost: true}
		m, err := w.added(late, lost)
		if err != nil {
			w.Fatal(err)
		}
		if m.Number != 2 || len(m.Files) != 2 || !slices.Equal(m.Lost, []string{"lost.mp4", "lost too.mp4"}) {
			w.Errorf("%+v", m)
		}
		if n := names(m); n[0] != "a.mp4" || !strings.HasPrefix(n[1], "a~") || m.Files[0].Source != folder+"a.mp4" || m.Files[1].Source != folder+"late/a.mp4" {
			w.Errorf("files %+v", m.Files)
		}
		if got := w.get(m.Files[0].Name); string(got) != "a" {
			w.Errorf("the first recording has become %q", got)
		}
		if faults, err := w.Verify(w.Context(), m, nil); err != nil || len(faults) > 0 {
			w.Errorf("faults %v, %v", faults, err)
		}
		if !bytes.Equal(w.get(folder+"manifest.json"), first) {
			w.Error("the first manifest has changed")
		}

		// Repeat the call, as the retry of an attempt that was killed after its success.
		second := w.get(folder + "manifest-2.json")
		if again, err := w.added(late, lost); err != nil || again.Number != 2 {
			w.Errorf("again: %+v, %v", again, err)
		}
		third, err := w.again().added(w.put("b.mp4", []byte("b")))
		if err != nil || third.Number != 3 || len(third.Files) != 3 {
			w.Errorf("third: %+v, %v", third, err)
		}
		if !bytes.Equal(w.get(folder+"manifest-2.json"), second) {
			w.Error("the second manifest has changed")
		}
		if there := w.moved(); there.Number != 3 {
			w.Errorf("a retried run finds %+v", there)
		}
	})
}

// If two workers add different recordings at the same time, one fails, and its recording is added
// by its next attempt.
func TestConcurrentAddIsAnError(t *testing.T) {
	everyStore(t, func(w *world) {
		before := w.moved()
		items := []Item{w.put("a.mp4", random(1, 10_000)), w.put("b.mp4", random(2, 10_000))}
		var faults [2]error
		var both sync.WaitGroup
		for i, worker := range []*world{w, w.again()} {
			both.Go(func() { _, faults[i] = worker.Add(w.Context(), folder, before, items[i:i+1], Progress{}, nil) })
		}
		both.Wait()
		if (faults[0] == nil) == (faults[1] == nil) {
			w.Errorf("both or none has written the second manifest: %v, %v", faults[0], faults[1])
		}
		for i, fault := range faults {
			if fault != nil {
				if m, err := w.added(items[i]); err != nil || m.Number != 3 || len(m.Files) != 2 {
					w.Errorf("at the second attempt: %+v, %v", m, err)
				}
			}
		}
	})
}

func TestLateSavedFileReplacesNoOther(t *testing.T) {
	everyStore(t, func(w *world) {
		before := w.moved(w.put("a.mp4", []byte("a")))
		late := w.put("late/a.mp4", []byte("saved"))
		late.Name = "a.mp4"
		files, faults := w.Save(w.Context(), folder, &before, []Item{late})
		if faults[0] != nil || len(files) != 1 || files[0].Name == before.Files[0].Name {
			w.Fatalf("%+v, %v", files, faults)
		}
		// Damage the file, as a killed attempt may have left it.
		overwrite(w, files[0].Name, []byte("damage"))
		if again, faults := w.Save(w.Context(), folder, &before, []Item{late}); faults[0] != nil || !reflect.DeepEqual(again, files) {
			w.Fatalf("again: %+v, %v", again, faults)
		}
		if err := w.Source.Delete(w.Context(), late.Key); err != nil {
			w.Fatal(err)
		}
		for range 2 {
			m, err := w.added(Item{Name: late.Name, Kept: &files[0]})
			if err != nil || m.Number != 2 || len(m.Files) != 2 || string(w.get(files[0].Name)) != "saved" {
				w.Errorf("%+v, %v", m, err)
			}
		}
	})
}

func TestLateSourcesAreDeletedOnceListed(t *testing.T) {
	w := newWorld(t, Options{DeleteSources: true})
	w.moved(w.put("a.mp4", []byte("a")))
	late := w.put("late.mp4", []byte("late"))
	if _, err := w.added(late); err != nil {
		t.Fatal(err)
	}
	if there, err := w.Source.Exists(t.Context(), late.Key); err != nil || there {
		t.Errorf("the source is there %v, %v", there, err)
	}
	w.put("late.mp4", []byte("late")) // as if the attempt had been killed before it deleted the source
	if _, err := w.added(late); err != nil {
		t.Fatal(err)
	}
	if there, err := w.Source.Exists(t.Context(), late.Key); err != nil || there {
		t.Errorf("after another attempt the source is there %v, %v", there, err)
	}
}

func TestManifestWithAnotherNumberIsNotRead(t *testing.T) {
	w := newWorld(t, Options{})
	w.moved(w.put("a.mp4", []byte("a")))
	if err := w.Archive.WriteAll(t.Context(), folder+"manifest-2.json", w.get(folder+"manifest.json"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Latest(t.Context(), w.Archive, folder); !errors.Is(err, ErrUnreadable) {
		t.Errorf("error %v", err)
	}
}
