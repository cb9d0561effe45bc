package pod

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// world is a pod in a script: its value, a simulated runtime, a clock, and the
// record on disk.
type world struct {
	t       *testing.T
	begin   time.Time
	now     time.Time
	node    Node
	pod     Pod
	runtime View
	hidden  View   // what the runtime fails to show
	record  []byte // the pod's record on disk
	made    map[string]int
	seen    View            // the runtime as an observe in flight found it
	saved   Record          // what a save in flight writes
	answers map[string]Done // of actions that the runtime did already
	noted   map[int]int     // notes printed: count by sequence number
	gone    bool
}

func newWorld(t *testing.T) *world {
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &world{
		t: t, begin: begin, now: begin,
		node: Node{Name: "n1", HostIPs: []string{"192.168.0.1"}, RuntimeName: "containerd"},
		made: map[string]int{}, answers: map[string]Done{}, noted: map[int]int{},
	}
}

// verbs are the commands of a script.
var verbs = map[string]func(w *world, a args, body []string) string{
	"pod":     (*world).verbPod,
	"want":    (*world).verbWant,
	"end":     (*world).verbEnd,
	"judge":   (*world).verbJudge,
	"resize":  (*world).verbResize,
	"plan":    (*world).verbPlan,
	"go":      (*world).verbGo,
	"ok":      (*world).verbOK,
	"fail":    (*world).verbFail,
	"does":    (*world).verbDoes,
	"run":     (*world).verbRun,
	"runtime": (*world).verbRuntime,
	"probe":   (*world).verbProbe,
	"probes":  (*world).verbProbes,
	"node":    (*world).verbNode,
	"advance": (*world).verbAdvance,
	"renew":   (*world).verbRenew,
	"status":  (*world).verbStatus,
	"restart": (*world).verbRestart,
	"record":  (*world).verbRecord,
	"notes":   (*world).verbNotes,
	"expect":  (*world).verbExpect,
	"queue":   (*world).verbQueue,
	"told":    (*world).verbTold,
	"blocked": (*world).verbBlocked,
	"waited":  (*world).verbWaited,
}

func (w *world) command(t *testing.T, b block) string {
	lines := strings.Split(strings.TrimRight(b.command, "\n"), "\n")
	a := parseArgs(lines[0])
	verb := verbs[a.words[0]]
	if verb == nil {
		t.Fatalf("line %d: no verb %q", b.line, a.words[0])
	}
	w.t = t
	a.words = a.words[1:]
	return verb(w, a, lines[1:])
}

func (w *world) apply(e Event) { w.pod = Apply(w.pod, e) }

// verbPod makes a new world with the pod, as a source that names it for the
// first time does.
func (w *world) verbPod(a args, body []string) string {
	*w = *newWorld(w.t)
	spec := specOf(w.t, a, body)
	w.pod = New(Wanted{At: w.now, Spec: spec, Origin: "test", Hashes: hashesOf(spec)}, View{}, nil)
	return ""
}

// verbWant delivers a newer wish.
func (w *world) verbWant(a args, body []string) string {
	spec := specOf(w.t, a, body)
	w.apply(Wanted{At: w.now, Spec: spec, Origin: "test", Hashes: hashesOf(spec)})
	return ""
}

// verbEnd asks for the pod's end: end grace=5s unwanted phase=Failed reason=R
// disruption=M; with a disruption the reason is told.
func (w *world) verbEnd(a args, _ []string) string {
	grace := time.Duration(-1)
	if s := a.named["grace"]; s != "" {
		grace = duration(w.t, s)
	}
	var told []Note
	if a.named["disruption"] != "" {
		told = []Note{{Warning: true, Reason: a.named["reason"], Message: a.named["message"]}}
	}
	w.apply(Ended{At: w.now, Grace: grace, Phase: v1.PodPhase(a.named["phase"]), Reason: a.named["reason"],
		Message: a.named["message"], Disruption: a.named["disruption"], Unwanted: a.has("unwanted"), Told: told})
	return ""
}

// verbJudge gives the ledger's answer: judge waiting|granted|refused|again.
func (w *world) verbJudge(a args, _ []string) string {
	states := map[string]VerdictState{"again": Unasked, "waiting": Waiting, "granted": Granted, "refused": Refused}
	w.apply(Judged{At: w.now, Verdict: Verdict{State: states[a.word(0)], Reason: a.named["reason"], Message: a.named["message"]}})
	if w.pod.Verdict.State == Granted {
		w.write(w.pod.Record())
	}
	return ""
}

// verbResize gives the ledger's answer to a resize: resize
// again|granted|Deferred|Infeasible message=M.
func (w *world) verbResize(a args, _ []string) string {
	e := Resized{At: w.now, Desired: w.pod.Wish()}
	switch a.word(0) {
	case "granted":
		e.Verdict.State = Granted
		r := Apply(w.pod, e).Record()
		w.write(r)
		e.Record = &r
	case v1.PodReasonDeferred:
		e.Verdict = Verdict{State: Waiting, Reason: a.word(0), Message: a.named["message"]}
	case v1.PodReasonInfeasible:
		e.Verdict = Verdict{State: Refused, Reason: a.word(0), Message: a.named["message"]}
	}
	w.apply(e)
	return ""
}

// verbPlan prints what would be done, when to look again, and the waits.
func (w *world) verbPlan(args, []string) string {
	actions, _ := Plan(w.pod, w.node, w.now)
	var out strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&out, "%s: %s\n", describe(a), a.Why)
	}
	return out.String() + w.outlook()
}

// outlook prints when the plan is to be looked at again, and why.
func (w *world) outlook() string {
	_, wake := Plan(w.pod, w.node, w.now)
	var out strings.Builder
	for _, s := range Waits(w.pod, w.node, w.now) {
		fmt.Fprintf(&out, "waits: %s\n", s)
	}
	if !wake.IsZero() {
		fmt.Fprintf(&out, "wake: +%s\n", wake.Sub(w.now))
	}
	return out.String()
}

// verbGo begins what is planned.
func (w *world) verbGo(args, []string) string {
	var out strings.Builder
	for _, a := range w.start() {
		fmt.Fprintln(&out, describe(a))
	}
	return out.String()
}

// start begins what is planned.
func (w *world) start() []Action {
	actions, _ := Plan(w.pod, w.node, w.now)
	for _, a := range actions {
		if _, twice := w.pod.Doing[a.Key()]; twice {
			w.t.Errorf("planned while in flight: %s", a.Key())
		}
		switch a.Kind {
		case Observe:
			w.seen = cloneView(w.runtime)
		case Save:
			w.saved = w.pod.Record()
		}
		w.apply(Begun{At: w.now, Action: a})
	}
	if e, news := HeldUp(w.pod, w.node, w.now); news {
		w.apply(e)
	}
	return actions
}

// inFlight is the action that began and has this key.
func (w *world) inFlight(key string) Action {
	d, ok := w.pod.Doing[key]
	if !ok {
		w.t.Errorf("not in flight: %q among %v", key, sortedKeys(w.pod.Doing))
	}
	return d.Action
}

// verbOK ends an action well: ok create/app; ok observe old; ok stop/app-0/30
// code=0; ok mount renew=48m.
func (w *world) verbOK(a args, _ []string) string {
	w.finish(w.inFlight(a.word(0)), a)
	return ""
}

// verbFail ends an action badly: fail KEY reason=R message=M [uncertain]
// [canceled] [awaited] [effect] [usable]; with effect the runtime did it all the
// same, with usable a mount left what the volumes showed before.
func (w *world) verbFail(a args, _ []string) string {
	action := w.inFlight(a.word(0))
	if a.has("effect") {
		w.effect(action, a)
	}
	w.apply(Done{At: w.now, Action: action, Failure: &Failure{Reason: a.named["reason"], Message: a.named["message"],
		Uncertain: a.has("uncertain"), Canceled: a.has("canceled"), Awaited: a.has("awaited")}, Usable: a.has("usable")})
	return ""
}

// verbDoes has the runtime do an action in flight, whose answer comes later
// with ok: does create/app.
func (w *world) verbDoes(a args, _ []string) string {
	w.answers[a.word(0)] = w.effect(w.inFlight(a.word(0)), a)
	return ""
}

// verbRun lets everything work until there is nothing more to do; an action
// whose key begins with one of hold=KEY,KEY stays in flight.
func (w *world) verbRun(a args, _ []string) string {
	var out strings.Builder
	for range 100 {
		if w.gone {
			return out.String()
		}
		for _, action := range w.start() {
			fmt.Fprintln(&out, describe(action))
		}
		ready := slices.DeleteFunc(sortedKeys(w.pod.Doing), func(key string) bool {
			_, sent := w.answers[key]
			return a.holds(key) && (sent || !w.pod.Doing[key].Canceled)
		})
		if len(ready) == 0 {
			return out.String() + w.outlook()
		}
		for _, key := range ready {
			if d, ok := w.pod.Doing[key]; ok {
				w.finish(d.Action, a)
			}
		}
	}
	w.t.Errorf("no end of things to do:\n%s", out.String())
	return out.String()
}

// finish ends an action well, or as given up if it was.
func (w *world) finish(a Action, named args) {
	if _, sent := w.answers[a.Key()]; w.pod.Doing[a.Key()].Canceled && !sent {
		w.apply(Done{At: w.now, Action: a, Failure: &Failure{Canceled: true, Message: "given up"}})
		return
	}
	if a.Kind == Admit {
		w.verbJudge(args{words: []string{"granted"}}, nil)
		return
	}
	if a.Kind == Allocate {
		w.verbResize(args{words: []string{"granted"}}, nil)
		return
	}
	e, done := w.answers[a.Key()]
	if !done {
		e = w.effect(a, named)
	}
	delete(w.answers, a.Key())
	e.At = w.now
	w.apply(e)
	if a.Kind == Forget {
		w.gone = true
	}
}

// verbProbe gives an attempt's answer: probe app liveness
// success|fail|warn|error|broken [below] [id=ID]; below says that the threshold
// is not reached.
func (w *world) verbProbe(a args, _ []string) string {
	probes := map[string]Probe{"startup": Startup, "liveness": Liveness, "readiness": Readiness}
	results := map[string]Result{"success": Success, "fail": Fail, "warn": Success}
	outcomes := map[string]Outcome{"success": Passed, "fail": Failed, "warn": Warned, "error": Errored, "broken": Broken}
	result := results[a.word(2)]
	if a.has("below") {
		result = ResultNone
	}
	id := a.named["id"]
	if c := w.newest(a.word(0)); c != nil && id == "" {
		id = c.ID
	}
	w.apply(Probed{At: w.now, Container: a.word(0), ContainerID: id, Probe: probes[a.word(1)],
		Outcome: outcomes[a.word(2)], Result: result, Message: a.named["message"]})
	return ""
}

// verbProbes prints the probes that are to run.
func (w *world) verbProbes(args, []string) string {
	var out strings.Builder
	for _, q := range Probes(w.pod, w.node) {
		fmt.Fprintf(&out, "%s %s at %s", q.ContainerID, strings.ToLower(q.Kind.String()), q.Host)
		if q.Found {
			fmt.Fprint(&out, " found")
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// verbNode changes the node: node runtime="socket is dead" network="".
func (w *world) verbNode(a args, _ []string) string {
	if s, ok := a.named["runtime"]; ok {
		w.node.Runtime = s
	}
	if s, ok := a.named["network"]; ok {
		w.node.Network = s
	}
	if s, ok := a.named["maxbackoff"]; ok {
		w.node.MaxBackoff = duration(w.t, s)
	}
	w.apply(Tick{At: w.now})
	return ""
}

func (w *world) verbAdvance(a args, _ []string) string {
	w.now = w.now.Add(duration(w.t, a.word(0)))
	w.apply(Tick{At: w.now})
	return ""
}

// verbRestart restarts the agent: what was in flight is forgotten, and the pod
// is made from its record (restart lost: without) and the runtime's view.
func (w *world) verbRestart(a args, _ []string) string {
	var r *Record
	if len(w.record) > 0 && !a.has("lost") {
		r = &Record{}
		if err := json.Unmarshal(w.record, r); err != nil {
			w.t.Fatal(err)
		}
	}
	w.pod = New(Wanted{At: w.now, Spec: w.pod.Spec, Origin: w.pod.Origin, Hashes: w.pod.Hashes}, cloneView(w.runtime), r)
	if s := a.named["logged"]; s != "" {
		name, n, _ := strings.Cut(s, ":")
		w.pod = Apply(w.pod, Logged{At: w.now, Restarts: map[string]int32{name: int32(number(w.t, n))}})
	}
	w.noted = map[int]int{}
	return ""
}

func (w *world) write(r Record) {
	b, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.record = b
}

// verbRecord prints the record on disk, without the spec.
func (w *world) verbRecord(args, []string) string {
	var r Record
	if err := json.Unmarshal(w.record, &r); err != nil {
		w.t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "granted=%v started=%s phase=%q\n", r.Granted, w.since(r.Started), r.Phase)
	if r.Stop != nil {
		fmt.Fprintf(&out, "stop at=%s grace=%s phase=%q reason=%q\n", w.since(r.Stop.At), r.Stop.Grace, r.Stop.Phase, r.Stop.Reason)
	}
	for _, name := range sortedKeys(r.Containers) {
		c := r.Containers[name]
		fmt.Fprintf(&out, "%s: ran=%v restarts=%d backoff=%s pullbackoff=%s\n", name, c.Ran, c.Restarts, c.Backoff.Delay, c.PullBackoff.Delay)
	}
	return out.String()
}

// verbNotes prints the notes that are new since they were last printed.
func (w *world) verbNotes(args, []string) string {
	var out strings.Builder
	for _, n := range w.pod.Notes {
		if w.noted[n.Seq] == n.Count {
			continue
		}
		w.noted[n.Seq] = n.Count
		kind := "Normal"
		if n.Warning {
			kind = "Warning"
		}
		fmt.Fprintf(&out, "%s %s %s", kind, n.Reason, n.Message)
		if n.Container != "" {
			fmt.Fprintf(&out, " [%s]", n.Container)
		}
		if n.Count > 1 {
			fmt.Fprintf(&out, " x%d", n.Count)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// verbExpect fails the test whatever the golden output says:
// expect phase=Running restarts=app:1 idle.
func (w *world) verbExpect(a args, _ []string) string {
	s := Status(w.pod, w.node, w.now)
	if want := a.named["phase"]; want != "" && string(s.Phase) != want {
		w.t.Errorf("phase is %s, expected %s", s.Phase, want)
	}
	if want := a.named["restarts"]; want != "" {
		name, n, _ := strings.Cut(want, ":")
		if got := w.pod.Containers[name].Restarts; int(got) != number(w.t, n) {
			w.t.Errorf("restarts of %s are %d, expected %s", name, got, n)
		}
	}
	if actions, _ := Plan(w.pod, w.node, w.now); a.has("idle") && len(actions) > 0 {
		w.t.Errorf("expected nothing to do: %v", actions)
	}
	return ""
}

func (w *world) since(t time.Time) string { return t.Sub(w.begin).String() }

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
