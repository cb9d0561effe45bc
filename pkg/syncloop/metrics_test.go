package syncloop

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// shows compares what the agent's own series show now.
func (b *bench) shows(t *testing.T, want map[string]float64) {
	t.Helper()
	synctest.Wait()
	got := metricstest.Of(b.series.Handler())
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
}

var uidLabel = regexp.MustCompile(`pod_uid="([^"]+)"`)

// checkSeries: series that name pods are of pods that have not ended.
func (w *world) checkSeries() {
	for series := range metricstest.Of(w.agent.series.Probes.Handler()) {
		m := uidLabel.FindStringSubmatch(series)
		if m == nil {
			continue
		}
		if a := w.agent.loop.actor(types.UID(m[1])); a == nil || pod.IsTerminal(a.now.Load().Phase) {
			w.violated("pod %s has ended, but there is %s", m[1], series)
		}
	}
}

// A start is timed as a whole, and each step of it.
func TestMetricsOfAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		p := bound("web")
		p.CreationTimestamp.Time = time.Now()
		p.Spec.HostUsers = new(false)
		p.Spec.InitContainers = []v1.Container{{Name: "first", Image: "run=10s"}}
		p.Spec.Containers[0].Image = "up=5s"
		p.Spec.Containers[0].ReadinessProbe = &v1.Probe{PeriodSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}
		b.agent.loop.grants.mu.Lock()
		b.agent.loop.grants.ledger.Users.First, b.agent.loop.grants.ledger.Users.Length, b.agent.loop.grants.ledger.Users.Count = 65536, 65536, 4
		b.agent.loop.grants.mu.Unlock()
		b.deliver(nil, p, static("alone", "s", "term=0s"))
		want := map[string]float64{
			`kubelet_running_pods`:                                              2,
			`kubelet_running_containers{container_state="running"}`:             2,
			`kubelet_running_containers{container_state="exited"}`:              1,
			`kubelet_desired_pods{static=""}`:                                   1,
			`kubelet_active_pods{static="true"}`:                                1,
			`kubelet_mirror_pods`:                                               0,
			`kubelet_started_pods_total`:                                        2,
			`kubelet_started_pods_errors_total`:                                 0,
			`kubelet_started_user_namespaced_pods_total`:                        1,
			`kubelet_started_containers_total{container_type="container"}`:      2,
			`kubelet_started_containers_total{container_type="init_container"}`: 1,
			`kubelet_terminated_containers_total{container_type="init_container",exit_code="0",reason="Completed"}`: 1,
			`kubelet_pod_start_duration_seconds_count`:                                                              2,
			`kubelet_pod_worker_start_duration_seconds_count`:                                                       2,
			`kubelet_containers_per_pod_count_sum`:                                                                  2,
			`kubelet_pod_worker_duration_seconds_count{operation_type="create"}`:                                    2,
			`kubelet_pod_worker_duration_seconds_count{operation_type="kill"}`:                                      0,
			`kubelet_working_pods{config="desired",lifecycle="sync",static=""}`:                                     1,
			`nodeagent_start_slot_waiting`:                                                                          0,
			`nodeagent_pod_events_unread`:                                                                           0,
			`nodeagent_runtime_sessions_total`:                                                                      1,
			`kubelet_pod_start_total_duration_seconds_count`:                                                        0,
		}
		for step, n := range map[string]float64{"admit": 2, "prepare": 2, "volumes": 2, "pull": 3, "sandbox": 2, "create": 3, "start": 3, "poststart": 0, "ready": 2} {
			want[fmt.Sprintf(`nodeagent_pod_start_step_seconds_count{step=%q}`, step)] = n
		}
		want[`nodeagent_start_slot_wait_seconds_count`] = 8
		b.shows(t, want)
		ready := metricstest.Of(b.series.Handler())[`nodeagent_pod_start_step_seconds_sum{step="ready"}`]
		if ready < 4.5 || ready > 6.5 {
			t.Errorf("the pods took %v s to get ready; one does from 5 s on", ready)
		}
		b.series.Pods.Told("web", p.CreationTimestamp.Add(11*time.Second))
		got := metricstest.Of(b.series.Handler())
		if total, sli := got["kubelet_pod_start_total_duration_seconds_sum"], got["kubelet_pod_start_sli_duration_seconds_sum"]; total != 11 || sli < 0 || sli > 1 {
			t.Errorf("started in %v s, without the init container %v s", total, sli)
		}
	})
}

// What only images keep counts as waiting for them, and what runs beside them
// doesn't.
func TestMetricsOfWaitingForImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := metrics.New(metrics.Build{})
		w := stopwatch{Pods: s.Pods, fresh: true}
		began := time.Now()
		p := pod.New(pod.Wanted{At: began, Spec: bound("web")}, pod.View{}, nil)
		p.Spec.CreationTimestamp.Time = began
		pull, sandbox := pod.Action{Kind: pod.Pull, Container: "app"}, pod.Action{Kind: pod.RunSandbox}
		for _, doing := range [][]pod.Action{{pull, sandbox}, {pull}, {pull, {Kind: pod.Save}}, {}, {sandbox}} {
			p.Doing = map[string]pod.Doing{}
			for _, a := range doing {
				p.Doing[a.Key()] = pod.Doing{Action: a}
			}
			w.observe(&p, &p, pod.Tick{})
			time.Sleep(10 * time.Second)
		}
		p.Doing, p.Phase = nil, v1.PodRunning
		p.Containers = map[string]pod.Memory{"app": {Known: &pod.Container{ID: "c", State: pod.Running}, Instance: pod.Instance{ID: "c", PostStart: pod.HookDone}}}
		w.observe(&p, &p, pod.Tick{})
		s.Pods.Told("web", time.Now())
		got := metricstest.Of(s.Handler())
		if total, sli := got["kubelet_pod_start_total_duration_seconds_sum"], got["kubelet_pod_start_sli_duration_seconds_sum"]; total != 50 || sli != 30 {
			t.Errorf("started in %v s, without images %v s", total, sli)
		}
	})
}

// What fails is counted where it fails.
func TestMetricsOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		class, object, large := static("class", "a", "x"), static("object", "b", "x"), fromAPI("large", 0, "100")
		class.Spec.RuntimeClassName = new("missing")
		object.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "missing"}}}}
		b.deliver(nil, class, object, large)
		b.shows(t, map[string]float64{`kubelet_admission_rejections_total{reason="OutOfcpu"}`: 1, `kubelet_active_pods{static="true"}`: 2})
		got := metricstest.Of(b.series.Handler())
		for _, name := range []string{`kubelet_started_pods_errors_total`, `nodeagent_pod_step_errors_total{step="sandbox"}`,
			`kubelet_started_containers_errors_total{code="CreateContainerConfigError",container_type="container"}`, `nodeagent_pod_step_errors_total{step="create"}`} {
			if got[name] < 2 {
				t.Errorf("%s is %v after a minute", name, got[name])
			}
		}
		if all, failed := got["kubelet_started_pods_total"], got["kubelet_started_pods_errors_total"]; all != failed+1 {
			t.Errorf("%v of %v sandboxes failed, one did not", failed, all)
		}
	})
}

// What becomes of pods is counted: they end, for others or by themselves, come
// again, or are nobody's.
func TestMetricsOfFates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(w *world) { running(w, static("stranger", "x", "term=0s")) })
		once := static("once", "o", "run=2s,exit=3")
		once.Spec.RestartPolicy = v1.RestartPolicyNever
		large := fromAPI("large", 0, "1500m")
		b.deliver(nil, large, once)
		b.deliver(nil, large, once, fromAPI("critical", pod.SystemCritical, "1"))
		b.shows(t, map[string]float64{
			`kubelet_orphaned_runtime_pods_total`:       1,
			`kubelet_preemptions`:                       0,
			`kubelet_preemptions{preemption_signal=""}`: 1,
			`kubelet_terminated_containers_total{container_type="container",exit_code="3",reason="Error"}`: 1,
			`kubelet_working_pods{config="desired",lifecycle="terminated",static="true"}`:                  1,
			`kubelet_working_pods{config="desired",lifecycle="terminated",static=""}`:                      1,
		})
		if kills := metricstest.Of(b.series.Handler())[`kubelet_pod_worker_duration_seconds_count{operation_type="kill"}`]; kills < 3 {
			t.Errorf("three pods ended, in %v stretches of work", kills)
		}
		again := static("again", "a", "term=5s")
		again.Spec.TerminationGracePeriodSeconds = new(int64(30))
		b.deliver(nil, again)
		b.updates <- from("file")
		time.Sleep(time.Second) // its end has begun
		b.deliver(nil, again)
		b.shows(t, map[string]float64{`kubelet_restarted_pods_total{static="true"}`: 1})
	})
}

// Audits count what no event has told.
func TestMetricsOfAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		b.deliver(nil, static("a", "u", "term=0s"))
		before := metricstest.Of(b.series.Handler())
		b.locked(func() {
			for _, c := range b.runtime.containers {
				c.State = pod.Exited // and nobody is told
			}
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := metricstest.Of(b.series.Handler())
		if n := got["nodeagent_audit_corrections_total"] - before["nodeagent_audit_corrections_total"]; n != 1 {
			t.Errorf("%v corrections", n)
		}
		if n := got["kubelet_pleg_relist_duration_seconds_count"]; n < 2 || got["kubelet_pleg_relist_interval_seconds_count"] != n-1 {
			t.Errorf("%v audits, %v times between them", n, got["kubelet_pleg_relist_interval_seconds_count"])
		}
	})
}

// Attempts of probes are counted, until their pod has ended.
func TestMetricsOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		p := static("web", "u", "up=5s,term=0s")
		p.Spec.Containers[0].ReadinessProbe = &v1.Probe{PeriodSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}
		other := static("other", "v", "term=0s")
		other.Spec.Containers[0].LivenessProbe = &v1.Probe{PeriodSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}
		b.deliver(nil, p, other)
		name := func(what, kind, pod, uid, result string) string {
			return fmt.Sprintf(`prober_probe_%s{container="app",namespace="default",pod=%q,pod_uid=%q,probe_type=%q,result=%q}`, what, pod, uid, kind, result)
		}
		got := metricstest.Of(b.series.Probes.Handler())
		if well, ill := got[name("total", "Readiness", "web", "u", "successful")], got[name("total", "Readiness", "web", "u", "failed")]; well < 50 || ill < 4 || ill > 6 {
			t.Errorf("%v attempts passed and %v failed; it is up from 5 s on", well, ill)
		}
		if took := got[`prober_probe_duration_seconds_count{container="app",namespace="default",pod="other",probe_type="Liveness"}`]; took < 50 {
			t.Errorf("%v attempts were timed", took)
		}
		b.deliver(nil, other)
		for series := range metricstest.Of(b.series.Probes.Handler()) {
			if strings.Contains(series, `pod="web"`) {
				t.Errorf("after the pod is gone: %s", series)
			}
		}
		if got := metricstest.Of(b.series.Probes.Handler())[name("total", "Liveness", "other", "v", "successful")]; got < 100 {
			t.Errorf("the other pod's attempts: %v", got)
		}
	})
}

// Volumes, resizes and containers for debugging are counted as they are.
func TestCounts(t *testing.T) {
	n := metrics.NewCounts()
	spec := static("web", "u", "x")
	spec.Spec.EphemeralContainers = make([]v1.EphemeralContainer, 2)
	spec.Spec.Volumes = []v1.Volume{{Name: "a"}, {Name: "b"}, {Name: "unused"}}
	spec.Spec.Volumes[1].Secret = &v1.SecretVolumeSource{}
	spec.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "a"}, {Name: "b"}}
	p := pod.Pod{Spec: spec, Phase: v1.PodRunning, Verdict: pod.Verdict{State: pod.Granted}}
	p.Resize.Answer.State, p.Resize.Actuated = pod.Waiting, &pod.Actuated{}
	countPod(&n, &p, true)
	p.Setup.Mounted, p.Resize.Answer.State = true, pod.Refused
	countPod(&n, &p, true)
	p.Phase = v1.PodFailed
	countPod(&n, &p, true)
	empty, secret := "kubernetes.io/empty-dir", "kubernetes.io/secret"
	want := map[metrics.Volume]int{{Plugin: empty, State: "desired_state_of_world"}: 2, {Plugin: empty, State: "actual_state_of_world"}: 1,
		{Plugin: secret, State: "desired_state_of_world"}: 2, {Plugin: secret, State: "actual_state_of_world"}: 1}
	if fmt.Sprint(n.Volumes) != fmt.Sprint(want) {
		t.Errorf("volumes %v, want %v", n.Volumes, want)
	}
	if n.Ephemeral != 6 || n.Mirrors != 2 || n.Resizes["deferred"] != 1 || n.Resizes["infeasible"] != 2 || n.Resizing != 3 || n.Desired[true] != 3 {
		t.Errorf("%+v", n)
	}
}

// What a pod may ask for by names of its own makes no series of its own.
func TestRejectionsAreFew(t *testing.T) {
	for reason, want := range map[string]string{"OutOfcpu": "OutOfcpu", "OutOfpods": "OutOfpods", "OutOfexample.com/gpu": "OutOfExtendedResources",
		"OutOfhugepages-3Mi": "OutOfExtendedResources", "NodeAffinity": "NodeAffinity"} {
		if got := rejection(reason); got != want {
			t.Errorf("%s counts as %s, want %s", reason, got, want)
		}
	}
}

// fellBack is a hook that worked over HTTP.
type fellBack struct{}

func (fellBack) Run(context.Context, probe.Hook) ([]pod.Note, error) {
	return []pod.Note{{Warning: true, Reason: "LifecycleHTTPFallback"}}, nil
}

// A hook that fell back to HTTP is counted, and one that fails.
func TestMetricsOfHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := metrics.New(metrics.Build{})
		a := &actor{loop: New(Config{Hooks: fellBack{}}), pod: pod.Pod{Spec: static("web", "u", "x")}}
		a.pod.Spec.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{}}}
		act := pod.Action{Kind: pod.PostStart, Container: "app", ID: "c"}
		told, err := a.hook(t.Context(), a.pod, act)
		if err != nil {
			t.Fatal(err)
		}
		w := stopwatch{Pods: s.Pods}
		before := a.pod
		before.Doing = map[string]pod.Doing{act.Key(): {Action: act}}
		w.observe(&before, &a.pod, pod.Done{Action: act, Told: told})
		w.observe(&before, &a.pod, pod.Done{Action: act, Failure: &pod.Failure{}})
		got := metricstest.Of(s.Handler())
		if got["kubelet_lifecycle_handler_http_fallbacks_total"] != 1 || got[`kubelet_started_containers_errors_total{code="PostStartHookError",container_type="container"}`] != 1 {
			t.Errorf("counted %v", got)
		}
	})
}
