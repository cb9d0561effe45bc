package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.Local)

func TestBlockerLine(t *testing.T) {
	p := timeline.Pod{Stuck: true, Blocker: &pod.Blocker{Cause: pod.Image, What: "image \"x\":\nnot   found", Since: noon, Next: noon.Add(100 * time.Second), Remedy: "check it"}}
	now := noon.Add(time.Minute)
	if got, want := blockerLine(p, now), `stuck: waits for image "x": not found, since 12:00:00 (1m0s), next try in 40s; check it`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.Blocker.Step = "stop/x"
	if got := blockerLine(p, now); !strings.Contains(got, "at the latest for 40s more") {
		t.Errorf("of what ends by itself: %s", got)
	}
	if got := blockerLine(timeline.Pod{}, now); got != "waits for nothing" {
		t.Errorf("of a pod that is well: %s", got)
	}
}

// Whatever the width, each bar is as wide as the others and no line is wider.
func TestPrintStart(t *testing.T) {
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	s := timeline.Start{Began: noon, Ended: at(100), Accounted: 1, Spans: []timeline.Span{
		{Name: "sandbox", Kind: timeline.Work, Began: at(0), Ended: at(50), Critical: true},
		{Name: "pull", Container: strings.Repeat("long", 20), Kind: timeline.Work, Began: at(1), Ended: at(2)},
		{Name: "agent", Kind: timeline.Agent, Began: at(50), Ended: at(51)},
		{Name: string(pod.ReadyWait), Container: "app", Kind: timeline.Wait, Began: at(51), Ended: at(100), Critical: true, Open: true},
	}, Milestones: []timeline.Milestone{{Name: "ready", At: at(100)}}}
	for _, columns := range []int{60, 100, 160} {
		var out strings.Builder
		printStart(&out, s, columns)
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		if len(lines) != 5 || !strings.Contains(lines[0], "100.0 %") || !strings.Contains(lines[0], "1ms the agent's own") {
			t.Fatalf("it says\n%s", out.String())
		}
		for _, line := range lines[1:4] {
			if len(line) != len(lines[1]) || len(line) > columns {
				t.Errorf("%d columns of %d: %s", len(line), columns, line)
			}
		}
		if !strings.HasPrefix(lines[1], "  *") || !strings.Contains(lines[1], "|==") || !strings.Contains(lines[3], "..|") || strings.HasPrefix(lines[2], "  *") {
			t.Errorf("it says\n%s", out.String())
		}
	}
}
