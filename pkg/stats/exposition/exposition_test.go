package exposition

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	info "github.com/google/cadvisor/info/v1"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

func parse(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%.2000s", err, text)
	}
	return families
}

// TestHostileNames: whatever an image or a device is called, its series carry
// that name and nothing else comes of it; what isn't UTF-8 is replaced.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{`a"} 1`, "a\n# TYPE x counter\nx 1", `\`, `\"`, "\xff\xfe", "é\r\x00", strings.Repeat("x", 70000)} {
		c := &Cadvisor{Containers: []stats.Container{{
			Kind: stats.KindContainer, Name: name, Cgroup: "/a", Image: name, Spec: &info.ContainerSpec{},
			Stats: &info.ContainerStats{DiskIo: info.DiskIoStats{IoServiced: []info.PerDiskStats{{Device: name, Stats: map[string]uint64{"Read": 7}}}}},
		}}}
		families := parse(t, written(t, func(w io.Writer) error { return WriteCadvisor(w, c) }))
		if families["x"] != nil {
			t.Errorf("%q made a family", name)
		}
		m := families["container_fs_reads_total"].Metric
		if len(m) != 1 || m[0].Counter.GetValue() != 7 {
			t.Fatalf("%.100q: got %v", name, m)
		}
		for _, l := range m[0].Label {
			want := strings.ToValidUTF8(name, "\uFFFD\uFFFD")
			if n := l.GetName(); (n == "container" || n == "image" || n == "device") && l.GetValue() != want {
				t.Errorf("label %s of %.100q is %.100q", n, name, l.GetValue())
			}
		}
	}
}

// TestSameName: of two pods of one name, which a node has while the first ends,
// the newer one's series are given, each once.
func TestSameName(t *testing.T) {
	pod := func(start int64, cpu uint64) statsapi.PodStats {
		used := &statsapi.CPUStats{Time: metav1.Unix(start, 0), UsageCoreNanoSeconds: &cpu}
		return statsapi.PodStats{
			PodRef: statsapi.PodReference{Name: "p", Namespace: "n"}, StartTime: metav1.Unix(start, 0), CPU: used,
			Containers: []statsapi.ContainerStats{{Name: "c", CPU: used}},
		}
	}
	s := &statsapi.Summary{Pods: []statsapi.PodStats{pod(10, 1e9), pod(20, 2e9), pod(5, 3e9)}}
	text := written(t, func(w io.Writer) error { return WriteResource(w, s) })
	for _, want := range []string{
		`pod_cpu_usage_seconds_total{namespace="n",pod="p"} 2 20000` + "\n",
		`container_cpu_usage_seconds_total{container="c",namespace="n",pod="p"} 2 20000` + "\n",
	} {
		name, _, _ := strings.Cut(want, "{")
		if !strings.Contains(text, want) || strings.Count(text, "\n"+name+"{") != 1 {
			t.Errorf("want %s in:\n%s", want, text)
		}
	}
}

// TestNothing: a scrape that could read nothing says so, and is well formed.
func TestNothing(t *testing.T) {
	cadvisor := written(t, func(w io.Writer) error { return WriteCadvisor(w, &Cadvisor{Failed: true}) })
	resource := written(t, func(w io.Writer) error { return WriteResource(w, nil) })
	for _, want := range []string{"container_scrape_error", "machine_scrape_error", "resource_scrape_error"} {
		f := parse(t, cadvisor+resource)[want]
		if f == nil || f.Metric[0].Gauge.GetValue() != 1 {
			t.Errorf("%s isn't 1", want)
		}
	}
}

// lintKnown are the names that promlint dislikes. They are cAdvisor's and
// Kubernetes', and dashboards ask for them.
var lintKnown = map[string]string{
	"cadvisor_version_info":            "label names should be written in 'snake_case' not 'camelCase'",
	"container_cpu_load_d_average_10s": "metric names should not contain abbreviated units",
	"container_fs_inodes_total":        `non-counter metrics should not have "_total" suffix`,
	"container_memory_failcnt":         `counter metrics should have "_total" suffix`,
}

// TestLint: the series are as Prometheus recommends, but for known names.
func TestLint(t *testing.T) {
	c := randomCadvisor(3)
	c.Failed = false
	f := filler(1).NilChance(0)
	s := &statsapi.Summary{}
	f.Fill(s)
	for name, text := range map[string]string{
		"cadvisor": written(t, func(w io.Writer) error { return WriteCadvisor(w, c) }),
		"resource": written(t, func(w io.Writer) error { return WriteResource(w, s) }),
	} {
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if known, ok := lintKnown[p.Metric]; !ok || known != p.Text {
				t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
			}
		}
	}
}

// TestServe: a scraper gets the text that it understands, compressed if it says
// so.
func TestServe(t *testing.T) {
	for _, test := range []struct {
		accept string
		zipped bool
	}{
		{"", false}, {"gzip", true}, {"deflate, gzip;q=1.0, *;q=0.5", true}, {"GZIP", true}, {"gzip;q=0", false},
		{"gzip; q=0.0", false}, {"zstd", false}, {"identity, gzip;q=0.3", true}, {"xgzip", false},
	} {
		r := httptest.NewRequest("GET", "/metrics/resource", nil)
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")
		if test.accept != "" {
			r.Header.Set("Accept-Encoding", test.accept)
		}
		w := httptest.NewRecorder()
		if err := Serve(w, r, func(w io.Writer) error { return WriteResource(w, nil) }); err != nil {
			t.Fatal(err)
		}
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != test.zipped {
			t.Errorf("Accept-Encoding %q: compressed is %t", test.accept, got)
		}
		body := io.Reader(w.Body)
		if test.zipped {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		if format := expfmt.ResponseFormat(w.Header()); format.FormatType() != expfmt.TypeTextPlain {
			t.Errorf("Prometheus takes %q for %q", w.Header().Get("Content-Type"), format)
		}
		b, err := io.ReadAll(body)
		if err != nil || parse(t, string(b))["resource_scrape_error"] == nil {
			t.Errorf("Accept-Encoding %q: %v, %q", test.accept, err, b)
		}
	}
}

type broken struct{ http.ResponseWriter }

var errCut = errors.New("cut off")

func (broken) Write([]byte) (int, error) { return 0, errCut }

// TestServeCutOff: a scraper that goes away is an error, said once.
func TestServeCutOff(t *testing.T) {
	for _, accept := range []string{"", "gzip"} {
		r := httptest.NewRequest("GET", "/metrics/cadvisor", nil)
		r.Header.Set("Accept-Encoding", accept)
		c := node(50)
		err := Serve(broken{httptest.NewRecorder()}, r, func(w io.Writer) error { return WriteCadvisor(w, c) })
		if !errors.Is(err, errCut) {
			t.Errorf("Accept-Encoding %q: got %v", accept, err)
		}
	}
}

// node is one with so many pods of one container each, as a scrape shows it.
func node(pods int) *Cadvisor {
	disks := []info.PerDiskStats{{Device: "/dev/vda", Major: 252, Stats: map[string]uint64{"Read": 1234567, "Write": 2345678}}}
	of := func(kind stats.Kind, cgroup, name string) stats.Container {
		c := stats.Container{
			Kind: kind, Cgroup: cgroup, Name: name,
			Spec:  &info.ContainerSpec{CreationTime: time.Unix(1700000000, 0), HasCpu: true, HasMemory: true},
			Stats: &info.ContainerStats{Timestamp: time.Unix(1700000000, 0)},
		}
		c.Spec.Cpu.Quota = 10000
		c.Stats.Cpu.Usage.Total, c.Stats.Cpu.Usage.User = 123456789012, 98765432109
		c.Stats.Memory.Usage, c.Stats.Memory.WorkingSet = 123456789, 98765432
		c.Stats.DiskIo.IoServiceBytes, c.Stats.DiskIo.IoServiced = disks, disks
		if kind == stats.KindSandbox {
			c.Stats.Network.Interfaces = []info.InterfaceStats{{Name: "eth0", RxBytes: 123456}}
		}
		return c
	}
	c := &Cadvisor{Now: time.Unix(1700000001, 0), Pressure: true, Machine: &info.MachineInfo{}, Version: &info.VersionInfo{}}
	c.Containers = append(c.Containers, of(stats.KindMachine, "/", ""))
	for i := range pods {
		cgroup := fmt.Sprintf("/kubepods/burstable/pod%08d-5678-4abc-9def-0123456789ab", i)
		for kind := stats.KindPod; kind <= stats.KindContainer; kind++ {
			p := of(kind, cgroup, "")
			if kind != stats.KindPod {
				p.ID = fmt.Sprintf("%060x%d", i, kind)
				p.Cgroup += "/" + p.ID
				p.Image = "registry.example/some/image:v1.2.3"
			}
			if kind == stats.KindContainer {
				p.Name = "server"
			}
			p.Namespace, p.Pod = "default", fmt.Sprint("some-deployment-7d4b9c8f6d-", i)
			c.Containers = append(c.Containers, p)
		}
	}
	return c
}

// BenchmarkCadvisor writes a node with 100 pods.
func BenchmarkCadvisor(b *testing.B) {
	c := node(100)
	var size bytes.Buffer
	if err := WriteCadvisor(&size, c); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if err := WriteCadvisor(io.Discard, c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCadvisorGzip compresses it as well.
func BenchmarkCadvisorGzip(b *testing.B) {
	c := node(100)
	z := zippers.Get().(interface {
		io.WriteCloser
		Reset(io.Writer)
	})
	b.ReportAllocs()
	for b.Loop() {
		z.Reset(io.Discard)
		if err := errors.Join(WriteCadvisor(z, c), z.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNamesThatAreWrittenAlike make one series: a scraper refuses two alike.
func TestNamesThatAreWrittenAlike(t *testing.T) {
	c := stats.Container{Kind: stats.KindSandbox, Spec: &info.ContainerSpec{HasNetwork: true}, Stats: &info.ContainerStats{}}
	for _, name := range []string{"\xff", "\xfe", "eth0"} {
		c.Stats.Network.Interfaces = append(c.Stats.Network.Interfaces, info.InterfaceStats{Name: name})
	}
	var out bytes.Buffer
	if err := WriteCadvisor(&out, &Cadvisor{Containers: []stats.Container{c}}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		if series, _, ok := strings.Cut(line, "} "); ok && strings.Contains(series, "interface=") {
			if seen[series] {
				t.Errorf("twice: %s", series)
			}
			seen[series] = true
		}
	}
	if len(seen) == 0 {
		t.Error("no network")
	}
}
