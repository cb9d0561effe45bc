package e2e

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// sleeper is a pod of the apiserver that ends at TERM.
func apiSleeper(name string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: c
    image: ` + lab.BusyboxImage + `
    command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]
`
}

// TestJoined: the node registers, becomes Ready, runs a pod of the apiserver and
// ends it; the apiserver refuses the agent nothing.
func TestJoined(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(apiSleeper("web"))
	p := j.waitReady("web")
	if p.Status.Phase != v1.PodRunning || p.Status.PodIP == "" || p.Status.HostIP == "" {
		t.Errorf("status: %+v", p.Status)
	}
	j.kubectl("delete", "pod", "web", "--wait=false")
	j.waitGone("web")
	j.refusedNothing()
}

// refusedNothing fails if the apiserver said Forbidden to the node and meant it:
// its authorizer learns a little later than the node which objects the node's
// pods refer to, and then allows what it refused.
func (j *joined) refusedNothing() {
	j.t.Helper()
	list, err := j.plane.Requests(func(r lab.Request) bool { return r.User == "system:node:"+j.Node })
	j.must(err)
	allowed := map[string]bool{}
	for _, r := range slices.Backward(list) {
		asked := r.Resource + " " + r.Namespace + "/" + r.Name
		switch {
		case r.Code != 403:
			allowed[asked] = true
		case !allowed[asked]:
			j.t.Errorf("forbidden: %s %s %s", r.Verb, asked, r.URI)
		}
	}
}
