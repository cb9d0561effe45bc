package lab

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed versions.env
var versionsEnv string

// The runtimes that a lab can start.
const (
	Containerd2   = "2"      // the pinned release in hack/install's cache
	Containerd16  = "1.6"    // Debian 12's packages in hack/install's cache
	ContainerdAny = "system" // whichever PATH has
)

// Programs says where a runtime's executables are.
type Programs struct {
	Containerd, Ctr string   // absolute paths
	Path            []string // folders with the shim and runc, to stand first in PATH
	CNI             string   // folder of the CNI plugins
}

// FindPrograms locates the executables of a runtime version: Containerd2,
// Containerd16 or ContainerdAny. The error tells how to install them.
func FindPrograms(version string) (Programs, error) {
	switch version {
	case Containerd2:
		v := versions()
		dir := filepath.Join(cacheDir(), fmt.Sprintf("containerd-%s-runc-%s-cni-%s", v["CONTAINERD"], v["RUNC"], v["CNI"]))
		return cachedPrograms([]string{dir}, filepath.Join(dir, "cni"))
	case Containerd16:
		usr := filepath.Join(cacheDir(), "debian-containerd-1.6", "usr")
		return cachedPrograms([]string{filepath.Join(usr, "bin"), filepath.Join(usr, "sbin")}, filepath.Join(usr, "lib/cni"))
	case ContainerdAny:
		return systemPrograms()
	}
	return Programs{}, fmt.Errorf("find runtime %q: want %q, %q or %q", version, Containerd2, Containerd16, ContainerdAny)
}

func cachedPrograms(path []string, cni string) (Programs, error) {
	p := Programs{
		Containerd: filepath.Join(path[0], "containerd"),
		Ctr:        filepath.Join(path[0], "ctr"),
		Path:       path,
		CNI:        cni,
	}
	if _, err := os.Stat(p.Containerd); err != nil {
		return Programs{}, fmt.Errorf("find containerd: %w; run hack/install test", err)
	}
	return p, nil
}

func systemPrograms() (Programs, error) {
	var p Programs
	var err error
	if p.Containerd, err = exec.LookPath("containerd"); err != nil {
		return p, fmt.Errorf("find containerd: %w; run hack/install runtime", err)
	}
	if p.Ctr, err = exec.LookPath("ctr"); err != nil {
		return p, fmt.Errorf("find ctr: %w; run hack/install runtime", err)
	}
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			p.CNI = dir
			return p, nil
		}
	}
	return p, fmt.Errorf("find CNI plugin bridge in /opt/cni/bin or /usr/lib/cni: run hack/install runtime")
}

// environ is this process's environment with the runtime's folders first in PATH.
func (p Programs) environ() []string {
	path := append(append([]string{}, p.Path...), os.Getenv("PATH"), "/usr/sbin", "/sbin")
	return append(os.Environ(), "PATH="+strings.Join(path, ":"))
}

// cacheDir is the folder that hack/install fills.
func cacheDir() string {
	if dir := os.Getenv("NODEAGENT_CACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".cache", "nodeagent")
}

// ControlPlaneDir has the programs of Kubernetes, the peer among them, and kine.
func ControlPlaneDir() string {
	v := versions()
	return filepath.Join(cacheDir(), fmt.Sprintf("kubernetes-%s-kine-%s", v["KUBERNETES"], v["KINE"]))
}

// CoreDNS is the program.
func CoreDNS() string {
	return filepath.Join(cacheDir(), "coredns-"+versions()["COREDNS"], "coredns")
}

// MetricsServer is the program.
func MetricsServer() string {
	return filepath.Join(cacheDir(), "metrics-server-"+versions()["METRICS_SERVER"], "metrics-server")
}

func versions() map[string]string {
	v := map[string]string{}
	for line := range strings.Lines(versionsEnv) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[name] = value
		}
	}
	return v
}

// CtrCommand is a ctr command against the runtime at a socket, in the
// containerd namespace that CRI uses.
func (p Programs) CtrCommand(ctx context.Context, socket string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Ctr, append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
	cmd.Env = p.environ()
	return cmd
}
