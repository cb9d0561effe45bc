package pod

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// amounts makes a list from pairs: cpu, 1, memory, 1Gi.
func amounts(pairs ...string) v1.ResourceList {
	l := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestQoS(t *testing.T) {
	full := amounts("cpu", "1", "memory", "1Gi")
	tests := []struct {
		name       string
		containers []v1.ResourceRequirements
		pod        *v1.ResourceRequirements
		want       v1.PodQOSClass
	}{
		{"nothing", []v1.ResourceRequirements{{}}, nil, v1.PodQOSBestEffort},
		{"zero", []v1.ResourceRequirements{{Requests: amounts("cpu", "0")}}, nil, v1.PodQOSBestEffort},
		{"other resources", []v1.ResourceRequirements{{Requests: amounts("ephemeral-storage", "1Gi"), Limits: amounts("ephemeral-storage", "1Gi")}}, nil, v1.PodQOSBestEffort},
		{"request", []v1.ResourceRequirements{{Requests: amounts("cpu", "1")}}, nil, v1.PodQOSBurstable},
		{"limits alone", []v1.ResourceRequirements{{Limits: full}}, nil, v1.PodQOSGuaranteed},
		{"equal", []v1.ResourceRequirements{{Requests: full, Limits: full}}, nil, v1.PodQOSGuaranteed},
		{"written differently", []v1.ResourceRequirements{{Requests: amounts("cpu", "1000m", "memory", "1024Mi"), Limits: full}}, nil, v1.PodQOSGuaranteed},
		{"one limit lacks", []v1.ResourceRequirements{{Limits: amounts("cpu", "1")}}, nil, v1.PodQOSBurstable},
		{"one container lacks", []v1.ResourceRequirements{{Limits: full}, {}}, nil, v1.PodQOSBurstable},
		{"less than the limit", []v1.ResourceRequirements{{Requests: amounts("cpu", "1", "memory", "1Mi"), Limits: full}}, nil, v1.PodQOSBurstable},
		{"pod level wins", []v1.ResourceRequirements{{}}, &v1.ResourceRequirements{Limits: full}, v1.PodQOSGuaranteed},
		{"pod level request", []v1.ResourceRequirements{{Limits: full}}, &v1.ResourceRequirements{Requests: full}, v1.PodQOSBurstable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &v1.Pod{Spec: v1.PodSpec{Resources: tt.pod}}
			for _, r := range tt.containers {
				p.Spec.Containers = append(p.Spec.Containers, v1.Container{Resources: r})
			}
			if got := QoS(p); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	p := &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{{}}, Containers: []v1.Container{{Resources: v1.ResourceRequirements{Limits: full}}}}}
	if got := QoS(p); got != v1.PodQOSBurstable {
		t.Errorf("with an init container that asks for nothing: %s", got)
	}
}

func TestRestartable(t *testing.T) {
	tests := []struct {
		pod  string // the pod's policy
		line string // the container
		zero bool   // restarted after exit code 0
		one  bool   // after 1
		four bool   // after 4
	}{
		{"Always", "main a", true, true, true},
		{"OnFailure", "main a", false, true, true},
		{"Never", "main a", false, false, false},
		{"Always", "init a", false, true, true},
		{"OnFailure", "init a", false, true, true},
		{"Never", "init a", false, false, false},
		{"Never", "sidecar a", true, true, true},
		{"Always", "debug a", false, false, false},
		{"Always", "main a policy=Never", false, false, false},
		{"Never", "main a policy=OnFailure", false, true, true},
		{"Never", "main a rules=In:4,5", false, false, true},
		{"Never", "main a rules=NotIn:0,4", false, true, false},
		{"Always", "main a policy=Never rules=In:1", false, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.pod+" "+tt.line, func(t *testing.T) {
			p := specOf(t, args{named: map[string]string{"restart": tt.pod}}, []string{tt.line})
			m := members(p)[0]
			for code, want := range map[int32]bool{0: tt.zero, 1: tt.one, 4: tt.four} {
				if got := restartable(p, m, code); got != want {
					t.Errorf("after %d: %v, want %v", code, got, want)
				}
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	b := Backoff{}
	if due := b.Due(now, 0); due != now {
		t.Errorf("the first restart waits until %s", due)
	}
	var delays []time.Duration
	for range 7 {
		b = b.Next(now, now)
		delays = append(delays, b.Delay/time.Second)
	}
	if want := []time.Duration{10, 20, 40, 80, 160, 300, 300}; !slices.Equal(delays, want) {
		t.Errorf("delays %v, want %v", delays, want)
	}
	if due := b.Due(now, 15*time.Second); due != now.Add(15*time.Second) {
		t.Errorf("with a maximum: %s", due)
	}
	if due := b.Due(now.Add(backoffQuiet), 0); due != now.Add(backoffQuiet+backoffMax) {
		t.Errorf("after ten minutes: %s", due)
	}
	later := now.Add(backoffQuiet + 1)
	if due := b.Due(later, 0); due != later {
		t.Errorf("after more than ten quiet minutes: %s", due)
	}
	if n := b.Next(later, later); n.Delay != backoffInitial {
		t.Errorf("the delay that follows: %s", n.Delay)
	}
	if d := []time.Duration{retryDelay(1), retryDelay(2), retryDelay(4), retryDelay(5), retryDelay(99)}; !slices.Equal(d,
		[]time.Duration{time.Second, 2 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}) {
		t.Errorf("pauses of the machinery: %v", d)
	}
}

func TestNamesAndNumbers(t *testing.T) {
	high, secs, deletion := int32(SystemCritical), int64(7), int64(3)
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u"}}
	if FullName(p) != "web_shop" || Priority(p) != 0 || IsStatic(p) || specGrace(p) != 30*time.Second || (Pod{Spec: p}).UID() != "u" {
		t.Error("a plain pod")
	}
	p.Spec.Priority, p.Spec.TerminationGracePeriodSeconds = &high, &secs
	if Priority(p) != SystemCritical || specGrace(p) != 7*time.Second {
		t.Error("a pod with priority and grace")
	}
	p.DeletionGracePeriodSeconds = &deletion
	if specGrace(p) != 3*time.Second {
		t.Error("the grace of a deletion goes first")
	}
	for source, want := range map[string]bool{"file": true, "http": true, "api": false, "": false} {
		p.Annotations = map[string]string{SourceAnnotation: source}
		if IsStatic(p) != want {
			t.Errorf("static if from %q: %v", source, !want)
		}
	}
}

func TestFamilyOrder(t *testing.T) {
	tests := []struct {
		ips  []string
		host string
		want []string
	}{
		{nil, "192.168.0.1", nil},
		{[]string{"fd00::2", "10.0.0.2"}, "192.168.0.1", []string{"10.0.0.2", "fd00::2"}},
		{[]string{"10.0.0.2", "fd00::2"}, "fd00::1", []string{"fd00::2", "10.0.0.2"}},
		{[]string{"10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"}, "192.168.0.1", []string{"10.0.0.2", "fd00::2"}},
	}
	for _, tt := range tests {
		if got := familyOrder(tt.ips, tt.host); !slices.Equal(got, tt.want) {
			t.Errorf("%v on %s: %v, want %v", tt.ips, tt.host, got, tt.want)
		}
	}
}

// TestNotes keeps the newest notes and counts what is said again.
func TestNotes(t *testing.T) {
	p := Pod{}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	p.note(at, false, "A", "", "first")
	for i := range keptNotes {
		p.note(at, false, "B", "c", "%d", i)
	}
	p.note(at.Add(time.Second), false, "B", "c", "%d", 5)
	if len(p.Notes) != keptNotes || p.Notes[0].Message != "0" || p.Notes[keptNotes-1].Seq != keptNotes+1 {
		t.Errorf("notes %+v", p.Notes)
	}
	if n := p.Notes[5]; n.Count != 2 || n.At != at.Add(time.Second) {
		t.Errorf("said twice: %+v", n)
	}
}

func TestUIDs(t *testing.T) {
	for uid, want := range map[types.UID]bool{
		"6a3b1c0e-9b1f-4a51-8f53-0d4c1a1f7f10": true, "0123456789abcdef": true,
		"": false, "..": false, "a/b": false, "a_b": false, "a b": false, "a\n": false, "a.slice": false,
	} {
		if err := CheckUID(uid); (err == nil) != want {
			t.Errorf("UID %q: %v", uid, err)
		}
	}
}

// A warning in ever other words does not drive out all others: one about a
// container, as of its probe, or about the pod, as of sandboxes by their IDs.
func TestSimilarNotes(t *testing.T) {
	for _, container := range []string{"app", ""} {
		var p Pod
		p.note(time.Unix(0, 0), false, "Started", container, "Container started")
		for i := range 100 {
			p.note(time.Unix(int64(i), 0), true, "Unhealthy", container, "at %d", i)
		}
		last := p.Notes[len(p.Notes)-1]
		if len(p.Notes) != 1+similarNotes || p.Notes[0].Reason != "Started" || last.Message != "at 99" || last.Count != 100-similarNotes+1 || last.Seq != 1+similarNotes {
			t.Errorf("%d notes, the last is %+v", len(p.Notes), last)
		}
	}
}
