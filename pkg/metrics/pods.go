package metrics

import (
	"strconv"
	"time"

	"k8s.io/component-base/metrics"
)

// Pods are the series of pods: how they start, what they are ended for, how the
// runtime's truth is followed, and how many there are.
type Pods struct {
	steps             *metrics.HistogramVec
	stepErrors        *metrics.CounterVec
	work              *metrics.HistogramVec
	taken, running    *metrics.Histogram
	size              *metrics.Histogram
	sandboxes, mapped attempts // mapped are of pods with user IDs of their own
	containers        containers
	fates             fates
	fallbacks         *metrics.Counter
	slotWait          *metrics.Histogram
	audits            audits
	starts            starts
	counts            *counts
}

// attempts are those that have ended, and those of them that failed.
type attempts struct{ all, errors *metrics.Counter }

func (a attempts) ended(failed bool) {
	a.all.Inc()
	if failed {
		a.errors.Inc()
	}
}

// containers are starts and ends of containers.
type containers struct{ all, errors, ends *metrics.CounterVec }

// fates are what becomes of pods but a plain start.
type fates struct {
	rejected, restarted, preempted *metrics.CounterVec
	orphans                        *metrics.Counter
}

// audits compare what the runtime shows with what is known.
type audits struct {
	took, between *metrics.Histogram
	last          *metrics.Gauge
	corrected     *metrics.Counter
	sessions      *metrics.Counter
	before        time.Time // when the last one began
}

func newPods(m maker) *Pods {
	return &Pods{
		steps:      m.histograms("nodeagent_pod_start_step_seconds", "How long each step of a pod's start took that worked; sandbox, create and start with the wait for a start slot.", stepBuckets, "step"),
		stepErrors: m.counters("nodeagent_pod_step_errors_total", "Steps of pods that failed; those that the pod no longer wanted don't count.", "step"),
		work:       m.histograms("kubelet_pod_worker_duration_seconds", "How long a stretch of work on one pod took, until nothing was in flight: its first one (create), after a new wish (update), towards its end (kill), any other (sync).", metrics.DefBuckets, "operation_type"),
		taken:      m.histogram("kubelet_pod_worker_start_duration_seconds", "From when a pod was first seen until the first step for it began.", metrics.DefBuckets),
		running:    m.histogram("kubelet_pod_start_duration_seconds", "From when a pod was first seen until it was Running.", startBuckets),
		size:       m.histogram("kubelet_containers_per_pod_count", "How many containers the pods have that were taken up.", metrics.ExponentialBuckets(1, 2, 5)),
		sandboxes: attempts{m.counter("kubelet_started_pods_total", "Sandboxes that were begun, those that failed too."),
			m.counter("kubelet_started_pods_errors_total", "Sandboxes that failed.")},
		mapped: attempts{m.counter("kubelet_started_user_namespaced_pods_total", "Sandboxes of pods with hostUsers: false that were begun, those that failed too."),
			m.counter("kubelet_started_user_namespaced_pods_errors_total", "Sandboxes of pods with hostUsers: false that failed.")},
		containers: containers{
			all:    m.counters("kubelet_started_containers_total", "Starts of containers that were tried, from image to start call.", "container_type"),
			errors: m.counters("kubelet_started_containers_errors_total", "Starts of containers that failed, by the reason as in the container's status.", "container_type", "code"),
			ends:   m.counters("kubelet_terminated_containers_total", "Containers that were seen to end.", "container_type", "exit_code", "reason"),
		},
		fates: fates{
			rejected:  m.counters("kubelet_admission_rejections_total", "Pods that were not let in, by the reason as in the pod's status.", "reason"),
			restarted: m.counters("kubelet_restarted_pods_total", "Pods that begin again under the same UID, wanted anew while they were being ended; static is true or empty.", "static"),
			preempted: m.counters("kubelet_preemptions", "Pods that were ended to let in a critical one. Which resource was short is not told.", "preemption_signal"),
			orphans:   m.counter("kubelet_orphaned_runtime_pods_total", "Pods found in the runtime that no source wants, and ended."),
		},
		fallbacks: m.counter("kubelet_lifecycle_handler_http_fallbacks_total", "HTTPS hooks that worked over HTTP."),
		slotWait:  m.histogram("nodeagent_start_slot_wait_seconds", "How long sandbox, create and start calls waited for a start slot.", stepBuckets),
		audits: audits{
			took:      m.histogram("kubelet_pleg_relist_duration_seconds", "How long an audit took: comparing all that lives in the runtime with what is known.", metrics.DefBuckets),
			between:   m.histogram("kubelet_pleg_relist_interval_seconds", "From the begin of one audit to that of the next; the runtime's events tell before.", []float64{1, 2, 3, 5, 10, 30, 60, 90, 120, 300}),
			last:      m.gauge("kubelet_pleg_last_seen_seconds", "When the last audit ended, in seconds since 1970."),
			corrected: m.counter("nodeagent_audit_corrections_total", "Pods of which an audit found what no event had told."),
			sessions:  m.counter("nodeagent_runtime_sessions_total", "How often the runtime was found ready after it was not: 1 if it never went away."),
		},
		starts: newStarts(m), counts: newCounts(m),
	}
}

// Step tells of a step of a start that worked.
func (p *Pods) Step(step string, took time.Duration) {
	if p != nil {
		p.steps.WithLabelValues(step).Observe(took.Seconds())
	}
}

// StepFailed tells of any step that failed.
func (p *Pods) StepFailed(step string) {
	if p != nil {
		p.stepErrors.WithLabelValues(step).Inc()
	}
}

// Taken tells that the first step for a pod began that long after it was first
// seen, and how many containers it has.
func (p *Pods) Taken(after time.Duration, containers int) {
	if p != nil {
		p.taken.Observe(after.Seconds())
		p.size.Observe(float64(containers))
	}
}

// Worked tells of a stretch of work on a pod: create, update, sync or kill.
func (p *Pods) Worked(operation string, took time.Duration) {
	if p != nil {
		p.work.WithLabelValues(operation).Observe(took.Seconds())
	}
}

// Running tells that a pod is Running that long after it was first seen.
func (p *Pods) Running(after time.Duration) {
	if p != nil {
		p.running.Observe(after.Seconds())
	}
}

// Sandbox tells how a call for a sandbox ended. mapped is of a pod with user IDs
// of its own.
func (p *Pods) Sandbox(mapped, failed bool) {
	if p == nil {
		return
	}
	p.sandboxes.ended(failed)
	if mapped {
		p.mapped.ended(failed)
	}
}

// ContainerStarted tells of a container of the kind (container, init_container or
// ephemeral_container) that was started.
func (p *Pods) ContainerStarted(kind string) {
	if p != nil {
		p.containers.all.WithLabelValues(kind).Inc()
	}
}

// ContainerFailed tells of one that was not, and the reason that its status shows.
func (p *Pods) ContainerFailed(kind, reason string) {
	if p != nil {
		p.containers.all.WithLabelValues(kind).Inc()
		p.containers.errors.WithLabelValues(kind, reason).Inc()
	}
}

// HookFailed tells that the postStart hook of a started container failed.
func (p *Pods) HookFailed(kind string) {
	if p != nil {
		p.containers.errors.WithLabelValues(kind, "PostStartHookError").Inc()
	}
}

// ContainerEnded tells that one has ended, with the runtime's reason.
func (p *Pods) ContainerEnded(kind string, code int32, reason string) {
	if p != nil {
		p.containers.ends.WithLabelValues(kind, strconv.Itoa(int(code)), reason).Inc()
	}
}

// Rejected tells that a pod was not let in.
func (p *Pods) Rejected(reason string) {
	if p != nil {
		p.fates.rejected.WithLabelValues(reason).Inc()
	}
}

// Restarted tells that a pod is wanted again under a UID that was ended.
func (p *Pods) Restarted(static bool) {
	if p != nil {
		p.fates.restarted.WithLabelValues(trueOrEmpty(static)).Inc()
	}
}

// trueOrEmpty is how the kubelet labels static pods.
func trueOrEmpty(yes bool) string {
	if yes {
		return "true"
	}
	return ""
}

// Preempted tells that a pod is ended for another's sake.
func (p *Pods) Preempted() {
	if p != nil {
		p.fates.preempted.WithLabelValues("").Inc()
	}
}

// Orphan tells of a pod in the runtime that no source wants.
func (p *Pods) Orphan() {
	if p != nil {
		p.fates.orphans.Inc()
	}
}

// HookFellBack tells of a hook that worked over HTTP where HTTPS was asked for
// (behaviour row 1.5-5).
func (p *Pods) HookFellBack() {
	if p != nil {
		p.fallbacks.Inc()
	}
}

// SlotWait tells how long a call waited for a start slot.
func (p *Pods) SlotWait(took time.Duration) {
	if p != nil {
		p.slotWait.Observe(took.Seconds())
	}
}

// Audited tells of an audit: when it began and ended, and of how many pods it
// found what was not known. One goroutine does all audits.
func (p *Pods) Audited(began, ended time.Time, corrected int) {
	if p == nil {
		return
	}
	p.audits.took.Observe(ended.Sub(began).Seconds())
	if before := p.audits.before; !before.IsZero() {
		p.audits.between.Observe(began.Sub(before).Seconds())
	}
	p.audits.before = began
	p.audits.last.Set(float64(ended.UnixMilli()) / 1000)
	p.audits.corrected.Add(float64(corrected))
}

// RuntimeFound tells that the runtime is ready after it was not.
func (p *Pods) RuntimeFound() {
	if p != nil {
		p.audits.sessions.Inc()
	}
}
