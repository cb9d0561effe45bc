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
	return q.parseBetween(args, n, n, what)
}

// parseBetween reads the arguments, of which that many must not be flags.
func (q *question) parseBetween(args []string, least, most int, what string) error {
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	if n := q.flags.NArg(); n < least || n > most {
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

// visible shows control characters, and those that turn the direction of text
// around, as a mark: what containers say and how files are named must not steer
// the terminal of the one who looks, nor deceive him.
type visible struct{ out io.Writer }

func (v visible) Write(text []byte) (int, error) {
	_, err := v.out.Write(bytes.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) && r != '\n' && r != '\t' && r != '\u200c' && r != '\u200d' {
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
		fmt.Fprintf(t, "%s\t%s\t%d/%d\t%s\t%d\t%s\t%s\t%s\n", p.Namespace, p.Name, ready, len(p.Spec.Containers), pod.Word(p.Status, p.Ending), restarts, age, p.Status.PodIP, oneLine(strings.Join(p.Waits, "; ")))
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
