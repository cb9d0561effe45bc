package exposition

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/cadvisor/fs"
	info "github.com/google/cadvisor/info/v1"
	"github.com/google/cadvisor/machine"
	"github.com/google/cadvisor/utils/sysfs"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

// Sampler reads cgroups.
type Sampler interface {
	Sample(context.Context, stats.Depth) ([]stats.Container, error)
}

// Source is where a scrape of /metrics/cadvisor comes from.
type Source struct {
	sampler Sampler
	// sandboxImage asks the runtime what image a sandbox is of, by its ID.
	sandboxImage func(context.Context, string) (string, error)
	log          *slog.Logger

	mu      sync.Mutex
	machine *info.MachineInfo // as first read: what a machine is made of stays
	image   string            // of sandboxes, as first told
}

// NewSource looks at nothing yet.
func NewSource(sampler Sampler, sandboxImage func(context.Context, string) (string, error), log *slog.Logger) *Source {
	return &Source{sampler: sampler, sandboxImage: sandboxImage, log: log}
}

// Scrape samples all cgroups in full. What could not be read the scrape says
// itself, and the log.
func (s *Source) Scrape(ctx context.Context) *Cadvisor {
	c := &Cadvisor{Pressure: pressureKnown(), Version: &info.VersionInfo{
		KernelVersion: machine.KernelVersion(), ContainerOsVersion: machine.ContainerOsVersion(),
	}}
	var err error
	if c.Containers, err = s.sampler.Sample(ctx, stats.Full); err != nil {
		c.Failed = true
		if ctx.Err() == nil { // else nobody is left to tell
			s.log.Error("/metrics/cadvisor has no containers", "error", err)
		}
	}
	if c.Machine, err = s.machineInfo(); err != nil {
		s.log.Error("/metrics/cadvisor says nothing of the machine", "error", err)
	}
	c.SandboxImage = s.imageOf(ctx, c.Containers)
	c.Now = time.Now()
	return c
}

// machineInfo is without a time: it holds whenever it is asked for.
func (s *Source) machineInfo() (*info.MachineInfo, error) {
	s.mu.Lock()
	known := s.machine
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	m, err := machine.Info(sysfs.NewRealSysFs(), noDisks{}, true)
	if err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	m.Timestamp = time.Time{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine = m
	return m, nil
}

// noDisks has cAdvisor leave out file systems, which the samples have.
type noDisks struct{ fs.FsInfo }

func (noDisks) GetGlobalFsInfo() ([]fs.Fs, error) { return nil, nil }

// imageOf the sandboxes. A runtime has one for all, and CRI tells it only by the
// sandbox: the first is asked, once.
func (s *Source) imageOf(ctx context.Context, all []stats.Container) string {
	s.mu.Lock()
	known := s.image
	s.mu.Unlock()
	if known != "" {
		return known
	}
	for _, c := range all {
		if c.Kind != stats.KindSandbox {
			continue
		}
		image, err := s.sandboxImage(ctx, c.ID)
		if err != nil {
			s.log.Debug("series of sandboxes name no image", "error", err)
			return ""
		}
		s.mu.Lock()
		s.image = image
		s.mu.Unlock()
		return image
	}
	return ""
}

// pressureKnown says whether the kernel accounts for the stalls of cgroups: v2,
// and not turned off.
func pressureKnown() bool {
	_, err := os.Stat("/sys/fs/cgroup/cpu.pressure")
	return err == nil
}
