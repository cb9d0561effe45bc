package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/logs"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// endCheck is how often it is looked whether a followed container has ended.
// The runtime has events for that, but it stalls all that read them when one
// stops reading, as this process does at Ctrl-Z.
const endCheck = time.Second

// logQuestion is what is asked of logs.
type logQuestion struct {
	*inside
	v1.PodLogOptions
	since     time.Duration
	sinceTime string
	tail      int64
	limit     int64
	all       bool
}

func newLogQuestion() *logQuestion {
	q := &logQuestion{inside: newInside("logs").withContainer()}
	q.flags.BoolVarP(&q.Follow, "follow", "f", false, "go on until the container ends")
	q.flags.BoolVarP(&q.Previous, "previous", "p", false, "the instance before the newest one")
	q.flags.BoolVar(&q.Timestamps, "timestamps", false, "begin each line with its time")
	q.flags.DurationVar(&q.since, "since", 0, "only lines of that last while, as 5s, 2m or 3h")
	q.flags.StringVar(&q.sinceTime, "since-time", "", "only lines since that time (RFC 3339)")
	q.flags.Int64Var(&q.tail, "tail", -1, "only that many last lines")
	q.flags.Int64Var(&q.limit, "limit-bytes", 0, "no more than that many bytes")
	q.flags.BoolVar(&q.all, "all-containers", false, "of all containers of the pod")
	return q
}

// options checks what was asked and puts it in the API's form.
func (q *logQuestion) options() error {
	if q.flags.Changed("since") && q.flags.Changed("since-time") {
		return errors.New("give either --since or --since-time")
	}
	if q.flags.Changed("since") {
		t := metav1.NewTime(time.Now().Add(-q.since))
		q.SinceTime = &t
	}
	if q.flags.Changed("since-time") {
		t, err := time.Parse(time.RFC3339, q.sinceTime)
		if err != nil {
			return fmt.Errorf("--since-time: want a time as 2026-01-02T15:04:05Z: %w", err)
		}
		mt := metav1.NewTime(t)
		q.SinceTime = &mt
	}
	if q.tail >= 0 {
		q.TailLines = &q.tail
	}
	if q.flags.Changed("limit-bytes") {
		q.LimitBytes = &q.limit
	}
	if q.all && q.inside.container != "" {
		return errors.New("give either -c or --all-containers")
	}
	return nil
}

func runLogs(ctx context.Context, args []string) error {
	q := newLogQuestion()
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	if q.flags.NArg() != 1 {
		return q.usage("[-c CONTAINER] [-f] [-p] POD")
	}
	if err := q.options(); err != nil {
		return err
	}
	client, err := q.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := q.instances(ctx, client, q.flags.Arg(0))
	if err != nil {
		return err
	}
	chosen, err := q.newest(all)
	if err != nil {
		return err
	}
	err = q.read(ctx, client, chosen)
	if q.Follow && ctx.Err() != nil {
		return nil // Ctrl-C is how one ends it
	}
	return err
}

// newest is the instance to read of each container that is asked for.
func (q *logQuestion) newest(all []cri.Instance) ([]cri.Instance, error) {
	names := containerNames(all)
	if !q.all {
		chosen, err := q.choose(all)
		if err != nil {
			return nil, err
		}
		names = []string{chosen[0].Container}
	}
	var out []cri.Instance
	for _, name := range names {
		of := slices.DeleteFunc(slices.Clone(all), func(i cri.Instance) bool { return i.Container != name })
		switch {
		case !q.Previous, of[0].State == pod.Exited && of[0].Attempt > 0:
			// One that waits for its restart has no newer instance yet.
			out = append(out, of[0])
		case len(of) > 1:
			out = append(out, of[1])
		case !q.all:
			return nil, fmt.Errorf("the runtime has no previous instance of container %s", name)
		}
	}
	return out, nil
}

// read reads one after another, or, following, all at once.
func (q *logQuestion) read(ctx context.Context, client *cri.Client, chosen []cri.Instance) error {
	var mu sync.Mutex
	stdout, stderr := shared{&mu, os.Stdout}, shared{&mu, os.Stderr}
	group, ctx := errgroup.WithContext(ctx)
	if !q.Follow {
		group.SetLimit(1)
	}
	for _, i := range chosen {
		group.Go(func() error {
			path, err := client.LogPath(ctx, i.ID)
			if err != nil {
				return err
			}
			l := logs.Log{Path: path}
			if i.State == pod.Running && q.Follow {
				l.Ended = ended(ctx, client, i.ID)
			}
			return logs.Read(ctx, l, q.PodLogOptions, stdout, stderr)
		})
	}
	return group.Wait()
}

// ended is closed when the instance has ended or the context has. A runtime
// that does not answer says nothing of its containers: they go on.
func ended(ctx context.Context, client *cri.Client, id string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(endCheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if s, err := client.StateOf(ctx, id); err == nil && s != pod.Running {
				return
			}
		}
	}()
	return done
}

// shared keeps apart what several write.
type shared struct {
	mu *sync.Mutex
	to io.Writer
}

func (s shared) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(data)
}
