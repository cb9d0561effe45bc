package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// box is a pod to look into.
const box = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"box"},"spec":{"terminationGracePeriodSeconds":1,"containers":[
{"name":"main","image":"` + lab.BusyboxImage + `","command":["sh","-c","mkdir /www; head -c 50000000 /dev/zero > /www/big; hostname > /www/name; echo ready; trap exit TERM; httpd -f -p 80 -h /www & wait"]},
{"name":"reads","image":"` + lab.BusyboxImage + `","stdin":true,"command":["sh","-c","trap exit TERM; while read line; do echo got $line; done; sleep 10000 & wait"]},
{"name":"shell","image":"` + lab.BusyboxImage + `","stdin":true,"tty":true,"command":["sh"]}]}}`

// TestStreams is how people look into pods with kubectl.
func TestStreams(t *testing.T) {
	for name, version := range map[string]string{"Containerd2": lab.Containerd2, "Containerd16": lab.Containerd16} {
		t.Run(name, func(t *testing.T) {
			j := joinedBed(t, cluster(t), version)
			j.join()
			j.create(box)
			j.waitReady("box")
			for name, test := range map[string]func(*joined){
				"Exec": execThrough, "ExecTerminal": execTerminal, "ExecFails": execFails, "Attach": attachThrough, "AttachTerminal": attachTerminal,
				"Copy": copyBothWays, "PortForward": portForwardThrough, "Straight": execStraight,
			} {
				t.Run(name, func(t *testing.T) { test(j.in(t)) })
			}
			t.Run("EndOfAgent", func(t *testing.T) { streamsEndWithAgent(j.in(t)) })
			t.Run("EndOfPod", func(t *testing.T) { streamsEndWithPod(j.in(t)) }) // the last: it ends the pod
			j.refusedNothing()
		})
	}
}

// protocols have kubectl speak one or the other.
var protocols = map[string]string{"WebSocket": "true", "SPDY": "false"}

// with is kubectl in the test's namespace, told which protocol to speak.
func (j *joined) with(protocol string, args ...string) *exec.Cmd {
	c := j.ctl(append([]string{"-n", j.ns}, args...)...)
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = append(c.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+protocols[protocol], "KUBECTL_PORT_FORWARD_WEBSOCKETS="+protocols[protocol])
	return c
}

func execThrough(j *joined) {
	data := make([]byte, 10<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for protocol := range protocols {
		var out, errs bytes.Buffer
		c := j.with(protocol, "exec", "-c", "main", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
		c.Stdout, c.Stderr = &out, &errs
		err := c.Run()
		if c.ProcessState.ExitCode() != 42 || out.String() != "out\n" || !strings.HasPrefix(errs.String(), "err\n") {
			j.t.Errorf("%s: %v, %q, %q", protocol, err, &out, &errs)
		}
		c = j.with(protocol, "exec", "-i", "-c", "main", "box", "--", "cat")
		sum := sha256.New()
		c.Stdin, c.Stdout = bytes.NewReader(data), sum
		if err := c.Run(); err != nil || !bytes.Equal(sum.Sum(nil), digest(data)) {
			j.t.Errorf("%s: %d bytes there and back: %v, or other bytes", protocol, len(data), err)
		}
	}
}

func digest(data []byte) []byte { s := sha256.Sum256(data); return s[:] }

// execTerminal: the command has a terminal of the size of the caller's, and as
// that changes.
func execTerminal(j *joined) {
	for protocol := range protocols {
		term := newTerminal(j.t, 31, 91)
		c := j.with(protocol, "exec", "-it", "-c", "main", "box", "--", "sh", "-c", untilSize("91")+"; "+untilSize("53")+"; exit 3")
		term.start(c)
		term.expect("31 91")
		term.resize(17, 53)
		term.expect("17 53")
		if err := c.Wait(); c.ProcessState.ExitCode() != 3 {
			j.t.Errorf("%s: %v", protocol, err)
		}
	}
}

// untilSize is a command that says the terminal's size once it is so wide: the
// size comes a little after the command has begun.
func untilSize(width string) string {
	return "until stty size 2>/dev/null | grep " + width + "; do sleep 0.1; done"
}

func execFails(j *joined) {
	for want, args := range map[string][]string{
		"no such file":        {"exec", "-c", "main", "box", "--", "/no/such"},
		`container not found`: {"exec", "-c", "main", "late", "--", "true"},
		`not valid for pod`:   {"exec", "-c", "x", "box", "--", "true"},
	} {
		if want == `container not found` {
			j.create(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"late"},"spec":{"restartPolicy":"Never","containers":[{"name":"main","image":"` + lab.BusyboxImage + `","command":["true"]}]}}`)
			j.waitPod("late", "has ended", func(p *v1.Pod) bool { return p != nil && p.Status.Phase == v1.PodSucceeded })
		}
		out, err := j.with("WebSocket", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) && !strings.Contains(string(out), "completed pod") {
			j.t.Errorf("%v: %v, %q", args, err, out)
		}
	}
}

func attachThrough(j *joined) {
	for protocol := range protocols {
		c := j.with(protocol, "attach", "-i", "-c", "reads", "box")
		in, err := c.StdinPipe()
		j.must(err)
		out, err := c.StdoutPipe()
		j.must(err)
		j.must(c.Start())
		_, err = io.WriteString(in, protocol+"\n")
		j.must(err)
		want := "got " + protocol + "\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
			j.t.Errorf("%s: %v, %q", protocol, err, got)
		}
		j.must(c.Process.Kill())
		_ = c.Wait() // killed
	}
}

func attachTerminal(j *joined) {
	for protocol, width := range map[string]uint16{"WebSocket": 83, "SPDY": 84} {
		term := newTerminal(j.t, 25, width)
		c := j.with(protocol, "attach", "-it", "-c", "shell", "box")
		term.start(c)
		term.say(untilSize(fmt.Sprint(width)) + "\r")
		term.expect(fmt.Sprint("25 ", width))
		j.must(c.Process.Kill())
		_ = c.Wait() // killed
	}
}

func copyBothWays(j *joined) {
	for protocol := range protocols {
		from, to := filepath.Join(j.t.TempDir(), "from"), filepath.Join(j.t.TempDir(), "to")
		data := bytes.Repeat([]byte(protocol), 500_000)
		j.must(os.WriteFile(from, data, 0o640))
		for _, args := range [][]string{{"cp", "-c", "main", from, "box:/tmp/copy"}, {"cp", "-c", "main", "box:/tmp/copy", to}} {
			if out, err := j.with(protocol, args...).CombinedOutput(); err != nil {
				j.t.Errorf("%s: %v: %v: %s", protocol, args, err, out)
			}
		}
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
			j.t.Errorf("%s: %v, or %d other bytes", protocol, err, len(got))
		}
	}
}

// portForwardThrough: many connections at once, large answers, a closed port that
// harms no other.
func portForwardThrough(j *joined) {
	for protocol := range protocols {
		c := j.with(protocol, "port-forward", "box", ":80", ":81")
		open := j.forwards(c, 2)
		ask := func(port, path string) (string, int64, error) {
			client := &http.Client{Transport: &http.Transport{DialContext: j.plane.Network.Dial, DisableKeepAlives: true}, Timeout: 60 * time.Second}
			answer, err := client.Get("http://" + open[port] + path)
			if err != nil {
				return "", 0, err
			}
			defer answer.Body.Close()
			var head bytes.Buffer
			n, err := io.Copy(&head, answer.Body)
			return head.String(), n, err
		}
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				if name, _, err := ask("80", "/name"); err != nil || name != "box\n" {
					j.t.Errorf("%s: %v, %q", protocol, err, name)
				}
			})
		}
		wg.Go(func() {
			if _, n, err := ask("80", "/big"); err != nil || n != 50_000_000 {
				j.t.Errorf("%s: %v, %d bytes", protocol, err, n)
			}
		})
		wg.Wait()
		if _, _, err := ask("81", "/"); err == nil {
			j.t.Errorf("%s: somebody answers on a closed port", protocol)
		}
		j.must(c.Process.Kill())
		_ = c.Wait() // killed
	}
}

// forwards starts port-forward, and says where so many ports are open.
func (j *joined) forwards(c *exec.Cmd, n int) map[string]string {
	j.t.Helper()
	out, err := c.StdoutPipe()
	j.must(err)
	j.must(c.Start())
	address := regexp.MustCompile(`from (127\S+) -> (\d+)`)
	open, text := map[string]string{}, ""
	for buf := make([]byte, 4096); len(open) < n; {
		got, err := out.Read(buf)
		text += string(buf[:got])
		for _, m := range address.FindAllStringSubmatch(text, -1) {
			open[m[2]] = m[1]
		}
		if err != nil {
			j.t.Fatalf("port-forward ended: %q", text)
		}
	}
	go io.Copy(io.Discard, out)
	return open
}

// execStraight is what clients say to the port itself.
func execStraight(j *joined) {
	config, err := j.plane.RESTConfig(j.plane.AdminKubeconfig())
	j.must(err)
	config.Host, config.TLSClientConfig = "https://"+j.door(), rest.TLSClientConfig{
		Insecure: true, CertData: config.CertData, KeyData: config.KeyData, CertFile: config.CertFile, KeyFile: config.KeyFile}
	q := url.Values{"command": {"sh", "-c", "echo $0; exit 7", "hello"}, "output": {"1"}, "error": {"1"}}
	u, err := url.Parse(config.Host + "/exec/" + j.ns + "/box/main?" + q.Encode())
	j.must(err)
	spdy, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
	j.must(err)
	four, err := remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, u.String(), "v4.channel.k8s.io")
	j.must(err)
	five, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, u.String())
	j.must(err)
	for name, e := range map[string]remotecommand.Executor{"SPDY": spdy, "WebSocket4": four, "WebSocket5": five} {
		var out bytes.Buffer
		err := e.StreamWithContext(j.t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: io.Discard})
		if exit, ok := err.(utilexec.CodeExitError); !ok || exit.Code != 7 || out.String() != "hello\n" {
			j.t.Errorf("%s: %v, %q", name, err, &out)
		}
	}
}

// door is an address on this side by which one reaches the node's API: these
// clients take no dialer.
func (j *joined) door() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	j.must(err)
	j.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer c.Close()
				to, err := j.Network.Dial(j.t.Context(), "tcp", j.Network.Address+":10250")
				if err != nil {
					return // the client sees it
				}
				defer to.Close()
				go io.Copy(to, c)
				_, _ = io.Copy(c, to)
			}()
		}
	}()
	return l.Addr().String()
}

// streamsEndWithPod: who is connected to a pod that goes is told.
func streamsEndWithPod(j *joined) {
	over := j.connected()
	j.kubectl("delete", "pod", "box")
	over()
}

// streamsEndWithAgent: who is connected through an agent that is killed is told.
// Their commands end, the containers go on, and the next one serves at once.
func streamsEndWithAgent(j *joined) {
	before := j.waitReady("box")
	over := j.connected()
	j.must(j.Agent.Kill())
	over()
	j.must(j.Agent.Start())
	j.eventually("an agent that serves", 30*time.Second, func() error {
		out, err := j.with("WebSocket", "exec", "-c", "main", "box", "--", "sh", "-c", "pidof cat || echo none").CombinedOutput()
		if err == nil && string(out) != "none\n" {
			err = fmt.Errorf("the command of before goes on: %s", out)
		}
		return err
	})
	for i, c := range j.pod("box").Status.ContainerStatuses {
		if c.ContainerID != before.Status.ContainerStatuses[i].ContainerID || c.RestartCount != 0 {
			j.t.Errorf("started again: %+v", c)
		}
	}
}

// connected opens every kind of stream to the box, and returns what waits until all
// have ended.
func (j *joined) connected() (over func()) {
	done := make(chan string, 4)
	for _, args := range [][]string{{"exec", "-i", "-c", "main", "box", "--", "sh", "-c", "echo ready; cat"}, {"logs", "-f", "-c", "main", "box"}, {"attach", "-i", "-c", "reads", "box"}} {
		c := j.with("WebSocket", args...)
		in, err := c.StdinPipe()
		j.must(err)
		out, err := c.StdoutPipe()
		j.must(err)
		j.must(c.Start())
		if args[0] == "attach" {
			_, err := io.WriteString(in, "x\n")
			j.must(err)
		}
		_, err = io.ReadFull(out, make([]byte, len("ready"))) // or "got x"
		j.must(err)
		go func() {
			defer in.Close()
			_, _ = io.Copy(io.Discard, out)
			_ = c.Wait() // however it ends
			done <- args[0]
		}()
	}
	c := j.with("SPDY", "port-forward", "box", ":80")
	j.forwards(c, 1)
	go func() {
		_ = c.Wait() // however it ends
		done <- "port-forward"
	}()
	return func() {
		j.t.Helper()
		late := time.After(60 * time.Second)
		for ended := map[string]bool{}; len(ended) < 4; {
			select {
			case who := <-done:
				ended[who] = true
			case <-late:
				j.t.Fatalf("only %v ended", ended)
			}
		}
	}
}

// TestDebug is a debug container through the API, and who attaches to it.
func TestDebug(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"aim"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"main","image":"` + lab.BusyboxImage + `","command":["sleep","12345"]}]}}`)
	j.waitReady("aim")
	term := newTerminal(t, 24, 80)
	c := j.with("WebSocket", "debug", "-it", "aim", "--image="+lab.BusyboxImage, "--target=main", "-c", "look", "--", "sh")
	term.start(c)
	term.say("ps | grep 1234[5]\r")
	term.expect("sleep 12345")
	term.say("exit\r")
	j.must(c.Wait())
	out := j.kubectl("logs", "aim", "-c", "look")
	if !strings.Contains(out, "sleep 12345") {
		t.Errorf("its log: %q", out)
	}
}

// TestRun is a pod made to be typed into, which is gone when one leaves it.
func TestRun(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	term := newTerminal(t, 24, 80)
	c := j.with("WebSocket", "run", "once", "-it", "--rm", "--restart=Never", "--image="+lab.BusyboxImage, "--", "sh")
	term.start(c)
	term.say("echo $((6 * 7)) from $(hostname)\r")
	term.expect("42 from once")
	term.say("exit 3\r")
	if err := c.Wait(); c.ProcessState.ExitCode() != 3 {
		t.Errorf("%v; shown: %q", err, term.seen.String())
	}
	j.waitGone("once")
}

// TestDebugNode is a shell on the node itself.
func TestDebugNode(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	term := newTerminal(t, 24, 80)
	c := j.with("WebSocket", "debug", "-it", "node/"+j.Node, "--image="+lab.BusyboxImage, "--", "sh")
	term.start(c)
	term.say("ls -d /host/*\r")
	term.expect("/host/etc")
	term.say("exit\r")
	j.must(c.Wait())
}
