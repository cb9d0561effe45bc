package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/trace/tracetest"
)

// traced has the agent send all traces to the address, soon.
func (b *bed) traced(address string) {
	b.Config = map[string]any{"tracing": map[string]any{"endpoint": address, "samplingRatePerMillion": 1000000}}
	b.Env = append(b.Env, "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_EXPORTER_OTLP_TIMEOUT=1000") // ms
}

// spans are those that were sent, by ID.
type spans map[string]tracetest.Span

// path are a span's name and those above it, from the top; missing says of one
// that was not sent.
func (all spans) path(s tracetest.Span) string {
	path := []string{s.Name}
	for s.Parent != "" {
		above, ok := all[s.Parent]
		if !ok {
			above.Name = "missing"
		}
		path = append(path, above.Name)
		s = above
	}
	slices.Reverse(path)
	return strings.Join(path, " > ")
}

// TestTraces: of a pod's life and of what people ask of it there are traces, in
// which calls to the runtime and the apiserver are below what they are made for,
// and every span says whose it is.
func TestTraces(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	l, err := j.Network.Listen("tcp", "127.0.0.1:0")
	j.must(err)
	c := tracetest.Serve(l)
	t.Cleanup(c.Close)
	j.traced(l.Addr().String())
	j.join()
	j.create(sleeper("web"))
	uid := string(j.waitReady("web").UID)
	if got := strings.TrimSpace(j.kubectl("exec", "web", "--", "echo", "hello")); got != "hello" {
		t.Errorf("the command said %q", got)
	}
	j.kubectl("delete", "pod", "web", "--wait=false")
	j.waitGone("web")
	j.gone("web", uid)
	j.must(j.Agent.Stop()) // which sends what is left
	all := spans{}
	for _, s := range c.Spans() {
		all[s.ID] = s
		if s.Resource["service.name"] != "kubelet" || s.Resource["host.name"] != j.Node {
			t.Fatalf("%s is of %v", s.Name, s.Resource)
		}
	}
	found := map[string]bool{}
	for _, s := range all {
		path := all.path(s)
		switch s.Attributes["k8s.pod.uid"] {
		case uid:
			found[path] = true
		case "": // a pod may be what a request does not name
			if !strings.HasPrefix(path, "GET /") {
				t.Errorf("%s says of no pod that it is about it: %v", path, s.Attributes)
			}
		}
	}
	const runtime = "runtime.v1.RuntimeService/"
	for _, want := range []string{
		"syncPod > admit", "syncPod > mount", "syncPod > pull > runtime.v1.ImageService/ImageStatus",
		"syncPod > sandbox > " + runtime + "RunPodSandbox", "syncPod > create > " + runtime + "CreateContainer", "syncPod > start > " + runtime + "StartContainer",
		"syncPod > mount > HTTP POST", // for a token
		"syncTerminatingPod > stop > " + runtime + "StopContainer", "syncTerminatingPod > stopsandbox > " + runtime + "StopPodSandbox", "syncTerminatedPod > erase",
		"status/patch > HTTP PATCH", "status/delete > HTTP DELETE",
	} {
		if !found[want] {
			t.Errorf("there is no %s", want)
		}
	}
	if !slices.ContainsFunc([]string{"GET", "POST"}, func(verb string) bool {
		return found[verb+" /exec/{namespace}/{pod}/{container} > "+runtime+"Exec"]
	}) {
		t.Error("there is no trace of the command")
	}
	if t.Failed() {
		for _, s := range all {
			t.Log(all.path(s), s.Attributes["k8s.pod.uid"])
		}
	}
}

// TestTracesWithoutCollector: where nobody takes traces, pods start all the same
// and the agent ends as it should; it says so once.
func TestTracesWithoutCollector(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.traced("127.0.0.1:1")
	b.start()
	const said = "traces cannot be sent"
	for i := range 3 {
		name := fmt.Sprintf("web%d", i)
		b.apply(name, sleeper(name))
		b.ready(name)
		b.eventually("traces were tried to be sent", 30*time.Second, func() error {
			if log := b.agentLog(); !strings.Contains(log, said) {
				return fmt.Errorf("the agent says nothing of it:\n%s", log)
			}
			return nil
		})
	}
	began := time.Now()
	b.must(b.Agent.Stop())
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the agent took %v to end", took)
	}
	log := b.agentLog()
	if n := strings.Count(log, said); n != 1 || strings.Count(log, "traces") != 1 {
		t.Errorf("the agent said it %d times:\n%s", n, log)
	}
}
