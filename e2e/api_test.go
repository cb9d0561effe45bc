package e2e

import (
	"encoding/json"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// proxied is what the node answers at a path, through the apiserver.
func (j *joined) proxied(path string) string {
	j.t.Helper()
	out, err := j.plane.Kubectl("get", "--raw", "/api/v1/nodes/"+j.Node+"/proxy"+path)
	j.must(err)
	return out
}

// TestAPI: who has the right reads the node's pods through the apiserver.
func TestAPI(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"one"},"spec":{"containers":[{"name":"main","image":"` + lab.BusyboxImage + `","command":["sleep","1000"]}]}}`)
	j.waitReady("one")
	out := j.proxied("/pods")
	var list v1.PodList
	j.must(json.Unmarshal([]byte(out), &list))
	if len(list.Items) != 1 || list.Items[0].Name != "one" || list.Items[0].Status.Phase != v1.PodRunning {
		t.Errorf("the node's pods: %s", out)
	}
}
