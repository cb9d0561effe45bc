package e2e

import (
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

func TestPodRunsAndGoes(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("web", sleeper("web"))
	p := b.ready("web")
	if got := len(b.instances(string(p.UID))); got != 1 {
		t.Fatalf("%d instances run, want 1", got)
	}
	t.Log(b.say("pods"))
	t.Log(b.say("explain", "web-lab"))
	b.remove("web")
	b.gone("web", string(p.UID))
}
