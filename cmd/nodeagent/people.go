package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// question is what the subcommands that ask the agent have in common.
type question struct {
	flags  *pflag.FlagSet
	root   string
	output string
	file   string
}

func newQuestion(name string) *question {
	q := &question{flags: pflag.NewFlagSet("nodeagent "+name, pflag.ContinueOnError)}
	q.flags.StringVar(&q.root, "root-dir", "/var/lib/kubelet", "root folder of the agent to ask")
	q.flags.StringVarP(&q.output, "output", "o", "", "json or yaml instead of text")
	return q
}

// parse reads the arguments, of which n must not be flags.
func (q *question) parse(args []string, n int, what string) error {
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	if q.flags.NArg() != n {
		return fmt.Errorf("usage: %s %s", q.flags.Name(), what)
	}
	switch q.output {
	case "", "json", "yaml":
		return nil
	}
	return fmt.Errorf("-o %s: want json or yaml", q.output)
}

// print writes the answer in the form asked for.
func (q *question) print(v any, text func(io.Writer)) error {
	if q.output == "" {
		text(visible{os.Stdout})
		return nil
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err == nil && q.output == "yaml" {
		out, err = yaml.JSONToYAML(out)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Println(strings.TrimSpace(string(out)))
	return err
}

// visible shows control characters as a mark: what containers say and how files
// are named must not steer the terminal of the one who looks.
type visible struct{ out io.Writer }

func (v visible) Write(text []byte) (int, error) {
	_, err := v.out.Write(bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text))
	return len(text), err
}

func runVersion(_ context.Context, args []string) error {
	q := newQuestion("version")
	if err := q.parse(args, 0, ""); err != nil {
		return err
	}
	v := map[string]string{"nodeagent": config.AgentVersion, "kubernetes": config.KubernetesVersion, "gitVersion": config.GitVersion()}
	return q.print(v, func(w io.Writer) { fmt.Fprintln(w, config.Version()) })
}

func runPods(ctx context.Context, args []string) error {
	q := newQuestion("pods")
	if err := q.parse(args, 0, "[-o json|yaml]"); err != nil {
		return err
	}
	report, err := local.NewClient(q.root).Report(ctx)
	if err != nil {
		return err
	}
	return q.print(report, func(w io.Writer) { printPods(w, report, time.Now()) })
}

func printPods(w io.Writer, r local.Report, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAMESPACE\tNAME\tREADY\tSTATUS\tRESTARTS\tAGE\tIP\tWAITS FOR")
	for _, p := range r.Pods {
		ready, restarts := 0, int32(0)
		for _, c := range p.Status.ContainerStatuses {
			if c.Ready {
				ready++
			}
			restarts += c.RestartCount
		}
		age := "-"
		if p.Status.StartTime != nil {
			age = duration.HumanDuration(now.Sub(p.Status.StartTime.Time))
		}
		fmt.Fprintf(t, "%s\t%s\t%d/%d\t%s\t%d\t%s\t%s\t%s\n", p.Namespace, p.Name, ready, len(p.Spec.Containers), pod.Word(p.Status, p.Ending), restarts, age, p.Status.PodIP, strings.Join(p.Waits, "; "))
	}
	t.Flush()
	if r.Node.Runtime != "" {
		fmt.Fprintf(w, "\nruntime: %s\n", r.Node.Runtime)
	}
	if r.Node.Network != "" {
		fmt.Fprintf(w, "\nnetwork: %s\n", r.Node.Network)
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w, "\nNot taken:")
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s\n", p.Error())
	}
}

func runExplain(ctx context.Context, args []string) error {
	q := newQuestion("explain")
	if err := q.parse(args, 1, "POD [-o json|yaml]   (a name, namespace/name or UID)"); err != nil {
		return err
	}
	report, err := local.NewClient(q.root).Report(ctx)
	if err != nil {
		return err
	}
	var hits []local.Pod
	for _, p := range report.Pods {
		name := q.flags.Arg(0)
		if name == p.Name || name == p.Namespace+"/"+p.Name || name == string(p.UID) {
			hits = append(hits, p)
		}
	}
	if len(hits) == 0 {
		return fmt.Errorf("no pod %q: see nodeagent pods", q.flags.Arg(0))
	}
	return q.print(hits, func(w io.Writer) {
		for _, p := range hits {
			printExplain(w, p, report.Node, time.Now())
		}
	})
}

func printExplain(w io.Writer, p local.Pod, n local.Node, now time.Time) {
	wanted := "to run"
	if p.Ending {
		wanted = "to be gone"
	}
	fmt.Fprintf(w, "pod       %s/%s\nuid       %s\nfrom      %s\nwanted    %s, restart policy %s\n", p.Namespace, p.Name, p.UID, p.Origin, wanted, p.Spec.RestartPolicy)
	fmt.Fprintf(w, "seen      %s", p.Status.Phase)
	if p.Status.PodIP != "" {
		fmt.Fprintf(w, ", address %s", p.Status.PodIP)
	}
	if p.Status.Reason != "" {
		fmt.Fprintf(w, ", %s: %s", p.Status.Reason, p.Status.Message)
	}
	fmt.Fprintln(w)
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			fmt.Fprintf(w, "          %s: %s, ready %t, %d restarts\n", c.Name, containerState(c.State), c.Ready, c.RestartCount)
			if last := c.LastTerminationState.Terminated; last != nil {
				fmt.Fprintf(w, "          %s, before: exit code %d, %s %s\n", c.Name, last.ExitCode, last.Reason, last.Message)
			}
		}
	}
	for _, d := range p.Doing {
		fmt.Fprintf(w, "doing     %s for %s (%s)\n", d.Step, now.Sub(d.Since).Round(time.Millisecond), d.Why)
	}
	for _, reason := range p.Waits {
		fmt.Fprintf(w, "waits for %s\n", reason)
	}
	if len(p.Doing)+len(p.Waits) == 0 {
		fmt.Fprintln(w, "waits for nothing")
	}
	fmt.Fprintln(w, "steps")
	for _, s := range p.Steps {
		fmt.Fprintf(w, "  %s  %10s  %s", s.Began.Local().Format("15:04:05.000"), time.Duration(s.Took).Round(10*time.Microsecond), s.Step)
		if s.Error != "" {
			fmt.Fprintf(w, ": %s", s.Error)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "told")
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  %s  %s %s %s", note.At.Local().Format("15:04:05.000"), note.Reason, note.Container, note.Message)
		if note.Count > 1 {
			fmt.Fprintf(w, " (%d times)", note.Count)
		}
		fmt.Fprintln(w)
	}
}

func containerState(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running since " + s.Running.StartedAt.Local().Format(time.DateTime)
	case s.Terminated != nil:
		return fmt.Sprintf("ended with exit code %d, %s", s.Terminated.ExitCode, s.Terminated.Reason)
	case s.Waiting != nil:
		return strings.TrimSuffix("waiting, "+s.Waiting.Reason+": "+s.Waiting.Message, ": ")
	}
	return "unknown"
}

func runPlan(ctx context.Context, args []string) error {
	q := newQuestion("plan")
	q.flags.StringVarP(&q.file, "filename", "f", "", "manifest to plan for")
	if err := q.parse(args, 0, "-f FILE [-o json|yaml]"); err != nil {
		return err
	}
	if q.file == "" {
		return errors.New("usage: nodeagent plan -f FILE")
	}
	if _, err := os.Stat(q.file); err != nil {
		return err
	}
	client := local.NewClient(q.root)
	report, err := client.Report(ctx)
	if err != nil {
		return err
	}
	update, err := readManifest(ctx, q.file, report.Node.Name)
	if err != nil {
		return err
	}
	plans := map[string]local.Plan{}
	for _, d := range update.Pods {
		p, err := client.Plan(ctx, d.Pod)
		if err != nil {
			return err
		}
		plans[d.Pod.Namespace+"/"+d.Pod.Name] = p
	}
	var wrong []error
	for _, p := range update.Problems {
		wrong = append(wrong, p)
	}
	err = q.print(plans, func(w io.Writer) {
		for _, d := range update.Pods {
			name := d.Pod.Namespace + "/" + d.Pod.Name
			fmt.Fprintf(w, "%s: %s\n", name, plans[name].Verdict)
			for i, s := range plans[name].Steps {
				fmt.Fprintf(w, "  %2d. %s\n", i+1, s)
			}
			for _, reason := range plans[name].Waits {
				fmt.Fprintf(w, "  waits for %s\n", reason)
			}
		}
	})
	return errors.Join(append(wrong, err)...)
}

// readManifest reads pods the way the file source does.
func readManifest(ctx context.Context, path, nodeName string) (source.Update, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan source.Update)
	done := make(chan error, 1)
	go func() {
		done <- source.NewFile(source.FileOptions{Path: path, NodeName: nodeName, Reread: time.Hour}).Run(ctx, updates)
	}()
	for {
		select {
		case u := <-updates:
			if len(u.Held) > 0 && len(u.Problems) == 0 {
				continue // in doubt whether somebody still writes it
			}
			cancel()
			<-done
			return u, nil
		case err := <-done:
			return source.Update{}, err
		}
	}
}
