package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// bootstrapBed is a node of a cluster of its own, which gives certificates such
// a life; the node has a bootstrap token only.
func bootstrapBed(t *testing.T, life time.Duration) *joined {
	t.Helper()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{SigningDuration: life})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, "")
	bootstrap, err := p.BootstrapKubeconfig()
	j.must(err)
	j.Kubeconfig = filepath.Join(j.Agent.Dir, "etc", "kubelet.conf") // to be written
	j.Args = append(j.Args, "--bootstrap-kubeconfig", bootstrap, "--cert-dir", j.certDir())
	j.Config = map[string]any{"rotateCertificates": true}
	return j
}

func (j *joined) certDir() string { return filepath.Join(j.Root, "pki") }

// certificates are the users that asked the apiserver for certificates.
func (j *joined) certificates() (users []string) {
	j.t.Helper()
	requests, err := j.plane.Requests(func(r lab.Request) bool {
		return r.Resource == "certificatesigningrequests" && r.Verb == "create" && r.Code == 201
	})
	j.must(err)
	for _, r := range requests {
		users = append(users, r.User)
	}
	return users
}

// TestBootstrapAndRotation: a node with a bootstrap token joins by itself. Its
// certificate is renewed, as itself, again and again, and a pod that runs
// notices nothing.
func TestBootstrapAndRotation(t *testing.T) {
	t.Parallel()
	const life = 40 * time.Second
	j := bootstrapBed(t, life)
	j.join()
	if users := j.certificates(); len(users) != 1 || !strings.HasPrefix(users[0], "system:bootstrap:") {
		t.Errorf("certificates were asked for by %q", users)
	}
	written, err := os.ReadFile(j.Kubeconfig)
	j.must(err)
	if !strings.Contains(string(written), filepath.Join(j.certDir(), "kubelet-client-current.pem")) {
		t.Errorf("the kubeconfig:\n%s", written)
	}
	j.create(`{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: "` + lab.BusyboxImage + `", command: [sleep, "1000"]}]}}`)
	j.waitReady("a")
	deadline := time.Now().Add(5 * life)
	for len(j.certificates()) < 3 {
		if time.Now().After(deadline) {
			t.Fatalf("certificates were asked for by %q", j.certificates())
		}
		time.Sleep(time.Second)
	}
	users := j.certificates()
	if slices.ContainsFunc(users[1:], func(user string) bool { return user != "system:node:"+j.Node }) {
		t.Errorf("certificates were asked for by %q", users)
	}
	// By now the first has expired: what is written is written with the newest.
	j.kubectl("delete", "pod", "a", "--wait=false", "--grace-period=1")
	j.waitGone("a")
	refused, err := j.plane.Requests(func(r lab.Request) bool {
		return r.User == "system:node:"+j.Node && r.Code == 401
	})
	j.must(err)
	if len(refused) > 0 {
		t.Errorf("the apiserver refused %v", refused)
	}
}

// TestExpiredWhileOff: a node that was off for longer than its certificate
// lived comes back by itself.
func TestExpiredWhileOff(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second
	j := bootstrapBed(t, life)
	j.join()
	j.must(j.Agent.Kill())
	time.Sleep(life + time.Second)
	before := len(j.certificates())
	j.must(j.Agent.Start())
	on := time.Now().Truncate(time.Second) // as heartbeats are told
	j.waitNode("is reported again", func(n *v1.Node) bool {
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NodeReady {
				return !c.LastHeartbeatTime.Time.Before(on)
			}
		}
		return false
	})
	users := j.certificates()
	if len(users) <= before || !strings.HasPrefix(users[before], "system:bootstrap:") {
		t.Errorf("certificates were asked for by %q", users)
	}
	t.Logf("back after %s", time.Since(on).Round(100*time.Millisecond))
}
