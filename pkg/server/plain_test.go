package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// open is a kit whose caller may do everything.
func open(t *testing.T, change func(k *kit)) (*kit, func(method, path string) (int, string)) {
	t.Helper()
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	if change != nil {
		change(k)
	}
	k.start()
	c := k.caller(k.ca.issue("admin", x509.ExtKeyUsageClientAuth))
	return k, func(method, path string) (int, string) { return k.ask(c, method, path, "") }
}

// TestHealthz: all checks, one of them, all said, some left out; why one fails is
// for who asks for it by name.
func TestHealthz(t *testing.T) {
	var ill error
	_, ask := open(t, func(k *kit) {
		k.options.Health = []Check{Logs, {"syncloop", func(context.Context) error { return ill }}}
	})
	want := func(path string, code int, text string) {
		t.Helper()
		if gotCode, got := ask("GET", path); gotCode != code || got != text {
			t.Errorf("%s: %d %q, want %d %q", path, gotCode, got, code, text)
		}
	}
	want("/healthz", 200, "ok")
	want("/healthz?verbose", 200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n")
	want("/healthz/syncloop", 200, "ok")
	ill = errors.New("hangs")
	want("/healthz", 500, "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n")
	want("/healthz?exclude=syncloop", 200, "ok")
	want("/healthz/syncloop", 500, "internal server error: hangs\n")
	want("/healthz/ping", 200, "ok")
	if code, _ := ask("GET", "/healthz/nothing"); code != 404 {
		t.Errorf("a check that is none: code %d", code)
	}
}

// TestLogCheck: a log whose reader has stopped is an illness.
func TestLogCheck(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if err := taken(p[1]); err != nil {
		t.Error(err)
	}
	for err := error(nil); err == nil; {
		_, err = unix.Write(p[1], make([]byte, 4096))
	}
	if err := taken(p[1]); err == nil {
		t.Error("a full pipe is well")
	}
}

// TestHealthPort: the health port shares the checks and asks nobody.
func TestHealthPort(t *testing.T) {
	k := newKit(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	k.options.Config.HealthzPort, k.options.Config.HealthzBindAddress = ptr.To(int32(port)), "127.0.0.1"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- ServeHealth(ctx, k.options.Config, []Check{{"syncloop", func(context.Context) error { return nil }}}, k.options.Log)
	}()
	get := func(path string) string {
		r, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return string(body)
	}
	eventually(t, "well", func() bool { return get("/healthz") == "ok" })
	if got := get("/healthz/syncloop"); got != "ok" {
		t.Error(got)
	}
	if got := get("/pods"); !strings.HasPrefix(got, "404") {
		t.Error(got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPodList: the pods as they are, without what is the apiserver's alone.
func TestPodList(t *testing.T) {
	_, ask := open(t, nil)
	for _, path := range []string{"/pods", "/runningpods/"} {
		code, text := ask("GET", path)
		var list v1.PodList
		if err := json.Unmarshal([]byte(text), &list); err != nil || code != 200 {
			t.Fatalf("%d %v %s", code, err, text)
		}
		if list.Kind != "PodList" || list.APIVersion != "v1" || len(list.Items) != 1 {
			t.Fatalf("%s: %s", path, text)
		}
		p := list.Items[0]
		if p.Name != "web" || p.Namespace != "ns" || p.UID != "uid-1" || len(p.ManagedFields) != 0 || len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Image != "image" {
			t.Errorf("%s: %s", path, text)
		}
		if (p.Status.Phase == v1.PodPending) != (path == "/pods") {
			t.Errorf("%s: phase %q", path, p.Status.Phase)
		}
	}
}

// TestNoPods: an empty list is one, not null.
func TestNoPods(t *testing.T) {
	_, ask := open(t, func(k *kit) { *k.stub = stub{} })
	for _, path := range []string{"/pods", "/runningpods/"} {
		if _, text := ask("GET", path); !strings.Contains(text, `"items":[]`) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// TestConfigz: the configuration as it applies, without secrets.
func TestConfigz(t *testing.T) {
	k, ask := open(t, func(k *kit) {
		k.options.Config.StaticPodURLHeader = map[string][]string{"Authorization": {"Bearer hidden"}}
		k.options.Config.MaxPods = 17
	})
	code, text := ask("GET", "/configz")
	var got struct {
		KubeletConfig map[string]any `json:"kubeletconfig"`
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || code != 200 {
		t.Fatalf("%d %v", code, err)
	}
	if got.KubeletConfig["maxPods"] != 17.0 || got.KubeletConfig["kind"] != "KubeletConfiguration" || got.KubeletConfig["apiVersion"] != "kubelet.config.k8s.io/v1beta1" {
		t.Errorf("%s", text)
	}
	if strings.Contains(text, "hidden") || !strings.Contains(text, "Authorization") {
		t.Errorf("the header: %s", text)
	}
	if k.options.Config.StaticPodURLHeader["Authorization"][0] != "Bearer hidden" {
		t.Error("the agent's own was masked")
	}
}

// TestZPages: the pages of all components, as text and as JSON.
func TestZPages(t *testing.T) {
	k, ask := open(t, nil)
	if code, text := ask("GET", "/flagz"); code != 200 || !strings.Contains(text, "kubelet flagz") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask("GET", "/statusz"); code != 200 || !strings.Contains(text, "kubelet statusz") || !strings.Contains(text, "1.36") {
		t.Errorf("%d %s", code, text)
	}
	req, _ := http.NewRequest("GET", "https://"+k.address+"/flagz", nil)
	req.Header.Set("Accept", "application/json;v=v1beta1;g=config.k8s.io;as=Flagz")
	r, err := k.caller(k.ca.issue("admin", x509.ExtKeyUsageClientAuth)).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var got struct {
		Kind  string
		Flags map[string]string
	}
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Kind != "Flagz" || got.Flags["v"] != "2" {
		t.Errorf("%v %+v", err, got)
	}
}

// TestProfiles: they are shown where that is on.
func TestProfiles(t *testing.T) {
	_, ask := open(t, nil)
	for path, part := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/cmdline": "test", "/debug/pprof/symbol": "num_symbols",
	} {
		if code, text := ask("GET", path); code != 200 || !strings.Contains(text, part) {
			t.Errorf("%s: %d %.200s", path, code, text)
		}
	}
}

// TestVerbosity: how much is logged can be set while the agent runs.
func TestVerbosity(t *testing.T) {
	k, ask := open(t, nil)
	c := k.caller(k.ca.issue("admin", x509.ExtKeyUsageClientAuth))
	put := func(text string) (int, string) {
		req, _ := http.NewRequest("PUT", "https://"+k.address+"/debug/flags/v", strings.NewReader(text))
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(body)
	}
	if code, text := put("2"); code != 200 || text != "successfully set klog.logging.verbosity to 2\n" || k.level.Level() != slog.LevelInfo {
		t.Errorf("%d %q %v", code, text, k.level.Level())
	}
	if code, text := put("5"); code != 200 || k.level.Level() != slog.LevelDebug {
		t.Errorf("%d %q %v", code, text, k.level.Level())
	}
	for _, wrong := range []string{"", "loud", "-1", "99999999999", strings.Repeat("1", 100<<10)} {
		if code, _ := put(wrong); code != 400 || k.level.Level() != slog.LevelDebug {
			t.Errorf("%.20q: code %d", wrong, code)
		}
	}
	if code, _ := ask("GET", "/debug/flags/v"); code != 406 {
		t.Errorf("code %d", code)
	}
}

// TestTurnedOff: what the configuration turns off says so.
func TestTurnedOff(t *testing.T) {
	for name, c := range map[string]struct {
		change func(k *kit)
		paths  []string
		text   string
	}{
		"debugging handlers": {func(k *kit) { k.options.Config.EnableDebuggingHandlers = ptr.To(false) },
			[]string{"/run/a/b/c", "/exec/a/b/c", "/attach/a/b/c", "/portForward/a/b", "/containerLogs/a/b/c", "/runningpods/", "/debug/pprof/heap", "/logs/"},
			"Debug endpoints are disabled."},
		"profiling": {func(k *kit) { k.options.Config.EnableProfilingHandler = ptr.To(false) }, []string{"/debug/pprof/"}, "profiling endpoint is disabled."},
		"flags":     {func(k *kit) { k.options.Config.EnableDebugFlagsHandler = ptr.To(false) }, []string{"/debug/flags/v"}, "flags endpoint is disabled."},
		"log files": {func(k *kit) { k.options.Config.EnableSystemLogHandler = ptr.To(false) }, []string{"/logs/", "/logs/x"}, "logs endpoint is disabled."},
	} {
		t.Run(name, func(t *testing.T) {
			_, ask := open(t, c.change)
			for _, path := range c.paths {
				if code, text := ask("GET", path); code != 405 || strings.TrimSpace(text) != c.text {
					t.Errorf("%s: %d %q", path, code, text)
				}
			}
			if code, _ := ask("GET", "/pods"); code != 200 {
				t.Errorf("/pods: code %d", code)
			}
		})
	}
	_, ask := open(t, func(k *kit) { k.options.Config.EnableDebuggingHandlers = ptr.To(false) })
	for _, path := range []string{"/configz", "/flagz", "/statusz", "/debug/flags/v"} {
		if code, _ := ask("GET", path); code != 404 {
			t.Errorf("%s without debugging handlers: code %d", path, code)
		}
	}
}

// TestReadOnlyPort: what may be read may be by anybody, and nothing else is
// there.
func TestReadOnlyPort(t *testing.T) {
	k := newKit(t)
	k.options.Certificate = nil // nobody could be let in on the other port
	s, err := New(k.options)
	if err != nil {
		t.Fatal(err)
	}
	h := s.front(nil, s.readOnly())
	for request, want := range map[string]int{
		"GET /healthz": 200, "GET /healthz/ping": 200, "GET /pods": 200, "POST /pods": 405, "GET /runningpods/": 405, "GET /configz": 404,
		"POST /exec/ns/web/main": 405, "GET /logs/": 405, "GET /debug/pprof/": 405, "PUT /debug/flags/v": 404, "GET /": 404, "GET //exec": 301, "GET /flagz": 404,
		"POST /checkpoint/ns/web/main": 404, "GET /metrics/slis": 200, "DELETE /metrics/slis": 405,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "/", nil)
		r.URL.Path = path
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", request, w.Code, want)
		}
	}
}

// TestCheckpoint: of a container that runs; what is wrong has the kubelet's code.
func TestCheckpoint(t *testing.T) {
	k, ask := open(t, nil)
	code, text := ask("POST", "/checkpoint/ns/web/main?timeout=7")
	var got struct{ Items []string }
	if err := json.Unmarshal([]byte(text), &got); err != nil || code != 200 || len(got.Items) != 1 {
		t.Fatalf("%d %v %s", code, err, text)
	}
	if dir, name := filepath.Split(got.Items[0]); filepath.Clean(dir) != filepath.Join(k.options.Process.Root, "checkpoints") || !strings.HasPrefix(name, "checkpoint-web_ns-main-2") || !strings.HasSuffix(name, ".tar") {
		t.Errorf("archive %s", got.Items[0])
	}
	if info, err := os.Stat(filepath.Dir(got.Items[0])); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v %v", info, err)
	}
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/checkpoint/ns/other/main":         {404, "pod does not exist"},
		"/checkpoint/ns/web/other":          {404, "container other does not exist"},
		"/checkpoint/ns/web/main?timeout=x": {404, "cannot parse value of timeout parameter"},
	} {
		if code, text := ask("POST", path); code != want.code || text != want.text {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	k.stub.checkpoint = cri.ErrNoCheckpoints
	if code, _ := ask("POST", "/checkpoint/ns/web/main"); code != 404 {
		t.Errorf("a runtime that can't: %d", code)
	}
	k.stub.checkpoint = errors.New("criu is not happy")
	if code, text := ask("POST", "/checkpoint/ns/web/main"); code != 500 || text != "checkpointing of ns/web/main failed (criu is not happy)" {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := ask("GET", "/checkpoint/ns/web/main"); code != 405 {
		t.Errorf("GET: %d", code)
	}
	_, ask = open(t, func(k *kit) { k.options.Gate = func(string) bool { return false } })
	if code, _ := ask("POST", "/checkpoint/ns/web/main"); code != 404 {
		t.Errorf("without the gate: %d", code)
	}
}

// TestLogFiles: files and folders below the folder of logs, and nothing outside
// of it, however the path is written and whatever links there are.
func TestLogFiles(t *testing.T) {
	top := t.TempDir()
	dir, outside := filepath.Join(top, "log"), filepath.Join(top, "outside")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Join(dir, "pods"), filepath.Join(dir, "containers"), outside} {
		must(os.MkdirAll(d, 0o755))
	}
	must(os.WriteFile(filepath.Join(dir, "a log"), []byte("inside"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "page.html"), []byte("<script>alert(1)</script>"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "pods", "0.log"), []byte("inside"), 0o600))
	must(os.WriteFile(filepath.Join(outside, "secret"), []byte("SECRET"), 0o600))
	must(os.Symlink(filepath.Join(dir, "pods", "0.log"), filepath.Join(dir, "containers", "web.log")))
	must(os.Symlink("../pods", filepath.Join(dir, "containers", "pods")))
	must(os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "absolute")))
	must(os.Symlink("../outside/secret", filepath.Join(dir, "relative")))
	must(os.Symlink(outside, filepath.Join(dir, "folder")))
	must(os.Symlink("/proc/self/environ", filepath.Join(dir, "proc")))
	must(os.Symlink("loop", filepath.Join(dir, "loop")))
	must(os.Symlink(dir, filepath.Join(top, "link")))
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "<b>"), nil, 0o600))

	for _, from := range []string{dir, filepath.Join(top, "link")} {
		k, ask := open(t, func(k *kit) {
			mux := http.NewServeMux()
			mux.Handle("GET /logs/", fileLogs(from))
			k.next = mux
		})
		_ = k
		for path, want := range map[string]string{
			"/logs/a%20log": "inside", "/logs/containers/web.log": "inside", "/logs/containers/pods/0.log": "inside", "/logs/page.html": "<script>alert(1)</script>",
		} {
			if code, text := ask("GET", path); code != 200 || text != want {
				t.Errorf("%s: %d %q", path, code, text)
			}
		}
		code, text := ask("GET", "/logs/")
		if code != 200 || !strings.Contains(text, `<a href="containers/">containers/</a>`) || strings.Contains(text, "<b>") {
			t.Errorf("list: %d %s", code, text)
		}
		for _, path := range []string{
			"/logs/absolute", "/logs/relative", "/logs/folder/", "/logs/folder/secret", "/logs/proc", "/logs/loop", "/logs/fifo", "/logs/nothing",
			"/logs/../outside/secret", "/logs/%2e%2e/outside/secret", "/logs/..%2foutside%2fsecret", "/logs/%252e%252e/outside/secret", "/logs/..%252foutside%252fsecret",
			"/logs//" + outside + "/secret", "/logs/%2f" + outside + "/secret", "/logs/..%5coutside%5csecret", "/logs/pods/../../outside/secret", "/logs/a%20log/../../outside/secret",
			"/logs/absolute%00", "/logs/a%20log%00",
		} {
			began := time.Now()
			if code, text := ask("GET", path); code < 300 || strings.Contains(text, "SECRET") {
				t.Errorf("%s: %d %.40q", path, code, text)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("%s took %v", path, d)
			}
		}
	}
}

// TestLogFilesRunNowhere: a browser runs nothing of what is in a log.
func TestLogFilesRunNowhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page.html"), []byte("<script>alert(1)</script>"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	fileLogs(dir).ServeHTTP(w, httptest.NewRequest("GET", "/logs/page.html", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "sandbox;") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
