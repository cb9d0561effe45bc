package exposition

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"time"

	info "github.com/google/cadvisor/info/v1"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

// Cadvisor is what a scrape of /metrics/cadvisor shows.
type Cadvisor struct {
	Now     time.Time
	Machine *info.MachineInfo // nil: it could not be read; machine_scrape_error says so
	Version *info.VersionInfo // nil: likewise, container_scrape_error
	// Containers are the sampled cgroups, each once.
	Containers []stats.Container
	// SandboxImage is the image of the pods' sandboxes, "" if nobody knows.
	SandboxImage string
	// Failed says that containers could not be listed.
	Failed bool
	// Pressure says that the kernel accounts for stalls (PSI).
	Pressure bool
}

// WriteCadvisor writes the families sorted by name, in each of them the
// containers by their labels. An error is the writer's.
func WriteCadvisor(w io.Writer, c *Cadvisor) error {
	containers := c.inOrder()
	var machine subject
	if m := c.Machine; m != nil {
		machine = about(machineLabels, m.BootID, m.MachineID, m.SystemUUID)
	}
	t := newText(w)
	for i := range cadvisorFamilies {
		f := &cadvisorFamilies[i]
		t.begin(&f.head)
		switch {
		case f.pressure && !c.Pressure:
		case f.whole != nil:
			f.whole(&t.rows, c)
			t.put(&subject{}, time.Time{})
		case f.machine != nil:
			if c.Machine != nil {
				f.machine(&t.rows, c.Machine)
				t.put(&machine, c.Machine.Timestamp)
			}
		default:
			t.containers(f, c.Now, containers)
		}
	}
	return t.flush()
}

// cgroup is a container, a pod or a part of the node, with the labels of its
// series.
type cgroup struct {
	*stats.Container
	subject
}

// inOrder are the containers sorted by their labels.
func (c *Cadvisor) inOrder() []cgroup {
	all := make([]cgroup, len(c.Containers))
	for i := range c.Containers {
		of := &c.Containers[i]
		name, image := "", of.Image
		switch of.Kind {
		case stats.KindContainer:
			name = of.Name
		case stats.KindSandbox:
			image = c.SandboxImage
		}
		all[i] = cgroup{of, about(containerLabels, name, of.Cgroup, image, of.ID, of.Namespace, of.Pod)}
	}
	slices.SortFunc(all, func(a, b cgroup) int { return bytes.Compare(a.labels, b.labels) })
	return all
}

// containers writes a family that is about containers. What they are limited to
// holds now, the rest at the time of their samples.
func (t *text) containers(f *family, now time.Time, all []cgroup) {
	for i := range all {
		c := &all[i]
		switch {
		case f.spec != nil:
			f.spec(&t.rows, c.Spec)
			t.put(&c.subject, time.Time{})
		case f.name == lastSeen:
			t.rows.add(float64(now.Unix()))
			t.put(&c.subject, now)
		default:
			f.stats(&t.rows, c.Container)
			t.put(&c.subject, c.Stats.Timestamp)
		}
	}
}

// Labels of series about cgroups, and about the machine. Those without a value are
// written as such: Prometheus wants all series of a family alike. id is the
// cgroup's path, name the runtime's ID of a container.
var (
	containerLabels = []string{"container", "id", "image", "name", "namespace", "pod"}
	machineLabels   = []string{"boot_id", "machine_id", "system_uuid"}
)

// family is one of /metrics/cadvisor; one of its functions gives the series.
type family struct {
	head
	stats    func(*rows, *stats.Container)
	spec     func(*rows, *info.ContainerSpec)
	machine  func(*rows, *info.MachineInfo)
	whole    func(*rows, *Cadvisor)
	pressure bool // only where the kernel accounts for stalls
}

// cadvisorFamilies are all, sorted by name.
var cadvisorFamilies = func() []family {
	all := slices.Concat(wholeFamilies, machineFamilies, specFamilies, cpuFamilies, memoryFamilies,
		diskFamilies, networkFamilies, processFamilies, pressureFamilies)
	for i := range all {
		f := &all[i]
		switch {
		case f.whole != nil:
			f.layOut(nil)
		case f.machine != nil:
			f.layOut(machineLabels)
		default:
			f.layOut(containerLabels)
		}
	}
	slices.SortFunc(all, func(a, b family) int { return strings.Compare(a.name, b.name) })
	return all
}()
