// Conformance runs the specs of Kubernetes' own suite that say what a node must
// do, unmodified, against a lab: a control plane and one node whose agent is
// bin/nodeagent. What passes is listed in docs/CONFORMANCE.md, and the list may
// only grow: the run fails when a spec that it lists does not pass, and when one
// doesn't pass that the file has no reason for.
//
// Started in the repository's folder, as root, after
// hack/install conformance. Reports and logs are left in bin/conformance-report.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

const (
	recordFile = "docs/CONFORMANCE.md"
	agent      = "bin/nodeagent"
	reports    = "bin/conformance-report"
)

func main() {
	var o options
	flag.StringVar(&o.focus, "focus", "", "run only specs whose names match this")
	flag.IntVar(&o.procs, "procs", 10, "specs at the same time")
	rewrite := flag.Bool("rewrite", false, "bring "+recordFile+" up to date: new passes, new failures; no pass is taken back")
	flag.Parse()
	if err := run(o, *rewrite); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(o options, rewrite bool) error {
	if os.Geteuid() != 0 {
		return errors.New("containers, mounts and cgroups need root: run it with sudo")
	}
	asked, err := regexp.Compile(o.focus)
	if err != nil {
		return fmt.Errorf("read -focus: %w", err)
	}
	data, err := os.ReadFile(recordFile)
	if err != nil {
		return err
	}
	r, err := parseRecord(string(data))
	if err != nil {
		return fmt.Errorf("read %s: %w", recordFile, err)
	}
	var results []result
	ran := lab.Run(func(tb lab.TB) (err error) {
		results, err = runSuite(tb, o)
		return err
	})
	if len(results) == 0 {
		return errors.Join(ran, errors.New("no spec was run"))
	}
	summary(results)
	if rewrite {
		r.update(results)
		if err := os.WriteFile(recordFile, []byte(r.String()), 0o644); err != nil {
			return errors.Join(ran, err)
		}
	}
	return errors.Join(ran, r.complain(results, asked))
}

// complain prints what is not as the record says.
func (r *record) complain(results []result, asked *regexp.Regexp) error {
	complaints := r.compare(results, asked)
	for _, c := range complaints {
		fmt.Println(c)
	}
	if len(complaints) > 0 {
		return fmt.Errorf("%d specs are not as %s says", len(complaints), recordFile)
	}
	return nil
}

func summary(results []result) {
	count := map[string]int{}
	for _, s := range results {
		count[s.state]++
	}
	fmt.Printf("%d specs: %d passed, %d failed, %d skipped by the suite itself\n",
		len(results), count[passed], count[failed], count[skipped])
}
