package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// TB is what a lab needs of testing.TB; a program can bring its own.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// cgroupPrefix starts the name of each lab's cgroup.
const cgroupPrefix = "nodeagent-"

// Options says what node a lab is to make.
type Options struct {
	Version string        // of the runtime: Containerd2 (default) or Containerd16
	Subnet  string        // of the pods. Default: 10.88.0.0/16
	Plane   *ControlPlane // the node has a way to it and to its nodes; it says address and subnet
	Own     []string      // folders of the machine in whose place the node's programs see their own, at Lab.Own
}

// Lab is one node: a network, a runtime with the lab's images in it, and a
// CRI client. Agents and registries are added to it.
type Lab struct {
	ID         string // unique; in the names of all that the lab makes
	Dir        string // holds everything; removed at the end
	CgroupRoot string // the node's top cgroup, such as /nodeagent-1a2b3c
	Network    *Network
	Runtime    *Runtime
	Images     Images
	CRI        *CRI

	tb     TB
	agents []*Agent
}

// New makes a node and has the test's clean-up take it down. The clean-up
// fails the test if anything of the lab outlives it, and prints the ends of
// the logs if the test failed.
func New(tb TB, o Options) *Lab {
	tb.Helper()
	l, err := build(tb, o)
	if err != nil {
		tb.Fatalf("lab: %v", err)
	}
	return l
}

func build(tb TB, o Options) (*Lab, error) {
	sweepOnce.Do(func() { sweep(tb) })
	id := newID()
	dir, err := os.MkdirTemp("", "lab-"+id+"-")
	if err != nil {
		return nil, err
	}
	l := &Lab{ID: id, Dir: dir, CgroupRoot: "/" + cgroupPrefix + id, tb: tb}
	tb.Cleanup(l.close)
	// Root of a user namespace of its own goes through it to its file system.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	if err := writeOwner(dir); err != nil {
		return nil, err
	}
	if l.Images, err = BuildImages(); err != nil {
		return nil, err
	}
	if err := l.connect(&o); err != nil {
		return nil, err
	}
	if len(o.Own) > 0 {
		if l.Network.mounts, err = ownPaths(l.Path("own"), o.Own); err != nil {
			return nil, err
		}
	}
	l.Runtime, err = NewRuntime(RuntimeOptions{
		ID: id, Version: o.Version, Dir: filepath.Join(dir, "containerd"),
		Network: l.Network, Bridge: "lab-" + id, Subnet: o.Subnet,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Runtime.Start(ctx); err != nil {
		return nil, err
	}
	if err := l.Images.Import(ctx, l.Runtime.Programs, l.Runtime.Socket()); err != nil {
		return nil, err
	}
	l.CRI, err = DialCRI(l.Runtime.Socket())
	return l, err
}

// connect makes the node's network, and its way to the control plane.
func (l *Lab) connect(o *Options) (err error) {
	address := NodeAddress
	if o.Plane != nil {
		if address, o.Subnet, err = o.Plane.nextNode(); err != nil {
			return err
		}
	}
	if l.Network, err = NewNetwork("lab-"+l.ID, address); err != nil || o.Plane == nil {
		return err
	}
	return o.Plane.join(l.Network, l.ID, o.Subnet)
}

func newID() string {
	b := make([]byte, 3)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Path is a path in the lab's folder.
func (l *Lab) Path(elem ...string) string {
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

// Own is where this process finds a folder of Options.Own. What is mounted in
// it only the node's programs see.
func (l *Lab) Own(path string) string { return l.Path("own", path) }

// close takes the node down from the top: agents, runtime, what is left in
// cgroups and network, folder. Each step is tried whatever the others say.
func (l *Lab) close() {
	if l.tb.Failed() {
		l.printLogs()
	}
	var err error
	for _, a := range l.agents {
		err = errors.Join(err, a.Kill())
	}
	if l.CRI != nil {
		err = errors.Join(err, l.CRI.Close())
	}
	if err = errors.Join(err, takeDown(l.ID, l.Dir)); err != nil {
		l.tb.Errorf("lab: take down: %v", err)
	}
	for fact := range l.facts() {
		l.tb.Errorf("lab: left behind: %s", fact)
	}
}

// Clean ends every process that bears the mark, unmounts what is in the
// folders, and removes the cgroup and the folders. If anything resists, the
// folders stay.
func Clean(id, cgroup string, dirs ...string) error {
	var err error
	for _, dir := range dirs {
		err = errors.Join(err, killAll(id, dir), unmountUnder(dir))
	}
	if err = errors.Join(err, removeCgroup(cgroup)); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	for _, dir := range dirs {
		if err := removeTree(dir); err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}

// removeTree removes a folder, after a look at the mount table: what is
// mounted in it is not the lab's to delete.
func removeTree(dir string) error {
	points, err := mountsUnder(dir)
	if err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("remove %s: still mounted: %v", dir, points)
	}
	return os.RemoveAll(dir)
}

func (l *Lab) printLogs() {
	for _, a := range l.agents {
		l.tb.Logf("the end of the agent's log:\n%s", tail(a.LogFile(), 200))
	}
	if l.Runtime != nil {
		l.tb.Logf("the end of containerd's log:\n%s", tail(l.Runtime.LogFile(), 40))
	}
}
