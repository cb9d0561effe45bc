package pod

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// effect does the action in the simulated runtime and says how it ended.
func (w *world) effect(a Action, named args) Done {
	e := Done{At: w.now, Action: a}
	switch a.Kind {
	case Pull:
		e.Image, e.Told = a.Image, []Note{{Reason: "Pulled", Message: fmt.Sprintf("Successfully pulled image %q", a.Image)}}
	case Observe:
		v := cloneView(w.runtime)
		if named.has("old") {
			v = cloneView(w.seen)
		}
		e.View = &v
	case Mount:
		if s := named.named["renew"]; s != "" {
			e.Renew = w.now.Add(duration(w.t, s))
		}
	case RunSandbox:
		n := w.next("sandbox")
		s := Sandbox{ID: fmt.Sprintf("s%d", n), Attempt: a.Attempt, Ready: true, CreatedAt: w.now,
			HostNetwork: w.pod.Spec.Spec.HostNetwork, IPs: []string{fmt.Sprintf("10.0.0.%d", n+1)}}
		w.runtime.Sandboxes = slices.Insert(w.runtime.Sandboxes, 0, s)
		e.Sandbox = &s
	case Create:
		c := Container{ID: fmt.Sprintf("%s-%d", a.Container, w.next(a.Container)), Name: a.Container, SandboxID: a.ID, Attempt: a.Attempt,
			Image: a.Image, ImageRef: a.Image + "@sha256:1", Hash: w.pod.Hashes[a.Container], CreatedAt: w.now}
		w.runtime.Containers = slices.Insert(w.runtime.Containers, 0, c)
		e.Container = &c
	case Start:
		c := w.byID(a.ID)
		c.State, c.StartedAt = Running, w.now
		got := *c
		e.Container = &got
	case StopContainer:
		if c := w.byID(a.ID); c != nil {
			w.exit(c, 143, named)
			got := *c
			e.Container = &got
		}
	case StopSandbox:
		w.loseSandbox(a.ID)
	case Remove:
		w.runtime.Containers = slices.DeleteFunc(w.runtime.Containers, func(c Container) bool { return c.ID == a.ID })
	case RemoveSandbox:
		w.runtime.Sandboxes = slices.DeleteFunc(w.runtime.Sandboxes, func(s Sandbox) bool { return s.ID == a.ID })
		w.runtime.Containers = slices.DeleteFunc(w.runtime.Containers, func(c Container) bool { return c.SandboxID == a.ID })
	case Save:
		r := w.saved
		w.write(r)
		e.Record = &r
	}
	return e
}

func (w *world) next(kind string) int {
	w.made[kind]++
	return w.made[kind] - 1
}

// exit ends a container with the code given, else with the usual one.
func (w *world) exit(c *Container, usual int32, named args) {
	if c.State == Exited {
		return
	}
	c.State, c.FinishedAt, c.ExitCode, c.Reason = Exited, w.now, usual, "Error"
	if s := named.named["code"]; s != "" {
		c.ExitCode = int32(number(w.t, s))
	}
	if c.ExitCode == 0 {
		c.Reason = "Completed"
	}
	if s := named.named["reason"]; s != "" {
		c.Reason = s
	}
}

// loseSandbox takes the sandbox down, and its containers with it.
func (w *world) loseSandbox(id string) {
	for i := range w.runtime.Sandboxes {
		if w.runtime.Sandboxes[i].ID == id {
			w.runtime.Sandboxes[i].Ready, w.runtime.Sandboxes[i].IPs = false, nil
		}
	}
	for i := range w.runtime.Containers {
		if c := &w.runtime.Containers[i]; c.SandboxID == id && c.State == Running {
			w.exit(c, 137, args{})
		}
	}
}

// verbRuntime changes the runtime behind the agent's back and hints at it:
// runtime dies|aborts [late]|vanishes|unknown|starts|makes NAME, runtime loses|downs|removes sandbox
// (with its containers, without them, altogether),
// runtime hides|shows all containers, runtime hints; the word quiet leaves out
// the hint.
func (w *world) verbRuntime(a args, _ []string) string {
	c := w.newest(a.word(1))
	switch a.word(0) {
	case "dies":
		w.exit(c, 1, a)
	case "aborts":
		// What containerd shows of a start whose caller went away.
		c.State, c.FinishedAt, c.ExitCode = Exited, w.now, 128
		c.Reason, c.Message = "StartError", "failed to create containerd task: context canceled"
		if a.has("late") { // the process was made
			c.Message = `failed to start containerd task "x": context canceled`
		}
	case "vanishes":
		id := c.ID
		w.runtime.Containers = slices.DeleteFunc(w.runtime.Containers, func(c Container) bool { return c.ID == id })
	case "unknown":
		c.State = Unknown
	case "starts":
		c.State, c.StartedAt = Running, w.now
	case "makes":
		// What a call to make it does whose caller gave it up.
		attempt := number(w.t, cmp.Or(a.named["attempt"], "0"))
		w.effect(Action{Kind: Create, Container: a.word(1), ID: w.runtime.Sandboxes[0].ID, Attempt: uint32(attempt), Image: FindContainer(w.pod.Spec, a.word(1)).Image}, a)
	case "hides":
		w.hidden = cloneView(w.runtime)
		w.runtime.Containers = nil
	case "shows":
		w.runtime = w.hidden
	case "loses":
		w.loseSandbox(w.runtime.Sandboxes[0].ID)
	case "downs":
		w.runtime.Sandboxes[0].Ready = false
	case "removes":
		w.effect(Action{Kind: RemoveSandbox, ID: w.runtime.Sandboxes[0].ID}, args{})
	case "hints":
	default:
		w.t.Fatalf("no such change of the runtime: %q", a.word(0))
	}
	if !a.has("quiet") {
		w.apply(Changed{At: w.now})
	}
	return ""
}

func (w *world) newest(name string) *Container {
	i := slices.IndexFunc(w.runtime.Containers, func(c Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &w.runtime.Containers[i]
}

func (w *world) byID(id string) *Container {
	i := slices.IndexFunc(w.runtime.Containers, func(c Container) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &w.runtime.Containers[i]
}

func cloneView(v View) View {
	return View{Sandboxes: slices.Clone(v.Sandboxes), Containers: slices.Clone(v.Containers)}
}

// describe prints an action.
func describe(a Action) string {
	s := a.Key()
	switch a.Kind {
	case RunSandbox, Create:
		s += fmt.Sprintf(" attempt=%d", a.Attempt)
	case PreStop:
		s += fmt.Sprintf(" grace=%s", a.Grace)
	case Cancel:
		return "cancel " + a.ID
	}
	if a.Kind == Pull || a.Kind == Create {
		s += " image=" + a.Image
	}
	return s
}

// specOf makes a pod from a compact form: `pod restart=Never grace=5s
// deadline=60s gates=a,b hostnetwork` and a line per container:
//
//	init|sidecar|main|debug NAME [image=I] [prestop] [poststart] [startup]
//	[liveness] [readiness] [probegrace=5s] [policy=Never] [rules=In:3,4]
func specOf(t *testing.T, a args, body []string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u1", Generation: 1}}
	p.Spec.RestartPolicy = v1.RestartPolicyAlways
	if s := a.named["restart"]; s != "" {
		p.Spec.RestartPolicy = v1.RestartPolicy(s)
	}
	p.Spec.TerminationGracePeriodSeconds = wholeSeconds(t, a.named["grace"])
	p.Spec.ActiveDeadlineSeconds = wholeSeconds(t, a.named["deadline"])
	p.Spec.HostNetwork = a.has("hostnetwork")
	if s := a.named["gates"]; s != "" {
		for _, g := range strings.Split(s, ",") {
			p.Spec.ReadinessGates = append(p.Spec.ReadinessGates, v1.PodReadinessGate{ConditionType: v1.PodConditionType(g)})
		}
	}
	if s := a.named["condition"]; s != "" {
		name, status, _ := strings.Cut(s, ":")
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodConditionType(name), Status: v1.ConditionStatus(status)}}
	}
	for _, line := range body {
		b := parseArgs(line)
		switch b.word(0) {
		case "volume":
			vol := v1.Volume{Name: b.word(1)}
			if err := json.Unmarshal([]byte(`{"`+b.word(2)+`":{}}`), &vol.VolumeSource); err != nil {
				t.Fatal(err)
			}
			p.Spec.Volumes = append(p.Spec.Volumes, vol)
			continue
		case "claim":
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, v1.PodResourceClaim{Name: b.word(1)})
			continue
		}
		c := containerOf(t, b)
		switch b.word(0) {
		case "init":
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case "sidecar":
			always := v1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case "main":
			p.Spec.Containers = append(p.Spec.Containers, c)
		case "debug":
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{EphemeralContainerCommon: v1.EphemeralContainerCommon(c)})
		default:
			t.Fatalf("no such role: %q", line)
		}
	}
	return p
}

func containerOf(t *testing.T, a args) v1.Container {
	c := v1.Container{Name: a.word(1), Image: "img", Lifecycle: &v1.Lifecycle{}}
	if s := a.named["image"]; s != "" {
		c.Image = s
	}
	if s := a.named["volumes"]; s != "" {
		for _, name := range strings.Split(s, ",") {
			c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: name, MountPath: "/" + name})
		}
	}
	if s := a.named["devices"]; s != "" {
		c.VolumeDevices = []v1.VolumeDevice{{Name: s, DevicePath: "/dev/" + s}}
	}
	if s := a.named["cpu"]; s != "" {
		c.Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(s)}
	}
	if a.has("resizerestarts") {
		c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer}}
	}
	hook := &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"true"}}}
	if a.has("poststart") {
		c.Lifecycle.PostStart = hook
	}
	if a.has("prestop") {
		c.Lifecycle.PreStop = hook
	}
	probe := &v1.Probe{TerminationGracePeriodSeconds: wholeSeconds(t, a.named["probegrace"])}
	if a.has("startup") {
		c.StartupProbe = probe
	}
	if a.has("liveness") {
		c.LivenessProbe = probe
	}
	if a.has("readiness") {
		c.ReadinessProbe = probe
	}
	if s := a.named["policy"]; s != "" {
		policy := v1.ContainerRestartPolicy(s)
		c.RestartPolicy = &policy
	}
	if s := a.named["rules"]; s != "" {
		action := v1.ContainerRestartRuleActionRestart
		s, all := strings.CutSuffix(s, "!all")
		if all {
			action = v1.ContainerRestartRuleActionRestartAllContainers
		}
		op, codes, _ := strings.Cut(s, ":")
		on := &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOperator(op)}
		for _, code := range strings.Split(codes, ",") {
			on.Values = append(on.Values, int32(number(t, code)))
		}
		c.RestartPolicyRules = []v1.ContainerRestartRule{{Action: action, ExitCodes: on}}
	}
	return c
}

func wholeSeconds(t *testing.T, s string) *int64 {
	if s == "" {
		return nil
	}
	n := int64(duration(t, s) / time.Second)
	return &n
}

// hashesOf are the hashes of the containers: here simply their images.
func hashesOf(p *v1.Pod) map[string]string {
	out := map[string]string{}
	for _, m := range members(p) {
		out[m.Name] = m.Image
	}
	return out
}

// verbStatus prints the pod's status.
func (w *world) verbStatus(args, []string) string {
	s := Status(w.pod, w.node, w.now)
	var out strings.Builder
	fmt.Fprintf(&out, "phase=%s", s.Phase)
	if s.Reason != "" || s.Message != "" {
		fmt.Fprintf(&out, " reason=%s message=%q", s.Reason, s.Message)
	}
	if s.PodIP != "" {
		fmt.Fprintf(&out, " ip=%s", s.PodIP)
	}
	fmt.Fprintln(&out)
	for _, c := range s.Conditions {
		if c.Status == v1.ConditionTrue && c.Reason == "" {
			continue
		}
		fmt.Fprintf(&out, "%s=%s %s %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses) {
		fmt.Fprintf(&out, "%s: %s restarts=%d", c.Name, stateOf(c.State), c.RestartCount)
		if c.Ready {
			out.WriteString(" ready")
		}
		if c.Started != nil && *c.Started {
			out.WriteString(" started")
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			fmt.Fprintf(&out, " last=(%s)", stateOf(c.LastTerminationState))
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func stateOf(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return fmt.Sprintf("terminated %d %s", s.Terminated.ExitCode, s.Terminated.Reason)
	case s.Waiting != nil && s.Waiting.Message != "":
		return fmt.Sprintf("waiting %s %q", s.Waiting.Reason, s.Waiting.Message)
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	}
	return "none"
}

// verbRenew says that an object that the pod refers to changed.
func (w *world) verbRenew(args, []string) string {
	w.apply(Renewed{At: w.now})
	return ""
}
