package archive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serving returns a world with a client for a new server, and the server's URL. The server says
// that each file has says bytes, and serve sends them.
func serving(t *testing.T, says int64, serve func(w http.ResponseWriter, r *http.Request)) (*world, string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=0-0" {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", says))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("x"))
			return
		}
		from := strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		w.Header().Set("Content-Range", "bytes "+from+"-/*")
		w.WriteHeader(http.StatusPartialContent)
		serve(w, r)
	}))
	t.Cleanup(server.Close)
	w := newWorld(t, Options{Transfers: 1})
	w.options.Client = server.Client()
	return w, server.URL
}

func TestServerCannotExceedItsContentLength(t *testing.T) {
	var sent atomic.Int64
	w, server := serving(t, 5, func(w http.ResponseWriter, _ *http.Request) {
		for b := make([]byte, 1<<20); sent.Load() < 200<<20; sent.Add(int64(len(b))) {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	if m, err := w.move(Progress{}, Item{URL: server + "/a.mp4", Size: 5}); !errors.Is(err, errMore) {
		t.Errorf("manifest %+v, error %v", m, err)
	}
	if keys := w.keys(); len(keys) > 0 {
		t.Errorf("the archive has %q", keys)
	}
	if n := sent.Load(); n >= 200<<20 {
		t.Errorf("all of its %d bytes were read", n)
	}
	if m, err := w.move(Progress{}, Item{URL: server + "/a.mp4", Size: 4}); err == nil || !strings.Contains(err.Error(), "it has 5 bytes, and should have 4") {
		t.Errorf("with another size than the callback's: manifest %+v, error %v", m, err)
	}
}

func TestTooLargeFileIsNotStarted(t *testing.T) {
	w, server := serving(t, maxURLFile+1, func(http.ResponseWriter, *http.Request) { t.Error("it was begun") })
	if _, err := w.move(Progress{}, Item{URL: server + "/a.mp4"}); !errors.Is(err, ErrImpossible) {
		t.Errorf("error %v", err)
	}
	// Files whose size a server overstates don't count against the session's other files.
	_, lies := serving(t, maxURLSession, nil)
	w, server = serving(t, 1, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })
	files, faults := w.Save(t.Context(), folder, nil, []Item{{URL: lies + "/a.mp4"}, {URL: lies + "/b.mp4"}, {URL: server + "/c.mp4"}})
	if !errors.Is(faults[0], ErrImpossible) || !errors.Is(faults[1], ErrImpossible) || faults[2] != nil || files[2].Size != 1 {
		t.Errorf("beside those of a liar: %+v, %v", files[2], faults)
	}
	w, server = serving(t, maxURLFile, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	var items []Item
	for i := range maxURLSession/maxURLFile + 1 {
		items = append(items, Item{URL: fmt.Sprintf("%s/%d.mp4", server, i)})
	}
	if _, err := w.move(Progress{}, items...); !errors.Is(err, ErrImpossible) {
		t.Errorf("together: error %v", err)
	}
}

// A transfer that is too slow is given up, whether the server keeps the connection or cuts it.
func TestTooSlowServerIsGivenUp(t *testing.T) {
	defer func(d time.Duration) { rateWindow = d }(rateWindow)
	rateWindow = 200 * time.Millisecond
	dribble := func(bytes int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for range bytes {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			panic(http.ErrAbortHandler)
		}
	}
	var asked atomic.Int64
	failing := func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%4 != 0 {
			time.Sleep(50 * time.Millisecond) // as a server that doesn't answer
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request){
		"steadily": dribble(1 << 30), "and cuts": dribble(2),
		"nothing":                    func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() },
		"a byte after some failures": failing,
	} {
		t.Run(name, func(t *testing.T) {
			w, server := serving(t, 1<<30, serve)
			if _, err := w.move(Progress{}, Item{URL: server + "/a.mp4"}); !errors.Is(err, errSlow) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A server that blocks transfers delays neither objects from buckets nor files of other apps.
func TestURLsHaveTheirOwnSlots(t *testing.T) {
	release := make(chan struct{})
	var begun sync.WaitGroup
	begun.Add(1)
	var once sync.Once
	w, server := serving(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "held") {
			once.Do(begun.Done)
			<-release
		}
		_, _ = w.Write([]byte("x"))
	})
	var held sync.WaitGroup
	held.Go(func() {
		var items []Item
		for i := range 8 {
			items = append(items, Item{URL: fmt.Sprintf("%s/held%d.mp4", server, i)})
		}
		_, faults := w.Save(context.Background(), folder, nil, items)
		if err := errors.Join(faults...); err != nil {
			t.Error(err)
		}
	})
	begun.Wait()
	w.moved(w.put("object.mp4", []byte("an object")))
	if _, faults := w.Save(t.Context(), "2/1/", nil, []Item{{URL: server + "/other.mp4"}}); errors.Join(faults...) != nil {
		t.Error(faults)
	}
	close(release)
	held.Wait()
}

// Every dialed address is checked, except that of a request's own proxy.
func TestEveryDialExceptToTheProxyIsChecked(t *testing.T) {
	var asked []string
	var mu sync.Mutex
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Host)
		mu.Unlock()
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	target := httptest.NewTLSServer(http.NotFoundHandler())
	defer target.Close()
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := publicClient(nil)
	client.Transport.(*publicOnly).proxy = func(r *http.Request) (*url.URL, error) {
		if strings.HasSuffix(r.URL.Hostname(), ".example") {
			return through, nil
		}
		return nil, nil
	}
	get := func(address string) error {
		resp, err := client.Get(address)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get("https://storage.example/a"); err == nil || strings.Contains(err.Error(), "no public address") || !slices.Equal(asked, []string{"storage.example:443"}) {
		t.Errorf("through the proxy: %v, it was asked for %q", err, asked)
	}
	localhost := strings.Replace(target.URL, "127.0.0.1", "localhost", 1)
	for _, address := range []string{target.URL, localhost, "https://" + through.Host, "https://10.0.0.1"} { // not through the proxy
		if err := get(address); err == nil || !strings.Contains(err.Error(), "no public address") {
			t.Errorf("%s: %v", address, err)
		}
	}
	client.Transport.(*publicOnly).proxy = func(*http.Request) (*url.URL, error) { return through, nil }
	asked = nil
	for _, address := range []string{"https://2130706433/a", "https://0x7f000001/a", "https://127.1/a", "https://0177.0.0.1/a", "https://127.0.0.1../a", "https://10.0.0.0x1/a", "https://１２７.0.0.1/a", "https://①②⑦.0.0.1/a"} {
		if err := get(address); !errors.Is(err, ErrImpossible) {
			t.Errorf("%s by the proxy: %v", address, err)
		}
	}
	if len(asked) > 0 {
		t.Errorf("the proxy was asked for %q", asked)
	}
	for _, address := range []string{"https://169.254.169.254/a", "https://[::1]/a"} { // the proxy may be in the private network
		if err := get(address); err == nil || !strings.Contains(err.Error(), "no public address") {
			t.Errorf("%s by the proxy: %v", address, err)
		}
	}
}

func TestOnlyListedHostsAreRead(t *testing.T) {
	hosts, err := ParseHosts("storage.example.com, *.example.NET")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Options{Hosts: hosts})
	for host, want := range map[string]bool{"storage.example.com": true, "a.example.net": true, "a.b.example.net": true, "example.net": false, "xstorage.example.com": false, "storage.example.com.evil.test": false, "evilexample.net": false} {
		if got := listed(hosts, host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
	if _, err := w.move(Progress{}, Item{URL: "https://evil.test/a.mp4"}); !errors.Is(err, ErrImpossible) || !strings.Contains(err.Error(), `doesn't list "evil.test"`) {
		t.Errorf("error %v", err)
	}
	for _, list := range []string{"", "a,,b", "https://a", "a:443", "*", "*.", "a*b"} {
		if hosts, err := ParseHosts(list); err == nil {
			t.Errorf("%q: %q", list, hosts)
		}
	}
}

func TestListedLoopbackAddressIsRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a recording") }))
	defer server.Close()
	file := Item{URL: server.URL + "/a.mp4", Size: 11}
	for list, want := range map[string]bool{"127.0.0.1": true, "localhost,127.0.0.2": false, "": false} {
		var hosts []string
		if list != "" {
			hosts, _ = ParseHosts(list)
		}
		w := newWorld(t, Options{Hosts: hosts})
		if _, err := w.move(Progress{}, file); (err == nil) != want || !want && !errors.Is(err, ErrImpossible) {
			t.Errorf("%q lists: %v", list, err)
		}
	}
	w := newWorld(t, Options{Hosts: []string{"10.0.0.1", "localhost"}}) // listing a private address or a name doesn't allow it
	for _, address := range []string{"http://10.0.0.1/a.mp4", "http://localhost/a.mp4", "https://10.0.0.1/a.mp4"} {
		if _, err := w.move(Progress{}, Item{URL: address, Size: 11}); err == nil {
			t.Errorf("%s was read", address)
		}
	}
}

func TestPublicAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "64:ff9b::808:808": true, "2400:3200::1": true,
		"64:ff9b::a00:1": false, "2002:808:808::1": false, "::8.8.8.8": false, "2001:0:1::1": false, "fec0::1": false, "2001:db8::1": false, "168.63.129.16": false, "::ffff:10.0.0.1": false, "fe80::1%eth0": false, "192.88.99.1": false,
		"64:ff9b:1::808:808": false, "100::1": false, "::ffff:0:8.8.8.8": false, "5f00::1": false, "4000::1": false, "fd00::1": false, "ff0e::1": false, "::1": false, "::": false, "3fff::1": false,
		"64:ff9b::7f00:1": false, "::ffff:169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "255.255.255.255": false, "3ffe::1": true,
	} {
		if got := public(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}
