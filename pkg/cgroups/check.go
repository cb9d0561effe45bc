package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
)

const unifiedMount = "/sys/fs/cgroup"

// Facts are what this machine's cgroups can do.
type Facts struct {
	// Version is "v1", "v2", or "hybrid": v1 controllers with a v2 hierarchy
	// without any beside them.
	Version string
	// Controllers are those that can be used, sorted.
	Controllers []string
	// Missing are those that the agent can't do without, sorted.
	Missing []string

	mounts map[string]string // where each v1 hierarchy is; v2 has one, named ""
}

// Check finds out. It changes nothing.
func Check() (Facts, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		controllers, err := controllersOf(unifiedMount)
		if err != nil {
			return Facts{}, fmt.Errorf("check cgroups: %w", err)
		}
		return newFacts("v2", map[string]string{"": unifiedMount}, controllers), nil
	}
	m, err := fs.NewManager(&cgroups.Cgroup{Path: "/", Resources: &cgroups.Resources{SkipDevices: true}}, nil)
	if err != nil {
		return Facts{}, fmt.Errorf("check cgroups: %w; is anything mounted at %s?", err, unifiedMount)
	}
	version := "v1"
	if cgroups.IsCgroup2HybridMode() {
		version = "hybrid"
	}
	mounts := m.GetPaths()
	var controllers []string
	for name := range maps.Keys(mounts) {
		if name != "" && !strings.HasPrefix(name, cgroups.CgroupNamePrefix) {
			controllers = append(controllers, name)
		}
	}
	return newFacts(version, mounts, controllers), nil
}

func newFacts(version string, mounts map[string]string, controllers []string) Facts {
	f := Facts{Version: version, Controllers: slices.Sorted(slices.Values(controllers)), mounts: mounts}
	f.Missing = f.lacks(f.Controllers)
	return f
}

func (f Facts) lacks(controllers []string) []string {
	needed := []string{"cpu", "cpuset", "memory", "pids"}
	if f.Version != "v2" {
		needed = []string{"cpu", "cpuacct", "cpuset", "memory", "pids"}
	}
	return slices.DeleteFunc(needed, func(c string) bool { return slices.Contains(controllers, c) })
}

// Err says which controllers are missing and what to do, or is nil.
func (f Facts) Err() error {
	var errs []error
	for _, c := range f.Missing {
		remedy := fmt.Sprintf("mount it: mount -t cgroup -o %[1]s %[1]s %[2]s/%[1]s, after mkdir", c, unifiedMount)
		if f.Version == "v2" {
			remedy = "build the kernel with it, or remove cgroup_disable and cgroup_no_v1 from its command line"
		}
		if c == "memory" {
			remedy += "; some boards need cgroup_enable=memory on the kernel's command line"
		}
		errs = append(errs, fmt.Errorf("cgroup %s: controller %s is missing below %s: %s", f.Version, c, unifiedMount, remedy))
	}
	return errors.Join(errs...)
}

// controllersOf are the v2 controllers that may be used in a cgroup.
func controllersOf(dir string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(content)), err
}
