package e2e

import (
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestAgentStopsInAnOutage: an agent that was started in an outage and is told to
// stop does not wait for the apiserver, however long it tried already.
func TestAgentStopsInAnOutage(t *testing.T) {
	t.Parallel()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, lab.Containerd2)
	j.join()
	j.create(sleeper("web"))
	j.waitReady("web")
	j.must(p.StopAPIServer())
	defer func() { j.must(p.StartAPIServer()) }() // to leave the cluster
	j.must(j.Agent.Stop())
	j.must(j.Agent.Start())
	<-time.After(20 * time.Second) // by now the waits between two attempts are long
	began := time.Now()
	j.must(j.Agent.Stop())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the agent stopped after %s", took)
	} else {
		t.Logf("the agent stopped after %s", took)
	}
}
