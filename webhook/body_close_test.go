package webhook

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// A body that is closed twice releases its memory once. Otherwise two requests would read
// into the same memory.
func TestBodyClosedTwiceReleasesItsMemoryOnce(t *testing.T) {
	o := newBodies(bodyMemory)
	read := func(text string) *body {
		b, err := o.read(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for range 100 { // because a pool may drop what it holds
		first := read("first")
		first.close()
		second := read("second")
		first.close()
		third := read("third!")
		if string(second.data) != "second" || string(third.data) != "third!" {
			t.Fatalf("they share their memory: %q, %q", second.data, third.data)
		}
		second.close()
		third.close()
	}
	if o.free != bodyMemory || o.readers.Len() != 0 {
		t.Errorf("%d bytes of room and %d readers are left", o.free, o.readers.Len())
	}
}
