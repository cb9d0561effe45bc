package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestProbes is what probes do to containers.
func TestProbes(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.must(b.AddServerImage())
	b.start()
	b.share(map[string]func(*bed){
		"HTTPMakesReady":       httpMakesReady,
		"LivenessExecRestarts": livenessExecRestarts,
	})
}

// serverOf is a container that runs the lab's server, with its probes in YAML.
func serverOf(args, probes string) string {
	return fmt.Sprintf(`
terminationGracePeriodSeconds: 5
containers:
- name: main
  image: %s
  args: [%s]
  %s`, lab.ServerImage, args, strings.ReplaceAll(strings.Trim(probes, "\n"), "\n", "\n  "))
}

// told says whether people were told so of the pod.
func told(p *local.Pod, reason, text string) bool {
	return p != nil && slices.ContainsFunc(p.Notes, func(n local.Note) bool {
		return n.Reason == reason && strings.Contains(n.Message, text)
	})
}

func httpMakesReady(b *bed) {
	b.apply("http", podOf("http", serverOf("", `readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}`)))
	b.ready("http")
}

func livenessExecRestarts(b *bed) {
	b.apply("liveness", podOf("liveness", `
terminationGracePeriodSeconds: 60
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap '' TERM; touch /up; sleep 3; rm /up; while true; do sleep 1; done"]
  livenessProbe: {exec: {command: [cat, /up]}, initialDelaySeconds: 1, periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 2}`))
	b.await("liveness", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	p := b.pod("liveness")
	if !told(p, "Unhealthy", "Liveness probe failed: cat: can't open '/up'") || !told(p, "Killing", "Container main failed liveness probe, will be restarted") {
		b.t.Errorf("notes %+v", p.Notes)
	}
}
