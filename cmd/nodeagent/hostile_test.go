package main

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestExplainIsNotForged: what a container says last is shown in its own line,
// and neither steers the terminal nor turns text around.
func TestExplainIsNotForged(t *testing.T) {
	const words = "bye\nseen      Running\n\x1b[2Jtold\u202egnp.exe\u2028x"
	p := explained{Pod: local.Pod{Pod: &v1.Pod{}, Notes: []local.Note{{At: noon, Reason: "Failed", Message: words, Count: 1}}}}
	p.Status.Reason, p.Status.Message = "Failed", words
	p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "a", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: words}},
		LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: words}}}}
	p.Waits = []string{words}
	var text strings.Builder
	printExplain(visible{&text}, p, noon.Add(time.Minute))
	if strings.ContainsAny(text.String(), "\x1b\u202e\u2028") {
		t.Errorf("%q", text.String())
	}
	seen := 0
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "seen") {
			seen++
		}
	}
	if seen != 1 || strings.Count(text.String(), "bye seen Running") != 5 {
		t.Errorf("forged:\n%s", text.String())
	}
	text.Reset()
	printPods(visible{&text}, local.Report{Pods: []local.Pod{p.Pod}}, noon)
	if n := strings.Count(text.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
}
