package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// timeline is what the agent says of how the pod came to be as it is.
func (b *bed) timeline(which string) (timeline.Pod, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := local.NewClient(b.Root).Timeline(ctx, which)
	if err == nil && len(a.Pods) != 1 {
		err = fmt.Errorf("%d pods are called %s", len(a.Pods), which)
	}
	if err != nil {
		return timeline.Pod{}, err
	}
	return a.Pods[0], nil
}

// accounted checks the pod's first start: at least 95 % of its time is accounted
// for, and all of the steps named are on its critical path. It returns the start.
func (b *bed) accounted(which string, critical ...string) timeline.Start {
	b.t.Helper()
	var p timeline.Pod
	b.eventually(which+" has started", 30*time.Second, func() (err error) {
		if p, err = b.timeline(which); err == nil && p.Starts[0].Open {
			err = fmt.Errorf("its start is not over: %+v", p.Blocker)
		}
		return err
	})
	s := p.Starts[0]
	path := map[string]bool{}
	for _, o := range s.Spans {
		path[strings.TrimSpace(o.Name+" "+o.Container)] = o.Critical
	}
	text, _ := json.MarshalIndent(s, "", " ")
	if s.Accounted < 0.95 {
		b.t.Errorf("%s: %.3f of its start is accounted for: %s", which, s.Accounted, text)
	}
	for _, name := range critical {
		if !path[name] {
			b.t.Errorf("%s: %q is not on the critical path: %s", which, name, text)
		}
	}
	took := s.Ended.Sub(s.Began)
	b.t.Logf("%s: %.2f %% of %v accounted for", which, 100*s.Accounted, took.Round(100*time.Microsecond))
	return s
}

// isStuck waits until the pod's one line says that it is stuck for that cause, in
// words that have all of these in them.
func (b *bed) isStuck(which string, cause pod.Cause, words ...string) {
	b.t.Helper()
	b.eventually(which+" is stuck for "+string(cause), 60*time.Second, func() error {
		p, err := b.timeline(which)
		if err != nil || !p.Stuck || p.Blocker.Cause != cause {
			return fmt.Errorf("%v: it is stuck: %v, %+v", err, p.Stuck, p.Blocker)
		}
		line, _, _ := strings.Cut(b.say("explain", which), "\n")
		for _, word := range append([]string{"stuck: waits for", "since"}, words...) {
			if !strings.Contains(line, word) {
				return fmt.Errorf("no %q in %q", word, line)
			}
		}
		b.t.Log(line)
		return nil
	})
}

// TestExplain: of ordinary starts nearly all of the time is accounted for, and of
// pods that are stuck the one thing is named that they wait for.
func TestExplain(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	slow := b.registry(lab.RegistryOptions{Delay: 500 * time.Millisecond})
	ref, _ := b.push(slow, "slow:1")
	b.start()
	b.share(map[string]func(*bed){
		"Ordinary": func(b *bed) {
			b.apply("ordinary", sleeper("ordinary"))
			b.accounted("ordinary-lab", "sandbox", "create main", "start main")
		},
		"InitContainers": func(b *bed) {
			b.apply("inits", podOf("inits", `
initContainers:
- {name: first, image: BUSYBOX, command: [sleep, "1"]}
- {name: second, image: BUSYBOX, command: [sleep, "0.5"]}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], readinessProbe: {exec: {command: ["true"]}, initialDelaySeconds: 1}}`))
			b.accounted("inits-lab", "sandbox", "start first", "init first", "init second", "start main", "readiness main")
		},
		"SlowPull": func(b *bed) {
			b.apply("slowpull", imagePod("slowpull", ref, "Always"))
			b.accounted("slowpull-lab", "pull main", "start main")
		},
		"Image": func(b *bed) {
			b.apply("noimage", imagePod("noimage", slow.Host+"/missing:1", "Always"))
			b.isStuck("noimage-lab", pod.Image, "/missing:1", "not found", "credentials")
		},
		"EnvSecret": func(b *bed) {
			b.apply("nosecret", podOf("nosecret", `
containers: [{name: main, image: BUSYBOX, command: [sleep, "1000"], envFrom: [{secretRef: {name: absent}}]}]`))
			b.isStuck("nosecret-lab", pod.Creation, `secret "absent" not found`)
		},
		"VolumeSecret": func(b *bed) {
			b.apply("novolume", podOf("novolume", `
volumes: [{name: v, secret: {secretName: absent}}]
containers: [{name: main, image: BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]`))
			b.isStuck("novolume-lab", pod.Volumes, `secret "absent" not found`)
		},
		"Unbuilt": func(b *bed) {
			b.apply("unbuilt", podOf("unbuilt", `
volumes: [{name: v, nfs: {server: s, path: /p}}]
containers: [{name: main, image: BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]`))
			b.isStuck("unbuilt-lab", pod.NotBuilt, "nfs", "not built")
		},
		"Crash": func(b *bed) {
			b.apply("crash", podOf("crash", `containers: [{name: main, image: BUSYBOX, command: [sh, -c, "exit 3"]}]`))
			b.isStuck("crash-lab", pod.BackingOff, "exit code 3", "next try in", "nodeagent logs -p crash-lab -c main")
		},
		"Readiness": func(b *bed) {
			b.apply("unready", podOf("unready", `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], readinessProbe: {periodSeconds: 1, exec: {command: [sh, -c, "echo not today; exit 1"]}}}`))
			b.isStuck("unready-lab", pod.ReadyWait, "not today")
		},
		"InitRuns": func(b *bed) {
			b.apply("initruns", podOf("initruns", `
initContainers: [{name: first, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}]
containers: [{name: main, image: BUSYBOX, command: [sleep, "1000"]}]`))
			b.isStuck("initruns-lab", pod.Init, "init container first")
		},
		"PostStart": func(b *bed) {
			b.apply("hooked", podOf("hooked", `
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], lifecycle: {postStart: {exec: {command: [sleep, "1000"]}}}}`))
			b.isStuck("hooked-lab", pod.Hook, "postStart hook of container main")
		},
		"Grace": func(b *bed) {
			b.apply("deaf", podOf("deaf", `
terminationGracePeriodSeconds: 25
containers: [{name: main, image: BUSYBOX, command: [sh, -c, "trap '' TERM; while true; do sleep 1; done"]}]`))
			b.ready("deaf")
			b.remove("deaf")
			b.isStuck("deaf-lab", pod.Grace, "container main", "at the latest for")
		},
	})
}

// TestExplainStuck: without a name, explain lists the pods that are stuck.
func TestExplainStuck(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("fine", sleeper("fine"))
	b.apply("stuck", podOf("stuck", `containers: [{name: main, image: BUSYBOX, imagePullPolicy: Never, command: [sleep, "1000"], envFrom: [{configMapRef: {name: absent}}]}]`))
	b.ready("fine")
	b.isStuck("stuck-lab", pod.Creation, "absent")
	out := b.say("explain")
	if !strings.Contains(out, "default/stuck-lab  stuck: waits for") || strings.Contains(out, "fine-lab") || !strings.Contains(out, "1 of 2 pods are stuck") {
		t.Errorf("it says\n%s", out)
	}
	b.must(b.Agent.Kill())
	b.start()
	b.ready("fine")
	p, err := b.timeline("fine-lab")
	b.must(err)
	if s := p.Starts[0]; !s.Found || s.Open || p.Stuck {
		t.Errorf("of a pod that ran before the agent: %+v", p)
	}
}

// TestExplainJoined: with an apiserver a start ends when that has taken that the
// pod is ready, and a pod that a finalizer holds says so.
func TestExplainJoined(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(sleeper("plain"))
	j.waitReady("plain")
	s := j.accounted(j.ns+"/plain", "source", "sandbox", "start main", "patch")
	if last := s.Milestones[len(s.Milestones)-1]; last.Name != "told" || s.Milestones[0].Name != "seen" {
		t.Errorf("milestones: %+v", s.Milestones)
	}
	j.create(podOf("held, finalizers: [example.org/hold]", "containers: [{name: main, image: BUSYBOX, command: [\"true\"]}]\nrestartPolicy: Never"))
	j.create(podOf("waits", "volumes: [{name: v, configMap: {name: absent}}]\ncontainers: [{name: main, image: BUSYBOX, volumeMounts: [{name: v, mountPath: /v}]}]"))
	j.kubectl("delete", "pod", "held", "--wait=false")
	j.isStuck(j.ns+"/held", pod.Finalizers, "example.org/hold")
	j.isStuck(j.ns+"/waits", pod.Volumes, `configmap "absent" not found`)
	j.kubectl("patch", "pod", "held", "--type=json", `-p=[{"op": "remove", "path": "/metadata/finalizers"}]`)
	j.waitGone("held")
}
