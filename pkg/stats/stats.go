// Package stats is what the node and its pods use: CPU, memory, processes,
// pressure, network and disk, as /stats/summary and the metrics tell it
// (behaviour rows 1.21-1 to 1.21-3).
//
// Nothing is looked at that nobody asked for. Cgroups are read when somebody
// asks; what takes long (the runtime's figures, the size of volumes) is told
// from the last time, with that time, and found out anew behind the answer.
package stats

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// Runtime is what only the runtime knows.
type Runtime interface {
	Usage(context.Context) (map[string]cri.Usage, error)
	ImageFS(context.Context) (images, containers cri.FileSystem, err error)
}

// Volumes says what a volume takes; volumes.ErrNotMeasured of a kind without
// figures.
type Volumes interface {
	Measure(context.Context, *v1.Pod, *v1.Volume) (volumes.Usage, error)
}

// Options say what there is to look at.
type Options struct {
	NodeName string
	Pods     Pods
	Places   Places
	Runtime  Runtime
	Volumes  Volumes
	// Root is the agent's root folder, whose file system is the node's.
	Root string
	// LogsDir is podLogsDir, the folder of the pods' logs.
	LogsDir string
	// Systems are the cgroups of kubelet, runtime and misc, as far as known.
	Systems []System
	// VolumePeriod is volumeStatsAggPeriod: how old the figures of volumes may
	// be. Volumes are not looked at unless it is above 0.
	VolumePeriod time.Duration
	Log          *slog.Logger
}

const (
	// The runtime asks each container's shim, and the disk.
	runtimeFresh, runtimeOld = 10 * time.Second, time.Minute
	// firstWait is how long an answer waits for what is not known at all, newWait
	// for the volumes of pods that just came.
	firstWait, newWait = time.Second, 50 * time.Millisecond
)

// Stats answers what the node and its pods use.
type Stats struct {
	*Sampler
	options Options
	usage   *kept[map[string]cri.Usage]
	images  *kept[imageFS]
	sizes   *kept[map[types.UID]sizes]
	walks   singleflight.Group // through volumes, by pod
}

type imageFS struct{ images, containers cri.FileSystem }

// New prepares it and looks at nothing yet.
func New(o Options) (*Stats, error) {
	sampler, err := NewSampler(o.Pods, o.Places, o.Systems)
	if err != nil {
		return nil, fmt.Errorf("stats: %w", err)
	}
	s := &Stats{Sampler: sampler, options: o}
	s.usage = newKept(runtimeFresh, runtimeOld, telling(o.Log, "the runtime does not say what containers take of the disk",
		func(ctx context.Context, _ map[string]cri.Usage) (map[string]cri.Usage, error) {
			return o.Runtime.Usage(ctx)
		}))
	s.images = newKept(runtimeFresh, runtimeOld, telling(o.Log, "the runtime does not say what images take of the disk",
		func(ctx context.Context, _ imageFS) (fs imageFS, err error) {
			fs.images, fs.containers, err = o.Runtime.ImageFS(ctx)
			return fs, err
		}))
	s.sizes = newKept(o.VolumePeriod, 10*o.VolumePeriod, s.measure)
	return s, nil
}

// Run finds out what takes long, when somebody asks, until ctx ends.
func (s *Stats) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.usage.run(ctx) })
	g.Go(func() error { return s.images.run(ctx) })
	g.Go(func() error { return s.sizes.run(ctx) })
	return g.Wait()
}

// live are the pods with a container that runs.
func (s *Stats) live() []pod.Pod {
	var out []pod.Pod
	for _, p := range s.options.Pods.Pods() {
		if len(running(p)) > 0 {
			out = append(out, p)
		}
	}
	return out
}
