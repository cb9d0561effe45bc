package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/node"
)

// What is built is declared, unless its gate or that of declaring is off.
func TestDeclaredFeatures(t *testing.T) {
	c := config.Default()
	if got := declaredFeatures(c); !slices.Equal(got, builtFeatures) {
		t.Errorf("declared: %v, want %v", got, builtFeatures)
	}
	c.Kubelet.FeatureGates = map[string]bool{"RestartAllContainersOnContainerExits": false}
	if got := declaredFeatures(c); !slices.Equal(got, builtFeatures[:1]) {
		t.Errorf("with one gate off: %v", got)
	}
	c.Kubelet.FeatureGates = map[string]bool{"NodeDeclaredFeatures": false}
	if got := declaredFeatures(c); len(got) != 0 {
		t.Errorf("with declaring off: %v", got)
	}
}

// What the loop sees of the runtime becomes what the Node says of it.
func TestRuntimeSeen(t *testing.T) {
	s := newRuntimeSeen()
	pokes := 0
	s.changed = func() { pokes++ }
	if now := s.now(); now.Error != node.RuntimeUnknown || now.Since.IsZero() {
		t.Errorf("at first: %+v", now)
	}
	rt := cri.Runtime{Name: "containerd", Version: "2.4.2", NetworkReady: "no network", StrictGroups: true, TellsFeatures: true,
		Handlers: map[string]cri.Handler{"runc": {UserNamespaces: true}, "": {}, "crun": {}}}
	s.see(rt, nil)
	now := s.now()
	if now.Error != "" || now.Network != "no network" || now.Session != 1 || !*now.Features.SupplementalGroupsPolicy {
		t.Errorf("up: %+v", now)
	}
	if h := now.Handlers; len(h) != 3 || h[0].Name != "" || h[1].Name != "crun" || !*h[2].Features.UserNamespaces {
		t.Errorf("handlers: %+v", h)
	}
	s.see(rt, nil)
	if s.now().Session != 1 {
		t.Error("a second look is another session")
	}
	s.see(cri.Runtime{}, errors.New("gone"))
	down := s.now()
	s.see(cri.Runtime{}, errors.New("still gone"))
	if now := s.now(); now.Error != "still gone" || !now.Since.Equal(down.Since) || now.Version != "2.4.2" {
		t.Errorf("down: %+v, since %v", now, down.Since)
	}
	rt.RuntimeReady = "not ready"
	s.see(rt, errors.New("not ready"))
	if now := s.now(); now.Error != "" || now.NotReady != "not ready" || now.Session != 2 {
		t.Errorf("back, but not ready: %+v", now)
	}
	if pokes != 5 {
		t.Errorf("told %d times of 5", pokes)
	}
}
