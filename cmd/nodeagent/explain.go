package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// explained is all that there is to say of a pod.
type explained struct {
	local.Pod
	Timeline timeline.Pod `json:"timeline"`
}

func runExplain(ctx context.Context, args []string) error {
	q := newQuestion("explain")
	if err := q.parseBetween(args, 0, 1, "[POD] [-o json|yaml]   (a name, namespace/name or UID; without one: all pods that are stuck)"); err != nil {
		return err
	}
	client, name := local.NewClient(q.root), q.flags.Arg(0)
	answer, err := client.Timeline(ctx, name)
	if err != nil {
		return err
	}
	if name == "" {
		return q.print(stuck(answer), func(w io.Writer) { printStuck(w, answer) })
	}
	report, err := client.Report(ctx)
	if err != nil {
		return err
	}
	var hits []explained
	for _, t := range answer.Pods {
		if i := slices.IndexFunc(report.Pods, func(p local.Pod) bool { return p.UID == t.UID }); i >= 0 {
			hits = append(hits, explained{report.Pods[i], t})
		}
	}
	if len(hits) == 0 {
		return fmt.Errorf("no pod %q: see nodeagent pods", name)
	}
	return q.print(hits, func(w io.Writer) {
		for _, e := range hits {
			printExplain(w, e, answer.At)
		}
	})
}

// stuck are the pods that do not get on.
func stuck(a timeline.Answer) []timeline.Pod {
	return slices.DeleteFunc(slices.Clone(a.Pods), func(p timeline.Pod) bool { return !p.Stuck })
}

func printStuck(w io.Writer, a timeline.Answer) {
	coming := 0
	for _, p := range a.Pods {
		switch {
		case p.Stuck:
			fmt.Fprintf(w, "%s/%s  %s\n", p.Namespace, p.Name, blockerLine(p, a.At))
		case p.Blocker != nil:
			coming++
		}
	}
	fmt.Fprintf(w, "%d of %d pods are stuck, %d are on their way\n", len(stuck(a)), len(a.Pods), coming)
}

// blockerLine says in one line what the pod waits for, since when and what to do.
func blockerLine(p timeline.Pod, now time.Time) string {
	b := p.Blocker
	if b == nil {
		return "waits for nothing"
	}
	line := fmt.Sprintf("waits for %s, since %s (%s)", oneLine(b.What),
		b.Since.Local().Format(time.TimeOnly), rough(now.Sub(b.Since)))
	if p.Stuck {
		line = "stuck: " + line
	}
	switch left := b.Next.Sub(now); {
	case left <= 0:
	case b.Step != "":
		line += ", at the latest for " + rough(left) + " more"
	default:
		line += ", next try in " + rough(left)
	}
	if b.Remedy != "" && p.Stuck {
		line += "; " + b.Remedy
	}
	return line
}

// oneLine is what others say in one line: a container's last words could be
// written like lines of ours.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// rough is a duration with as many digits as people care for.
func rough(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

func printExplain(w io.Writer, p explained, now time.Time) {
	fmt.Fprintln(w, blockerLine(p.Timeline, now))
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
		fmt.Fprintf(w, ", %s: %s", p.Status.Reason, oneLine(p.Status.Message))
	}
	fmt.Fprintln(w)
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			fmt.Fprintf(w, "          %s: %s, ready %t, %d restarts\n", c.Name, containerState(c.State), c.Ready, c.RestartCount)
			if last := c.LastTerminationState.Terminated; last != nil {
				fmt.Fprintf(w, "          %s, before: exit code %d, %s %s\n", c.Name, last.ExitCode, last.Reason, oneLine(last.Message))
			}
		}
	}
	for _, d := range p.Doing {
		fmt.Fprintf(w, "doing     %s for %s (%s)\n", d.Step, now.Sub(d.Since).Round(time.Millisecond), d.Why)
	}
	for _, reason := range p.Waits {
		fmt.Fprintf(w, "waits for %s\n", oneLine(reason))
	}
	if n := len(p.Timeline.Starts); n > 0 {
		printStart(w, p.Timeline.Starts[n-1], width())
	}
	printPast(w, p.Pod)
}

// printPast writes the newest steps and what was told.
func printPast(w io.Writer, p local.Pod) {
	fmt.Fprintln(w, "steps")
	for _, s := range p.Steps {
		fmt.Fprintf(w, "  %s  %10s  %s", s.Began.Local().Format("15:04:05.000"), time.Duration(s.Took).Round(10*time.Microsecond), s.Step)
		if s.Error != "" {
			fmt.Fprintf(w, ": %s", oneLine(s.Error))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "told")
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  %s  %s %s %s", note.At.Local().Format("15:04:05.000"), note.Reason, note.Container, oneLine(note.Message))
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
		return strings.TrimSuffix("waiting, "+s.Waiting.Reason+": "+oneLine(s.Waiting.Message), ": ")
	}
	return "unknown"
}

// width is that of the terminal, within reason.
func width() int {
	columns, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		columns = 100 // no terminal
	}
	return min(max(columns, 60), 160)
}

// printStart draws a start: a line per span, each with a bar at its place in the
// whole.
func printStart(w io.Writer, s timeline.Start, columns int) {
	if s.Found && len(s.Spans) == 0 {
		fmt.Fprintln(w, "start     it ran already when the agent came up")
		return
	}
	state := "took"
	if s.Open {
		state = "goes on for"
	}
	fmt.Fprintf(w, "start     %s %s", state, rough(s.Ended.Sub(s.Began)))
	if s.Why != "" {
		fmt.Fprintf(w, ", after %s", s.Why)
	}
	var own time.Duration
	var rows []timeline.Span
	for _, o := range s.Spans {
		if o.Kind == timeline.Agent {
			own += o.Took()
		} else {
			rows = append(rows, o)
		}
	}
	fmt.Fprintf(w, "; %.1f %% of it accounted for, %s the agent's own; * waited for the next, = work, . wait\n", 100*s.Accounted, rough(own))
	slices.SortStableFunc(rows, func(a, b timeline.Span) int { return cmp.Or(a.Began.Compare(b.Began), a.Ended.Compare(b.Ended)) })
	printSpans(w, s, rows, columns)
	var reached []string
	for _, m := range s.Milestones {
		reached = append(reached, m.Name+" +"+rough(m.At.Sub(s.Began)))
	}
	fmt.Fprintf(w, "  %s\n", strings.Join(reached, ", "))
}

// printSpans writes spans of a start, a line each.
func printSpans(w io.Writer, s timeline.Start, rows []timeline.Span, columns int) {
	names := 0
	for _, o := range rows {
		names = max(names, len(rowName(o)))
	}
	names = min(names, columns/3)
	room := columns - names - 17
	for _, o := range rows {
		mark := ' '
		if o.Critical {
			mark = '*'
		}
		fmt.Fprintf(w, "  %c %-*.*s %8s  |%s|", mark, names, names, rowName(o), rough(o.Took()), bar(o, s.Began, s.Ended.Sub(s.Began), room))
		if o.Error != "" {
			fmt.Fprintf(w, "\n      %s", oneLine(o.Error))
		}
		fmt.Fprintln(w)
	}
}

// rowName says what a span is.
func rowName(o timeline.Span) string {
	name := spanNames[o.Name]
	if name == "" {
		name = o.Name
	}
	if o.Of != "" {
		name += " for " + o.Of
	}
	if o.Container != "" {
		name += " " + o.Container
	}
	return name
}

// spanNames are words for spans whose own names say little.
var spanNames = map[string]string{
	"source": "source, what it refers to", "status": "its turn to be told", "patch": "told to the apiserver",
	string(pod.Apiserver): "the apiserver", string(pod.Init): "runs:", string(pod.Looking): "look at the runtime",
	string(pod.ReadyWait): "readiness probe", string(pod.StartupWait): "startup probe", string(pod.Notice): "end to be noticed:",
	string(pod.Turn): "the agent's turn",
}

// bar is the span's place in the whole, of that many columns.
func bar(o timeline.Span, began time.Time, whole time.Duration, room int) string {
	at := func(t time.Time) int {
		if whole <= 0 {
			return 0
		}
		return min(max(int(float64(room)*float64(t.Sub(began))/float64(whole)), 0), room)
	}
	from := min(at(o.Began), room-1)
	to := max(at(o.Ended), from+1)
	fill := "="
	if o.Kind == timeline.Wait {
		fill = "."
	}
	return strings.Repeat(" ", from) + strings.Repeat(fill, to-from) + strings.Repeat(" ", room-to)
}
