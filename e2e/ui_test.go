package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// uiLongName is about as long as a pod's name may be, for the folder of its logs.
var uiLongName = "long-" + strings.Repeat("x", 170)

// uiPods are pods of every state, and two that mean no good: they print and are
// called what would be markup, steer a terminal, or turn text around.
var uiPods = map[string]string{
	"web": podOf("web", `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo request $i; sleep 0.5 & wait $!; done"], resources: {limits: {memory: 64Mi, cpu: 200m}}}
- {name: proxy, image: BUSYBOX, command: [sh, -c, "trap 'exit 0' TERM; echo to stderr >&2; sleep 100000 & wait"]}`),
	"crash": podOf("crash", `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "echo about to fail; sleep 1; exit 3"]}`),
	"again": podOf("again", `
volumes: [{name: kept, emptyDir: {}}]
containers:
- {name: main, image: BUSYBOX, volumeMounts: [{name: kept, mountPath: /kept}], command: [sh, -c, "trap 'exit 0' TERM; [ -e /kept/ran ] || { touch /kept/ran; echo the first one; exit 1; }; echo the second one; sleep 100000 & wait"]}`),
	"nopull": podOf("nopull", `
containers:
- {name: main, image: "127.0.0.1:1/no/such:1"}`),
	"init": podOf("init", `
initContainers:
- {name: first, image: BUSYBOX, command: [sh, -c, "echo first; sleep 0.2"]}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]}`),
	"hostile": podOf("hostile", `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "printf '<img src=x onerror=alert(1)>\\n\\033[31mred\\033[0m\\n\\033]0;title\\007shown\\n\\342\\200\\256gnp.exe\\n'; head -c 3000000 /dev/zero | tr '\\0' y; echo; trap 'exit 0' TERM; sleep 100000 & wait"]}
- {name: bad, image: "<img src=x onerror=alert(1)>"}`),
	uiLongName: sleeper(uiLongName),
}

// TestUI: the page of a real agent, as people see, hear and steer it.
func TestUI(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	for name, manifest := range uiPods {
		b.apply(name, manifest)
	}
	for _, name := range []string{"web", "init", "again", uiLongName} {
		b.ready(name)
	}
	b.await("nopull", "main", "cannot be pulled", waitsFor("ImagePullBackOff"))
	b.await("crash", "main", "backs off", waitsFor("CrashLoopBackOff"))
	b.await("hostile", "bad", "has no image", waitsFor("InvalidImageName"))
	u := &uiPage{browser: newBrowser(t, b.Lab.Network), bed: b, link: serveUI(b)}
	u.look(1280, 800, "light")
	u.base, _, _ = strings.Cut(u.link, "#")
	t.Run("WithoutTheKey", u.withoutTheKey)
	u.do(chromedp.Navigate(u.link))
	u.until(`document.querySelectorAll("#rows tr").length === 7`)
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"List", u.list}, {"Start", u.start}, {"Stuck", u.stuck}, {"Figures", u.figures}, {"Logs", u.logs}, {"Hostile", u.hostile}, {"Keyboard", u.keyboard},
		{"ScreenReader", u.screenReader}, {"TellsChanges", u.tellsChanges}, {"AsksOnlyWhileSeen", u.asksOnlyWhileSeen}, {"Looks", u.looks}, {"Restart", u.restart},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.browser.t = t
			c.test(t)
			u.clean(t)
		})
	}
	u.browser.t = t
}

// serveUI runs nodeagent ui and returns the link that it prints.
func serveUI(b *bed) (link string) {
	b.t.Helper()
	cmd := b.Command("ui")
	out, err := cmd.StdoutPipe()
	b.must(err)
	b.must(cmd.Start())
	b.t.Cleanup(func() {
		b.must(cmd.Process.Signal(syscall.SIGTERM))
		b.must(cmd.Wait())
	})
	link, err = bufio.NewReader(out).ReadString('\n')
	b.must(err)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return strings.TrimSpace(link)
}

// uiPage is the page in a browser.
type uiPage struct {
	*browser
	bed  *bed
	link string
	base string
}

// clean checks that nothing was complained of, and that nobody else was asked.
func (u *uiPage) clean(t *testing.T) {
	t.Helper()
	requests, wrong := u.asked()
	for _, w := range wrong {
		t.Errorf("the browser complains: %s", w)
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, u.base) {
			t.Errorf("somebody else was asked: %s", r)
		}
	}
}

// open shows the pod of that name.
func (u *uiPage) open(name string) {
	u.t.Helper()
	uid := string(u.bed.pod(name).UID)
	eval[string](u.browser, fmt.Sprintf("location.hash = '#/pods/%s'", uid))
	u.until(fmt.Sprintf("document.querySelector('#detail-title')?.textContent.includes(%q) && document.querySelector('.facts dd')", name))
}

// text is what can be read in the element, blanks apart.
func (u *uiPage) text(selector string) string {
	u.t.Helper()
	return strings.Join(strings.Fields(eval[string](u.browser, fmt.Sprintf("document.querySelector(%q).innerText", selector))), " ")
}

// has waits until all that is in the element: what fails shows itself again and
// again, not always.
func (u *uiPage) has(selector string, want ...string) {
	u.t.Helper()
	words, err := json.Marshal(want)
	u.must(err)
	u.until(fmt.Sprintf(`((text) => %s.every((w) => text.includes(w)))((document.querySelector(%q)?.innerText ?? "").replace(/\s+/g, " "))`, words, selector))
}

func (u *uiPage) withoutTheKey(t *testing.T) {
	u.browser.t = t
	u.do(chromedp.Navigate(u.base))
	u.until(`document.querySelector("#live").textContent.includes("open the link")`)
	if n := eval[int](u.browser, `document.querySelectorAll("#rows tr").length`); n != 0 {
		t.Errorf("%d pods are shown", n)
	}
	u.asked() // of being refused, browsers complain
}

func (u *uiPage) list(t *testing.T) {
	u.has("#rows", "web-lab", "CrashLoopBackOff", "ImagePullBackOff", "2/2", "0/1")
	u.until(`document.querySelector("#live").textContent === "Live"`)
	u.has(".bar", "lab", "runtime ready", "network ready")
	if hash := eval[string](u.browser, "location.href"); strings.Contains(hash, "key=") {
		t.Errorf("the key is left in the address: %s", hash)
	}
	eval[any](u.browser, `document.querySelector(".filter.failing").click()`)
	u.has("#rows", "crash-lab")
	if text := u.text("#rows"); strings.Contains(text, "web-lab") {
		t.Errorf("of the failing ones: %s", text)
	}
	eval[any](u.browser, `document.querySelector(".filter").click()`)
	eval[any](u.browser, `document.querySelector("th.c-name button").click()`)
	if sorted := eval[string](u.browser, `document.querySelector("th.c-name").getAttribute("aria-sort") + " " + document.querySelector("#rows .name").textContent`); sorted != "descending web-lab" {
		t.Errorf("sorted: %s", sorted)
	}
	eval[any](u.browser, `document.querySelector("th.c-name button").click()`)
}

func (u *uiPage) start(t *testing.T) {
	u.open("init")
	u.until(`document.querySelector(".waterfall tbody tr")`)
	u.has(".waterfall", "Admit", "Mount volumes", "Pull image first", "Sandbox", "Create first", "Start first", "Create main", "Start main", "ms")
	u.has(".containers", "first", "init", "Completed", "main", "Running")
	u.has(".s-events", "Started")
	if n := eval[int](u.browser, `[...document.querySelectorAll(".waterfall .box")].filter((x) => x.getBoundingClientRect().width >= 0).length`); n < 8 {
		t.Errorf("%d bars", n)
	}
	// Images are pulled while the sandbox is made.
	left := `document.evaluate("//tr[th[starts-with(., '%s')]]//*[local-name() = 'rect']", document).iterateNext().getBoundingClientRect()`
	if !eval[bool](u.browser, fmt.Sprintf(left+".left < "+left+".right", "Pull image", "Sandbox")) {
		t.Error("the pull is drawn behind the sandbox")
	}
	u.open("nopull")
	u.has(".waterfall", "✕ failed")
}

// stuck: the page says what nodeagent explain says.
func (u *uiPage) stuck(t *testing.T) {
	u.open("nopull")
	u.has(".note.failing", "Stuck: waits for", "image \"127.0.0.1:1/no/such:1\"", "What helps:", "next try in")
	out, err := u.bed.Command("explain", "nopull-lab").Output()
	u.bed.must(err)
	line, _, _ := strings.Cut(string(out), "\n")
	for _, selector := range []string{".note bdi", ".note p:last-child bdi"} {
		u.until(fmt.Sprintf(`((what) => what && %q.includes(what))(document.querySelector(%q)?.innerText)`, line, selector))
	}
}

func (u *uiPage) figures(t *testing.T) {
	u.open("web")
	u.until(`/\d+m of 200m|<1m of 200m|\d+m$/.test(document.querySelector(".s-figures .value").textContent)`)
	u.until(`/\d Mi/.test(document.querySelector("tr[data-name=main] .u-memory").textContent)`)
	u.has("tr[data-name=main]", "64 Mi")
	u.until(`document.querySelectorAll(".s-figures .curve")[0].getAttribute("d").length > 20`)
}

func (u *uiPage) logs(t *testing.T) {
	u.open("web")
	u.until(`document.querySelectorAll(".lines .line").length > 3`)
	n := eval[int](u.browser, `document.querySelectorAll(".lines .line").length`)
	u.until(fmt.Sprintf(`document.querySelectorAll(".lines .line").length > %d`, n+2))
	u.has(".lines", "request 1")
	eval[any](u.browser, `{const s = document.querySelector("#log-container"); s.value = "1"; s.dispatchEvent(new Event("change"))}`)
	u.until(`document.querySelector(".lines .line.err")`)
	u.has(".lines", "err to stderr")
	u.open("crash")
	u.until(`document.querySelector(".lines").textContent.includes("about to fail")`)
	u.open("again")
	u.until(`document.querySelector(".lines").textContent.includes("the second one")`)
	eval[any](u.browser, `document.querySelector("#log-previous").click()`)
	u.until(`document.querySelector(".logstatus").textContent.includes("previous")`)
	u.has(".lines", "the first one")
}

// hostile: what was meant as markup or to steer a terminal is text.
func (u *uiPage) hostile(t *testing.T) {
	u.open("hostile")
	eval[any](u.browser, `{const s = document.querySelector("#log-container"); s.value = "0"; s.dispatchEvent(new Event("change"))}`)
	u.until(`document.querySelectorAll(".lines .line").length >= 5`)
	u.has(".lines", "<img src=x onerror=alert(1)>", "red", "shown", "⟨202E⟩gnp.exe", "bytes more")
	u.has(".containers", "<img src=x onerror=alert(1)>", "InvalidImageName")
	u.harmless(t)
	u.open(uiLongName)
	if over := eval[int](u.browser, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the long name makes the page %d wider than the window", over)
	}
}

// harmless checks that nothing on the page is what the page's own files don't make.
func (b *browser) harmless(t *testing.T) {
	t.Helper()
	if n := eval[int](b, `document.querySelectorAll("img, iframe, object, embed, form, style, [onerror], [onclick], a:not([href^='#']), script:not([src='main.js'])").length`); n > 0 {
		t.Errorf("%d elements are not the page's own", n)
	}
	if bad := eval[string](b, `(document.documentElement.outerHTML.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/) ?? [""])[0]`); bad != "" {
		t.Errorf("the page has %q", bad)
	}
}

func (u *uiPage) keyboard(t *testing.T) {
	focused := func(want string) {
		t.Helper()
		u.until(fmt.Sprintf(`(({id, className, tagName}, name) => id || name || className || tagName)(document.activeElement, document.activeElement.closest("tr")?.querySelector(".name")?.textContent) === %q`, want))
		if !eval[bool](u.browser, `document.activeElement.matches(":focus-visible")`) {
			t.Errorf("the focus on %q is not to be seen", want)
		}
	}
	u.do(chromedp.Navigate("about:blank"), chromedp.Navigate(u.base))
	u.until(`document.querySelectorAll("#rows tr").length === 7`)
	u.press(kb.Tab)
	focused("skip")
	u.press("/")
	focused("search")
	u.press("crash")
	u.until(`document.querySelector("#search").value === "crash"`)
	u.until(`document.querySelectorAll("#rows tr").length === 1`)
	u.press(kb.Enter)
	focused("crash-lab")
	u.press(kb.Enter)
	u.until(`document.querySelector("#detail-title").textContent.includes("crash")`)
	focused("detail-title")
	u.press(kb.Escape)
	u.until(`location.hash === "#/"`)
	focused("crash-lab")
	u.press(kb.ArrowUp)
	focused("search")
	u.press(strings.Repeat(kb.Backspace, 5))
	u.until(`document.querySelectorAll("#rows tr").length === 7`)
	u.press(strings.Repeat(kb.ArrowDown, 3))
	focused("hostile-lab")
	// What takes the keyboard is reached by it, in the order of the page.
	u.open("web")
	u.until(`document.querySelector(".lines .line")`)
	var stops []string
	eval[any](u.browser, `document.activeElement.blur()`)
	eval[any](u.browser, `document.querySelector("#detail-title").focus()`)
	for range 12 {
		u.press(kb.Tab)
		stops = append(stops, eval[string](u.browser, `document.activeElement.getAttribute("aria-label") || document.activeElement.id || document.activeElement.tagName`))
	}
	order := []string{"Steps of the start", "Containers", "log-container", "log-wrap", "log-times", "Log lines", "Events, newest first"}
	at := -1
	for _, want := range order {
		i := slices.Index(stops, want)
		if i <= at {
			t.Fatalf("stops of the tab key: %q, want in that order %q", stops, order)
		}
		at = i
	}
}

func (u *uiPage) screenReader(t *testing.T) {
	u.open("web")
	u.until(`document.querySelector(".waterfall tbody tr")`)
	u.until(`/now/.test(document.querySelector(".plot svg").getAttribute("aria-label"))`)
	roles := u.roles()
	for _, want := range []string{
		"banner", "main", "heading lab", "heading Pods", "heading default/web-lab", "heading Start", "heading Containers", "heading Log", "heading Events",
		"table Pods of this node", "columnheader State", "columnheader Restarts", "rowheader web-lab default", "link web-lab default",
		"searchbox Search pods by name, namespace, state or address", "button Pause", "status", "log Log lines", "region Steps of the start",
		"columnheader Took", "combobox Container", "checkbox Wrap", "group Show pods that are", "article default/web-lab",
	} {
		if !slices.Contains(roles, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, r := range roles {
		if slices.Contains([]string{"button", "link", "textbox", "searchbox", "combobox", "checkbox", "image", "img"}, r) {
			t.Errorf("a %s has no name", r)
		}
	}
	if t.Failed() {
		t.Logf("there is: %q", roles)
	}
}

func (u *uiPage) tellsChanges(t *testing.T) {
	u.bed.apply("extra", sleeper("extra"))
	u.until(`/extra-lab is/.test(document.querySelector("#said").textContent)`)
	u.until(`document.querySelector("#rows").innerText.includes("extra-lab")`)
	u.bed.remove("extra")
	u.until(`document.querySelector("#said").textContent.includes("extra-lab is gone")`)
	u.bed.gone("extra", "")
}

func (u *uiPage) asksOnlyWhileSeen(t *testing.T) {
	quiet := func(why string) {
		t.Helper()
		<-time.After(300 * time.Millisecond) // what is under way
		u.asked()
		<-time.After(3 * time.Second)
		if requests, _ := u.asked(); len(requests) > 0 {
			t.Errorf("%s, it asks: %q", why, requests)
		}
	}
	u.open("web")
	eval[any](u.browser, `document.querySelector("#pause").click()`)
	u.until(`document.querySelector("#live").textContent === "Paused" && document.querySelector(".logstatus").textContent === "Paused"`)
	quiet("paused")
	eval[any](u.browser, `document.querySelector("#pause").click()`)
	u.until(`document.querySelector("#live").textContent === "Live" && document.querySelector(".logstatus").textContent === "Following"`)
	eval[any](u.browser, `Object.defineProperty(document, "hidden", {value: true, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`)
	quiet("not to be seen")
	eval[any](u.browser, `delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))`)
	u.until(`document.querySelector(".logstatus").textContent === "Following"`)
}

// faint finds text whose contrast with its ground is below that of WCAG AA.
const faint = `(() => {
	const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
	const out = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.textContent.trim() || !e.checkVisibility({opacityProperty: true}) || e.closest(".sr, noscript")) continue;
		const style = getComputedStyle(e), a = light(parse(e instanceof SVGElement ? style.fill : style.color).slice(0, 3)), b = light(ground(e).slice(0, 3));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) out.add(e.tagName + "." + e.className + " " + ratio.toFixed(2) + ": " + walk.currentNode.textContent.slice(0, 30));
	}
	return [...out];
})()`

// looks: light and dark, narrow and wide, nothing is faint and nothing sticks out.
func (u *uiPage) looks(t *testing.T) {
	for _, size := range [][2]int64{{400, 2600}, {1280, 1600}, {3840, 2160}} {
		for _, scheme := range []string{"light", "dark"} {
			u.look(size[0], size[1], scheme)
			for _, name := range []string{"", "web", "crash", "nopull"} {
				if name == "" {
					eval[string](u.browser, `location.hash = "#/"`)
					u.until(`document.querySelector(".events") && document.querySelector("#detail-title").textContent === "Node"`)
				} else {
					u.open(name)
					u.until(`document.querySelector(".waterfall tbody tr") && document.querySelector(".logstatus").textContent`)
				}
				what := fmt.Sprintf("%s-%d-%s", strings.TrimPrefix(name+"-pod", "-"), size[0], scheme)
				u.picture(what)
				if over := eval[int](u.browser, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					t.Errorf("%s sticks out by %d", what, over)
				}
				for _, f := range eval[[]string](u.browser, faint) {
					t.Errorf("%s is faint: %s", what, f)
				}
			}
		}
	}
	u.look(1280, 800, "light")
}

// restart: while the agent is away the page says so and keeps what it knows; then
// it goes on.
func (u *uiPage) restart(t *testing.T) {
	u.open("web")
	u.bed.must(u.bed.Kill())
	u.until(`document.querySelector("#live").textContent.includes("No answer since")`)
	u.has("#rows", "web-lab")
	u.asked() // browsers complain of a server that fails
	u.bed.must(u.bed.Agent.Start())
	u.until(`document.querySelector("#live").textContent === "Live"`)
	u.until(`document.querySelector(".logstatus").textContent === "Following"`)
	u.asked()
}
