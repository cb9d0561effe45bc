package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// talk is a pod that has printed 20 lines, and its second container 2; its third
// runs for the second time; its fourth prints on demand until told to end.
const talk = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"talk"},"spec":{"terminationGracePeriodSeconds":1,"volumes":[{"name":"v","emptyDir":{}}],"containers":[
{"name":"many","image":"` + lab.BusyboxImage + `","command":["sh","-c","for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $i; done; exec sleep 10000"]},
{"name":"both","image":"` + lab.BusyboxImage + `","command":["sh","-c","echo out; sleep 1; echo err >&2; exec sleep 10000"]},
{"name":"again","image":"` + lab.BusyboxImage + `","volumeMounts":[{"name":"v","mountPath":"/v"}],"command":["sh","-c","echo x >> /v/n; echo run $(wc -l < /v/n); [ $(wc -l < /v/n) = 2 ] && exec sleep 10000"]},
{"name":"slow","image":"` + lab.BusyboxImage + `","volumeMounts":[{"name":"v","mountPath":"/v"}],"command":["sh","-c","echo begun; while sleep 0.2; do if [ -e /v/say ]; then echo said; rm /v/say; fi; [ -e /v/end ] && exit 0; done"]}]}}`

// TestAPILogs is kubectl logs with each of its flags.
func TestAPILogs(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(talk)
	p := j.waitPod("talk", "runs as it should", func(p *v1.Pod) bool {
		return podReady(p) && len(p.Status.ContainerStatuses) == 4 && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	j.eventually("the second has printed all", time.Minute, func() error {
		if out := j.kubectl("logs", "talk", "-c", "both"); !strings.Contains(out, "err") {
			return fmt.Errorf("got %q", out)
		}
		return nil
	})
	want := func(text string, args ...string) {
		t.Helper()
		out, err := j.ctl(append([]string{"-n", j.ns, "logs"}, args...)...).CombinedOutput()
		if err != nil || string(out) != text {
			t.Errorf("kubectl logs %v: %v, %q, want %q", args, err, out, text)
		}
	}
	fails := func(text string, args ...string) {
		t.Helper()
		out, err := j.ctl(append([]string{"-n", j.ns, "logs"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), text) {
			t.Errorf("kubectl logs %v: %v, %q, want %q", args, err, out, text)
		}
	}
	want("line 19\nline 20\n", "talk", "-c", "many", "--tail=2")
	want("line 1\nl", "talk", "-c", "many", "--limit-bytes=8")
	want("out\nerr\n", "talk", "-c", "both")
	want("run 2\n", "talk", "-c", "again")
	want("run 1\n", "talk", "-c", "again", "-p")
	want("", "talk", "-c", "many", "--since-time="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	want("line 20\n", "talk", "-c", "many", "--since=1h", "--tail=1")
	all := j.kubectl("logs", "talk", "--all-containers", "--prefix", "--tail=1")
	for _, line := range []string{"[pod/talk/many] line 20", "[pod/talk/both] err", "[pod/talk/again] run 2", "[pod/talk/slow] begun"} {
		if !strings.Contains(all, line+"\n") {
			t.Errorf("of all containers: no %q in %q", line, all)
		}
	}
	stamped := j.kubectl("logs", "talk", "-c", "many", "--timestamps", "--tail=1")
	stamp, line, _ := strings.Cut(stamped, " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || line != "line 20\n" {
		t.Errorf("with its time: %q", stamped)
	}
	fails("previous terminated container \"many\" in pod \"talk\" not found", "talk", "-c", "many", "-p")
	fails("is not valid for pod", "talk", "-c", "none")
	j.logsOfWaiting(fails)
	j.logsFollowed(p)
	j.logsRotated(p, want)
}

// logsOfWaiting: why there is no log yet.
func (j *joined) logsOfWaiting(fails func(text string, args ...string)) {
	j.create(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"pulls"},"spec":{"containers":[{"name":"main","image":"registry.invalid/none:1"}]}}`)
	j.waitPod("pulls", "cannot pull", func(p *v1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "ImagePullBackOff"
	})
	fails(`container "main" in pod "pulls" is waiting to start: `, "pulls")
}

// logsFollowed: who follows has each line as it comes, and the end when the
// container ends.
func (j *joined) logsFollowed(p *v1.Pod) {
	c := j.ctl("-n", j.ns, "logs", "-f", "talk", "-c", "slow")
	out, err := c.StdoutPipe()
	j.must(err)
	j.must(c.Start())
	expect := func(want string) {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
			j.t.Errorf("followed: %v, %q, want %q", err, got, want)
		}
	}
	expect("begun\n")
	volume := filepath.Join(j.Root, "pods", string(p.UID), "volumes", "kubernetes.io~empty-dir", "v")
	j.must(os.WriteFile(filepath.Join(volume, "say"), nil, 0o644))
	expect("said\n")
	j.must(os.WriteFile(filepath.Join(volume, "end"), nil, 0o644))
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		j.t.Errorf("after the end: %v, %q", err, rest)
	}
	if err := c.Wait(); err != nil {
		j.t.Errorf("its end: %v", err)
	}
}

// logsRotated: parts that rotation left count, compressed or not.
func (j *joined) logsRotated(p *v1.Pod, want func(text string, args ...string)) {
	dir := filepath.Join(j.PodLogs, j.ns+"_talk_"+string(p.UID), "many")
	line := func(n int) string { return fmt.Sprintf("2026-01-02T15:04:%02dZ stdout F old %d\n", n, n) }
	j.must(os.WriteFile(filepath.Join(dir, "0.log.20260102-150406"), []byte(line(3)+line(4)), 0o640))
	f, err := os.Create(filepath.Join(dir, "0.log.20260102-150405.gz"))
	j.must(err)
	z := gzip.NewWriter(f)
	_, err = io.WriteString(z, line(1)+line(2))
	j.must(err)
	j.must(z.Close())
	j.must(f.Close())
	want("old 1\nold 2\nold 3\nold 4\nline 1\n", "talk", "-c", "many", "--limit-bytes=31")
	want("old 4\n"+manyLines(), "talk", "-c", "many", "--tail=21")
}

func manyLines() string {
	var all strings.Builder
	for i := range 20 {
		fmt.Fprintf(&all, "line %d\n", i+1)
	}
	return all.String()
}
