package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// object is a manifest of what the controllers make pods of.
func object(version, kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", version, kind, name, spec)
}

// image is what the pods of controllers run.
var image = lab.BusyboxImage

// forever is a container that runs until it is told to end, with more fields.
func forever(more string) string {
	return `{name: main, image: ` + image + `, command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]` + more + `}`
}

// script is a container that runs a script to its end.
func script(text string) string {
	return fmt.Sprintf("{name: main, image: %s, command: [sh, -c, %q]}", image, text)
}

// template is that of pods of one container, labelled with the app.
func template(app, more, container string) string {
	return fmt.Sprintf("{metadata: {labels: {app: %s}}, spec: {terminationGracePeriodSeconds: 5, %scontainers: [%s]}}", app, more, container)
}

// onNode is a field of pods that are for the test's node only.
func onNode(j *joined) string { return "nodeSelector: {" + v1.LabelHostname + ": " + j.Node + "}" }

// pinned is the template of pods that are for the test's node only.
func (j *joined) pinned(app, more, container string) string {
	return template(app, onNode(j)+", "+more, container)
}

// replicated is the spec of n such pods that run forever.
func (j *joined) replicated(app string, n int, more, container string) string {
	return fmt.Sprintf("{replicas: %d, selector: {matchLabels: {app: %s}}, %stemplate: %s}", n, app, more, j.pinned(app, "", container))
}

// podsOf are the pods of an app that nobody has deleted, by name.
func (j *joined) podsOf(app string) []v1.Pod {
	j.t.Helper()
	list, err := j.client.CoreV1().Pods(j.ns).List(j.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	j.must(err)
	return slices.DeleteFunc(list.Items, func(p v1.Pod) bool { return p.DeletionTimestamp != nil })
}

// rolledOut waits until the controllers say that all pods are there and ready.
func (j *joined) rolledOut(what string) {
	j.t.Helper()
	j.kubectl("rollout", "status", what, "--timeout=60s")
}

// waitCount waits until the app has so many pods, those that end included.
func (j *joined) waitCount(app string, n int) {
	j.t.Helper()
	j.eventually(fmt.Sprintf("%s has %d pods", app, n), 60*time.Second, func() error {
		list, err := j.client.CoreV1().Pods(j.ns).List(j.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
		if err == nil && len(list.Items) != n {
			err = fmt.Errorf("it has %d", len(list.Items))
		}
		return err
	})
}

// TestWorkloads: what the controllers make of pods works as everywhere.
func TestWorkloads(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(sleeper("warm"))
	j.waitReady("warm")
	j.kubectl("delete", "pod", "warm")
	idle := j.Snapshot()
	t.Run("kinds", func(t *testing.T) { workloads(j.in(t)) })
	t.Run("NothingIsLeft", func(t *testing.T) {
		j := j.in(t)
		j.kubectl("delete", "deployments,daemonsets,statefulsets,cronjobs,jobs,pods", "--all", "--timeout=60s")
		j.nothingLeft(idle)
	})
	t.Run("NothingIsForbidden", func(t *testing.T) { j.in(t).refusedNothing() })
}

// workloads asks nothing but the apiserver, so that it can be any.
func workloads(j *joined) {
	for name, test := range map[string]func(*joined){
		"Deployment": deploymentScales, "RollingUpdate": rollingUpdate,
		"DaemonSet": daemonSet, "StatefulSet": statefulSet,
		"Job": jobCompletes, "JobOnFailure": jobOnFailure, "JobFails": jobFails, "CronJob": cronJob,
	} {
		j.t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(j.in(t))
		})
	}
}

// nothingLeft waits until the agent has no pod, and compares the machine.
func (j *joined) nothingLeft(idle lab.State) {
	j.t.Helper()
	j.eventually("the agent has no pods", 60*time.Second, func() error {
		r, err := j.report()
		if err == nil && len(r.Pods) > 0 {
			err = fmt.Errorf("it has %d, the first is %s: %v %v", len(r.Pods), r.Pods[0].Name, r.Pods[0].Doing, r.Pods[0].Waits)
		}
		return err
	})
	if leaks := j.Leaks(idle); len(leaks) > 0 {
		j.t.Errorf("left behind:\n%s", strings.Join(leaks, "\n"))
	}
}

func deploymentScales(j *joined) {
	j.create(object("apps/v1", "Deployment", "scaled", j.replicated("scaled", 2, "", forever(""))))
	j.rolledOut("deployment/scaled")
	j.kubectl("scale", "deployment/scaled", "--replicas=5")
	j.rolledOut("deployment/scaled")
	addresses := map[string]bool{}
	for _, p := range j.podsOf("scaled") {
		if !podReady(&p) || p.Spec.NodeName != j.Node {
			j.t.Errorf("%s on %s: %+v", p.Name, p.Spec.NodeName, p.Status)
		}
		addresses[p.Status.PodIP] = true
	}
	if len(addresses) != 5 || addresses[""] {
		j.t.Errorf("5 pods have the addresses %v", addresses)
	}
	j.kubectl("scale", "deployment/scaled", "--replicas=1")
	j.waitCount("scaled", 1)
	j.kubectl("scale", "deployment/scaled", "--replicas=0")
	j.waitCount("scaled", 0)
}

// rollingUpdate: while all pods are replaced, there is no moment with fewer
// ready ones than allowed.
func rollingUpdate(j *joined) {
	const probe = `, readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}, lifecycle: {postStart: {exec: {command: [touch, /tmp/ready]}}}`
	const strategy = "strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 2}}, "
	j.create(object("apps/v1", "Deployment", "rolled", j.replicated("rolled", 3, strategy, forever(probe))))
	j.rolledOut("deployment/rolled")
	before := j.podsOf("rolled")
	least := j.watchReady("rolled")
	j.kubectl("set", "env", "deployment/rolled", "VERSION=2")
	j.rolledOut("deployment/rolled")
	j.waitCount("rolled", 3)
	if n := least(); n < 3 {
		j.t.Errorf("only %d pods were ready at a time", n)
	}
	for _, p := range j.podsOf("rolled") {
		if slices.ContainsFunc(before, func(old v1.Pod) bool { return old.UID == p.UID }) {
			j.t.Errorf("%s was not replaced", p.Name)
		}
	}
}

// watchReady counts the app's pods that are ready and not to end. The function
// that it returns ends that and says what the least was.
func (j *joined) watchReady(app string) (least func() int) {
	j.t.Helper()
	selector := metav1.ListOptions{LabelSelector: "app=" + app}
	list, err := j.client.CoreV1().Pods(j.ns).List(j.t.Context(), selector)
	j.must(err)
	selector.ResourceVersion = list.ResourceVersion
	w, err := j.client.CoreV1().Pods(j.ns).Watch(j.t.Context(), selector)
	j.must(err)
	ready := map[string]bool{}
	note := func(p *v1.Pod, there bool) {
		delete(ready, p.Name)
		if there && podReady(p) && p.DeletionTimestamp == nil {
			ready[p.Name] = true
		}
	}
	for _, p := range list.Items {
		note(&p, true)
	}
	done, low := make(chan struct{}), len(ready)
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*v1.Pod); ok {
				note(p, e.Type != watch.Deleted)
				low = min(low, len(ready))
			}
		}
	}()
	return func() int {
		w.Stop()
		<-done
		return low
	}
}

func daemonSet(j *joined) {
	j.create(object("apps/v1", "DaemonSet", "daemon",
		"{selector: {matchLabels: {app: daemon}}, template: "+j.pinned("daemon", "", forever(""))+"}"))
	j.rolledOut("daemonset/daemon")
	before := j.podsOf("daemon")
	if len(before) != 1 || before[0].Spec.NodeName != j.Node {
		j.t.Fatalf("pods: %+v", before)
	}
	j.kubectl("set", "env", "daemonset/daemon", "VERSION=2")
	j.rolledOut("daemonset/daemon")
	if after := j.podsOf("daemon"); len(after) != 1 || after[0].UID == before[0].UID {
		j.t.Errorf("pods after the update: %+v", after)
	}
	j.kubectl("delete", "daemonset", "daemon")
	j.waitCount("daemon", 0)
}

// statefulSet: its pods come one after another, know their names, and a name
// that is gone comes back as another pod.
func statefulSet(j *joined) {
	const knows = `, env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], readinessProbe: {exec: {command: [sh, -c, "test $(hostname) = $NAME"]}, periodSeconds: 1}`
	j.create(object("apps/v1", "StatefulSet", "state", j.replicated("state", 2, "serviceName: state, ", forever(knows))))
	j.rolledOut("statefulset/state")
	first, second := j.waitReady("state-0"), j.waitReady("state-1")
	for _, c := range first.Status.Conditions {
		if c.Type == v1.PodReady && second.CreationTimestamp.Before(&c.LastTransitionTime) {
			j.t.Errorf("state-1 was made at %v, state-0 was ready at %v", second.CreationTimestamp, c.LastTransitionTime)
		}
	}
	j.kubectl("delete", "pod", "state-0", "--wait=false")
	j.waitPod("state-0", "is another pod", func(p *v1.Pod) bool { return podReady(p) && p.UID != first.UID })
	j.kubectl("scale", "statefulset/state", "--replicas=3")
	j.waitReady("state-2")
	j.kubectl("scale", "statefulset/state", "--replicas=1")
	j.waitGone("state-2")
	j.waitGone("state-1")
	if now := j.waitReady("state-0"); now.DeletionTimestamp != nil {
		j.t.Error("state-0 is to end")
	}
}

// jobCompletes: each index has a pod of its own, and ends.
func jobCompletes(j *joined) {
	j.create(object("batch/v1", "Job", "indexed", "{completions: 4, parallelism: 2, completionMode: Indexed, template: "+
		j.pinned("indexed", "restartPolicy: Never, ", script("echo index $JOB_COMPLETION_INDEX"))+"}"))
	j.kubectl("wait", "--for=condition=complete", "job/indexed", "--timeout=60s")
	pods := j.podsOf("indexed")
	if len(pods) != 4 {
		j.t.Errorf("%d pods", len(pods))
	}
	for _, p := range pods {
		s := p.Status.ContainerStatuses[0].State.Terminated
		if p.Status.Phase != v1.PodSucceeded || s == nil || s.ExitCode != 0 || s.Reason != "Completed" {
			j.t.Errorf("%s: %+v", p.Name, p.Status)
		}
	}
	if got := j.kubectl("get", "job", "indexed", "-o", "jsonpath={.status.completedIndexes}"); got != "0-3" {
		j.t.Errorf("completed are %s", got)
	}
	j.kubectl("delete", "job", "indexed")
	j.waitCount("indexed", 0)
}

// jobOnFailure: a container that fails is started again in the same pod.
func jobOnFailure(j *joined) {
	spec := "{template: " + j.pinned("again", "restartPolicy: OnFailure, volumes: [{name: v, emptyDir: {}}], ",
		strings.TrimSuffix(script("test -e /v/once && exit 0; touch /v/once; exit 3"), "}")+", volumeMounts: [{name: v, mountPath: /v}]}") + "}"
	j.create(object("batch/v1", "Job", "again", spec))
	j.kubectl("wait", "--for=condition=complete", "job/again", "--timeout=60s")
	pods := j.podsOf("again")
	if len(pods) != 1 || pods[0].Status.ContainerStatuses[0].RestartCount != 1 {
		j.t.Errorf("pods: %+v", pods)
	}
}

// jobFails: pods that fail are counted, and their exit codes are known.
func jobFails(j *joined) {
	j.create(object("batch/v1", "Job", "fails", `{backoffLimit: 3, template: `+
		j.pinned("fails", "restartPolicy: Never, ", script("exit 42"))+
		`, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}}`))
	j.kubectl("wait", "--for=condition=failed", "job/fails", "--timeout=60s")
	if why := j.kubectl("get", "job", "fails", "-o", "jsonpath={.status.conditions[*].reason}"); !strings.Contains(why, "PodFailurePolicy") {
		j.t.Errorf("the Job failed for %s", why)
	}
	pods := j.podsOf("fails")
	if len(pods) != 1 {
		j.t.Errorf("%d pods", len(pods))
	}
	for _, p := range pods {
		if s := p.Status.ContainerStatuses[0].State.Terminated; p.Status.Phase != v1.PodFailed || s == nil || s.ExitCode != 42 || s.Reason != "Error" {
			j.t.Errorf("%s: %+v", p.Name, p.Status)
		}
	}
}

// cronJob: its time has come, as its status says that it was last due long ago.
func cronJob(j *joined) {
	j.create(object("batch/v1", "CronJob", "cron", `{schedule: "0 * * * *", jobTemplate: {spec: {template: `+
		j.pinned("cron", "restartPolicy: Never, ", script("exit 0"))+`}}}`))
	j.kubectl("create", "job", "by-hand", "--from=cronjob/cron")
	j.kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout=60s")
	last := time.Now().Add(-90 * time.Minute).UTC().Format(time.RFC3339)
	j.kubectl("patch", "cronjob", "cron", "--subresource=status", "--type=merge", "-p", `{"status":{"lastScheduleTime":"`+last+`"}}`)
	j.eventually("the CronJob's own Job succeeds", 60*time.Second, func() error {
		names := strings.Fields(j.kubectl("get", "jobs", "-o", "jsonpath={.items[?(@.status.succeeded==1)].metadata.name}"))
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "cron-") }) {
			return fmt.Errorf("Jobs that succeeded: %v", names)
		}
		return nil
	})
}
