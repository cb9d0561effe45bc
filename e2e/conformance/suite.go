package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// The ends that a spec can have.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped" // by itself: it found that it can't be run here
)

// options says which specs are run, and how.
type options struct {
	focus string
	procs int
}

// result is how one spec ended.
type result struct {
	name    string
	state   string
	message string // of a failure, or why it was skipped
}

// runSuite makes a cluster of one node and runs specs against it.
func runSuite(tb lab.TB, o options) ([]result, error) {
	p, err := lab.StartControlPlane(tb, lab.ControlPlaneOptions{})
	if err != nil {
		return nil, err
	}
	l := lab.New(tb, lab.Options{Plane: p})
	if err := l.AddSuiteImages(); err != nil {
		return nil, err
	}
	a, err := l.Agent(agent)
	if err != nil {
		return nil, err
	}
	a.ClientCA = p.CAFile()
	if a.Kubeconfig, err = p.NodeKubeconfig(a.Node); err != nil {
		return nil, err
	}
	a.Config = map[string]any{"clusterDNS": []string{"10.96.0.10"}, "clusterDomain": "cluster.local"}
	if err := a.Start(); err != nil {
		return nil, err
	}
	if err := awaitReady(p, a.Node); err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(reports), os.MkdirAll(reports, 0o755)); err != nil {
		return nil, err
	}
	ran := ginkgo(p, o)
	log, err := os.ReadFile(a.LogFile())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(reports, "agent.log"), log, 0o644); err != nil {
		return nil, err
	}
	results, err := readReport(filepath.Join(reports, "report.json"))
	if err != nil {
		// Failed specs make ginkgo fail too; without a report it is news.
		return nil, errors.Join(ran, err)
	}
	return results, nil
}

// ownTmp runs a program with a /tmp of its own over the machine's. Specs of
// hostPath remove /tmp/test-file before they begin, as if the node were another
// machine; here that would be the file of those beside them.
const ownTmp = `mount -t tmpfs tmpfs "$0" && mkdir "$0/upper" "$0/work" &&
	mount -t overlay tmp -o lowerdir=/tmp,upperdir="$0/upper",workdir="$0/work" /tmp && exec "$@"`

// ginkgo runs the specs, from where the control plane is.
func ginkgo(p *lab.ControlPlane, o options) error {
	args := []string{
		"run", "--no-color", "--silence-skips", "--keep-going", "--timeout=2h", "--procs=" + fmt.Sprint(o.procs),
		"--output-dir=" + reports, "--json-report=report.json", "--junit-report=junit.xml",
		"--label-filter=NodeConformance", "--focus=" + o.focus,
	}
	args = append(args, filepath.Join(lab.SuiteDir(), "e2e.test"), "--",
		"--provider=skeleton", "--num-nodes=1", "--kubeconfig="+p.AdminKubeconfig(),
		"--kubectl-path="+filepath.Join(lab.ControlPlaneDir(), "kubectl"))
	log, err := os.Create(filepath.Join(reports, "suite.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	scratch := filepath.Join(reports, "tmp")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	cmd := p.Network.Command("unshare", append([]string{"--mount", "sh", "-c", ownTmp, scratch, filepath.Join(lab.SuiteDir(), "ginkgo")}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	fmt.Printf("running; see %s\n", log.Name())
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the suite: %w; see %s", err, log.Name())
	}
	return nil
}

// awaitReady returns when the node is there and takes pods.
func awaitReady(p *lab.ControlPlane, node string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	one := fields.OneTermEqualSelector("metadata.name", node)
	_, err := watchtools.UntilWithSync(ctx, cache.NewListWatchFromClient(p.Client().CoreV1().RESTClient(), "nodes", "", one),
		&v1.Node{}, nil, func(e watch.Event) (bool, error) { return ready(e.Object.(*v1.Node)), nil })
	if err != nil {
		return fmt.Errorf("wait for the node to be Ready: %w", err)
	}
	return nil
}

func ready(n *v1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// report is what is read of ginkgo's JSON report.
type report []struct {
	SpecReports []struct {
		ContainerHierarchyTexts    []string
		LeafNodeType, LeafNodeText string
		State                      string
		Failure                    struct{ Message string }
	}
}

// readReport reads how the specs ended that were to be run.
func readReport(file string) ([]result, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var suites report
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("read report %s: %w", file, err)
	}
	var results []result
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			r := result{strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " "), s.State, s.Failure.Message}
			spec := s.LeafNodeType == "It"
			switch {
			case r.state == skipped && r.message == "":
				continue // not asked for
			case r.state != passed && r.state != skipped:
				r.state = failed // also: panicked, timed out, interrupted
			}
			switch {
			case spec:
				results = append(results, r)
			case r.state == failed:
				return nil, fmt.Errorf("the suite's %s failed: %s", s.LeafNodeType, r.message)
			}
		}
	}
	return results, nil
}
