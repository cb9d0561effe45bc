// Bench measures the agent beside the bare CRI calls that the same pods cost,
// and, with -kubelet, beside the real kubelet, each on a private containerd of
// its own. It prints one table: value, 95 % interval, target, whether it holds.
//
// Started in the repository's folder, as root, after hack/install test.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// options are the flags.
type options struct {
	samples int           // pods started one after another, containers killed
	rounds  int           // bursts, restarts of the agent
	pods    []int         // how many stand idle, ascending
	idle    time.Duration // how long they are watched
	only    []string      // sections; empty: all
	kubelet string        // the kubelet's program; empty: not measured
}

// burst is how many pods are wanted at once.
const burst = 30

type section struct {
	name   string
	run    func(*bed, context.Context) error
	joined bool // on a node of a cluster
}

// sections run in this order: the later ones use the pods that idle leaves, and
// probes leaves its own to the end of the bed. Those of a cluster have another.
var sections = []section{
	{name: "serial", run: (*bed).serial},
	{name: "burst", run: (*bed).bursts},
	{name: "volumes", run: (*bed).volumes},
	{name: "idle", run: (*bed).idle},
	{name: "stats", run: (*bed).stats},
	{name: "die", run: (*bed).die},
	{name: "recover", run: (*bed).recover},
	{name: "probes", run: (*bed).probes},
	{name: "api", run: (*bed).api, joined: true},
	{name: "streams", run: (*bed).streams, joined: true},
	{name: "apibursts", run: (*bed).apiBursts, joined: true},
	{name: "apiidle", run: (*bed).apiIdle, joined: true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, err := parse()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("containers, mounts and cgroups need root: run it with sudo")
	}
	dir, err := os.MkdirTemp("", "nodeagent-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, program := range []string{"cmd/nodeagent", "e2e/bench/empty"} {
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, filepath.Base(program)), "./"+program)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s (in the repository's folder?): %w\n%s", program, err, out)
		}
	}
	t := &table{}
	err = measure(ctx, o, t, agentSubject(dir))
	if err == nil && o.kubelet != "" {
		err = measure(ctx, o, t, kubeletSubject(o.kubelet))
	}
	t.print(os.Stdout, o)
	return err
}

func parse() (options, error) {
	var o options
	flag.IntVar(&o.samples, "samples", 60, "pods started one after another, and containers killed")
	flag.IntVar(&o.rounds, "rounds", 7, "bursts of each kind, and restarts of the agent")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long idle pods are watched")
	flag.StringVar(&o.kubelet, "kubelet", "", "program of a kubelet to measure too")
	pods := flag.String("pods", "30,100", "how many pods stand idle")
	only := flag.String("only", "", "sections to run, of serial,burst,volumes,idle,stats,die,recover,probes,api,streams,apibursts,apiidle (default all)")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.samples < 1 || o.rounds < 1 {
		return o, errors.New("-samples and -rounds must be at least 1")
	}
	for _, n := range strings.Split(*pods, ",") {
		v, err := strconv.Atoi(n)
		if err != nil || v < 1 || v > 200 {
			return o, fmt.Errorf("-pods %q: want numbers from 1 to 200", *pods)
		}
		o.pods = append(o.pods, v)
	}
	slices.Sort(o.pods)
	for _, name := range strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }) {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return o, fmt.Errorf("-only: no section %q", name)
		}
		o.only = append(o.only, name)
	}
	return o, nil
}

// measure runs the sections on a bed of the subject's own, and takes it down.
func measure(ctx context.Context, o options, t *table, s subject) error {
	for _, joined := range []bool{false, true} {
		chosen := slices.DeleteFunc(slices.Clone(sections), func(s section) bool {
			return s.joined != joined || len(o.only) > 0 && !slices.Contains(o.only, s.name)
		})
		if len(chosen) == 0 {
			continue
		}
		if err := lab.Run(func(tb lab.TB) error { return runSections(ctx, tb, o, t, s, chosen) }); err != nil {
			return err
		}
	}
	return nil
}

func runSections(ctx context.Context, tb lab.TB, o options, t *table, s subject, chosen []section) error {
	b, err := newBed(ctx, tb, o, t, s, chosen[0].joined)
	if err != nil {
		return err
	}
	for _, section := range chosen {
		began := time.Now()
		if err := section.run(b, ctx); err != nil {
			return fmt.Errorf("%s of %s: %w", section.name, s.name, err)
		}
		tb.Logf("%s: %s took %v", s.name, section.name, time.Since(began).Round(time.Second))
	}
	return nil
}
