package e2e

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestUIThroughTheApiserver: whoever may proxy to the node sees the page with
// kubectl proxy, from wherever kubectl works; a log goes on there too.
func TestUIThroughTheApiserver(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(strings.ReplaceAll(`
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: BUSYBOX, command: [sh, -c, "i=0; while :; do i=$((i+1)); echo word $i; sleep 0.3; done"]}
`, "BUSYBOX", lab.BusyboxImage))
	j.waitReady("talks")
	base := kubectlProxy(j) + "/api/v1/nodes/" + j.Node + "/proxy/ui"
	b := newBrowser(t, j.plane.Network)
	b.look(1280, 800, "light")
	b.do(chromedp.Navigate(base))
	b.until(`document.querySelector("#rows .name")?.textContent === "talks"`)
	if at := eval[string](b, "location.href"); at != base+"/" {
		t.Errorf("the page is at %s", at)
	}
	eval[any](b, `document.querySelector("#rows a").click()`)
	b.until(`document.querySelector(".waterfall tbody tr")`)
	b.until(`document.querySelectorAll(".lines .line").length > 3`)
	n := eval[int](b, `document.querySelectorAll(".lines .line").length`)
	b.until(fmt.Sprintf(`document.querySelectorAll(".lines .line").length > %d`, n+2))
	b.until(`/\d [KM]i/.test(document.querySelector(".u-memory").textContent)`)
	requests, wrong := b.asked()
	for _, w := range wrong {
		t.Errorf("the browser complains: %s", w)
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, base) {
			t.Errorf("somebody else was asked: %s", r)
		}
	}
}

// kubectlProxy runs kubectl proxy and returns its address.
func kubectlProxy(j *joined) string {
	j.t.Helper()
	cmd := j.ctl("proxy", "--port=0")
	out, err := cmd.StdoutPipe()
	j.must(err)
	j.must(cmd.Start())
	j.t.Cleanup(func() {
		j.must(cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	j.must(err)
	_, address, ok := strings.Cut(strings.TrimSpace(line), "Starting to serve on ")
	if !ok {
		j.t.Fatalf("kubectl proxy says %q", line)
	}
	return "http://" + address
}
