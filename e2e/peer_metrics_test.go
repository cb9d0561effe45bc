//go:build peer

package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
)

// TestPeerMetrics: the agent exposes the series, by name and labels, that the
// kubelet does of the same pods and the same machine.
func TestPeerMetrics(t *testing.T) {
	j := joinPeer(t)
	j.join()
	j.meter()
	ofPods := func(labels map[string]string) bool { return labels["namespace"] == j.ns }
	ofMachine := func(labels map[string]string) bool {
		return labels["machine_id"] != "" || labels["id"] == "/" || labels["cadvisorVersion"] != "" || len(labels) == 0
	}
	look := func() (all map[string][]string) {
		all = map[string][]string{}
		for _, path := range []string{"/metrics/cadvisor", "/metrics/resource"} {
			s := j.scrape(path)
			all["pods of "+path] = s.series(ofPods)
			all["machine of "+path] = slices.DeleteFunc(s.series(ofMachine), onlyTheirs.MatchString)
		}
		return all
	}
	var theirs map[string][]string
	j.eventually("the kubelet has looked at all containers", 2*time.Minute, func() error {
		before := theirs
		if theirs = look(); cmp.Equal(before, theirs) && strings.Contains(strings.Join(theirs["pods of /metrics/cadvisor"], "\n"), "network_receive") {
			return nil
		}
		time.Sleep(16 * time.Second) // longer than its period
		return errors.New("not yet")
	})
	j.must(j.Agent.Kill())
	j.Binary, j.Args = binary, nil
	j.must(j.Agent.Start())
	j.waitNode("is the agent's", func(n *v1.Node) bool {
		return nodeReady(n) && strings.Contains(n.Status.NodeInfo.KubeletVersion, "nodeagent")
	})
	if diff := cmp.Diff(theirs, look()); diff != "" {
		t.Errorf("the kubelet's series (-) and the agent's (+):\n%s", diff)
	}
}

// onlyTheirs are file systems in memory and of containers' layers, of which a
// kubelet has a series if they were mounted before it started, and disks that it
// has no name for.
var onlyTheirs = regexp.MustCompile(`device="(overlay_[^"]*|/(run|sys|tmp|mnt|dev/shm)[^"]*|)"`)

// series are name{label="value",...} of all that want wants.
func (s scraped) series(want func(labels map[string]string) bool) (all []string) {
	for name, f := range s {
		for _, m := range f.Metric {
			labels, text := map[string]string{}, []string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
				text = append(text, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if slices.Sort(text); want(labels) {
				all = append(all, name+"{"+strings.Join(text, ",")+"}")
			}
		}
	}
	slices.Sort(all)
	return all
}
