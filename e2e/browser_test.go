package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// browser is Chromium with one tab. It hears of all that
// the page asks for and complains of.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string
	wrong    []string
}

// newBrowser starts one in that network, nil for the machine's, that ends with
// the test.
func newBrowser(t *testing.T, n *lab.Network) *browser {
	t.Helper()
	enter := func(cmd *exec.Cmd) {
		in := n.Command(cmd.Path, cmd.Args[1:]...)
		cmd.Path, cmd.Args = in.Path, in.Args
	}
	// The sandbox is not for root; all that is opened here is the page.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox,
		chromedp.ModifyCmdFunc(enter), chromedp.UserDataDir(t.TempDir()), chromedp.Flag("force-prefers-reduced-motion", true))
	ctx, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits until it has ended
			t.Errorf("end the browser: %v", err)
		}
		cancel()
	})
	b := &browser{t: t, ctx: ctx}
	b.must(chromedp.Do(ctx, chromedp.Navigate("about:blank"))) // the browser lives as long as this context
	b.must(chromedp.Listen(ctx, b.hear))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	b.must(err)
	_, err = chromedp.Call(ctx, log.Enable, struct{}{})
	b.must(err)
	return b
}

func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventConsoleAPICalled:
		b.wrong = append(b.wrong, fmt.Sprint("console: ", e.Type, " ", e.Args))
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		b.wrong = append(b.wrong, fmt.Sprint("log: ", e.Entry.Text, " ", e.Entry.URL))
	case *page.EventJavascriptDialogOpening:
		b.wrong = append(b.wrong, "dialog: "+e.Message)
	}
}

// asked are the addresses that were asked for since the last call, and what was
// complained of.
func (b *browser) asked() (requests, wrong []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	requests, wrong = b.requests, b.wrong
	b.requests, b.wrong = nil, nil
	return requests, wrong
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 60*time.Second)
	defer cancel()
	b.must(chromedp.Do(ctx, steps...))
}

// eval is the value of an expression in the page.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until the expression in the page is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if eval[bool](b, "Boolean("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not within a minute: %s\nthe page:\n%s", expression, eval[string](b, "document.body.innerText"))
		}
		<-time.After(100 * time.Millisecond)
	}
}

// press presses keys one after another.
func (b *browser) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, func(k *input.DispatchKeyEventParams) {
		if k.Type == kb.KeyDown {
			k.Type = "rawKeyDown" // as a keyboard's: who takes it takes the character too
		}
	}))
}

// look sets how large the window is, and whether people want it dark.
func (b *browser) look(width, height int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	b.must(err)
	b.do(chromedp.EmulateViewport(width, height))
}

// picture keeps what the page looks like, for people, in bin/ui.
func (b *browser) picture(name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	b.must(err)
	dir := filepath.Join("..", "bin", "ui")
	b.must(os.MkdirAll(dir, 0o755))
	b.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// roles are what a screen reader finds, as "role name".
func (b *browser) roles() (out []string) {
	b.t.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	b.must(err)
	text := func(v *accessibility.Value) (s string) {
		if v != nil {
			_ = json.Unmarshal(v.Value, &s) // what is no text counts as none
		}
		return s
	}
	for _, n := range tree.Nodes {
		if !n.Ignored {
			out = append(out, strings.TrimSpace(text(n.Role)+" "+text(n.Name)))
		}
	}
	return out
}
