// Package config turns the kubelet's flags and its config file
// (KubeletConfiguration v1beta1) into one validated value, and refuses to start
// with settings that the agent would silently not honour.
//
// Precedence, from weak to strong (behaviour row 1.22-2): built-in defaults, the
// file of --config, the *.conf files of --config-dir in lexical order, flags.
//
// Only values are judged here. Whether the host fits them (cgroup v1 with
// failCgroupV1, swap with failSwapOn, files that must exist) is asked by those
// who use the host, at start.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// Config is everything the agent was told at start. It is not changed after
// Load has returned it.
type Config struct {
	// Kubelet is what a config file can hold, defaulted: no pointer in it is
	// nil for which the kubelet has a default.
	Kubelet        kubeletv1beta1.KubeletConfiguration
	Paths          Paths
	Node           Node
	DeadContainers DeadContainers
	// AllowUnbuilt names the fields and flags that the operator agrees to
	// have ignored.
	AllowUnbuilt []string
	// PrintVersion is "true" or "raw" if only the version was asked for. Then
	// nothing else in Config was loaded or validated.
	PrintVersion string
	// Warnings are for the operator, one sentence each, to be logged once at
	// start.
	Warnings []string
}

// Paths are the files and folders given by flag.
type Paths struct {
	RootDir               string // absolute; default /var/lib/kubelet
	CertDir               string // default /var/lib/kubelet/pki, whatever RootDir is
	ConfigFile            string
	ConfigDir             string
	Kubeconfig            string // empty: standalone
	BootstrapKubeconfig   string
	LockFile              string
	ImageCredentialConfig string
	ImageCredentialBinDir string
}

// Node is what distinguishes this node from others.
type Node struct {
	Name                 string   // --hostname-override or the host name, lower case; never empty
	IPs                  []net.IP // none, one, or one of each family
	Labels               map[string]string
	CloudProvider        string // "" or "external"
	RuntimeCgroups       string
	ExitOnLockContention bool
	// OfflineStart has pods of DaemonSets, and those annotated for it, started
	// after a reboot though the apiserver cannot be reached.
	OfflineStart bool
	// KeepSecrets has Secrets kept on disk, as ConfigMaps are, so that containers
	// start again though the apiserver is away when the agent starts.
	KeepSecrets bool
}

// DeadContainers says how many dead containers are kept (behaviour row 1.11-1).
// Negative counts mean no limit.
type DeadContainers struct {
	MinAge       time.Duration // default 0
	PerContainer int32         // default 1
	Total        int32         // default -1
}

// Default returns what applies with neither file nor flags.
func Default() *Config {
	c := &Config{
		Paths:          Paths{RootDir: "/var/lib/kubelet", CertDir: "/var/lib/kubelet/pki"},
		Node:           Node{Labels: map[string]string{}},
		DeadContainers: DeadContainers{PerContainer: 1, Total: -1},
	}
	setDefaults(&c.Kubelet)
	return c
}

// Load reads the command line and the files that it names. All that is wrong
// with the values is in one error, a line each. An error that is
// pflag.ErrHelp means that --help was asked for.
func Load(args []string) (*Config, error) {
	first := Default()
	given, err := parse(first, args)
	if err != nil {
		return nil, err
	}
	if first.PrintVersion != "" {
		return first, nil
	}
	c := Default()
	base, err := loadFiles(first.Paths.ConfigFile, first.Paths.ConfigDir)
	if err != nil {
		return nil, err
	}
	c.Kubelet = *base.kubelet
	fileGates := maps.Clone(c.Kubelet.FeatureGates)
	if _, err := parse(c, args); err != nil { // over the files: flags win
		return nil, err
	}
	c.Kubelet.FeatureGates = merged(fileGates, c.Kubelet.FeatureGates)
	if w := deprecatedWarning(given); w != "" {
		c.Warnings = append(c.Warnings, w)
	}
	if err := c.resolve(os.Hostname); err != nil {
		return nil, err
	}
	if err := validate(c); err != nil {
		return nil, err
	}
	if err := c.judgeUnbuilt(base.untouched, given); err != nil {
		return nil, err
	}
	return c, nil
}

// resolve fills in what depends on the host or on other values.
func (c *Config) resolve(hostname func() (string, error)) error {
	name := strings.TrimSpace(c.Node.Name)
	if name == "" {
		host, err := hostname()
		if err != nil {
			return fmt.Errorf("find the node's name: %w; set --hostname-override", err)
		}
		name = strings.TrimSpace(host)
	}
	if name == "" {
		return errors.New("find the node's name: the host name is empty; set --hostname-override")
	}
	c.Node.Name = strings.ToLower(name)
	root, err := filepath.Abs(c.Paths.RootDir)
	if err != nil {
		return fmt.Errorf("find --root-dir %s: %w", c.Paths.RootDir, err)
	}
	c.Paths.RootDir = root
	for _, endpoint := range []*string{&c.Kubelet.ContainerRuntimeEndpoint, &c.Kubelet.ImageServiceEndpoint} {
		if filepath.IsAbs(*endpoint) {
			*endpoint = "unix://" + *endpoint
		}
	}
	return nil
}

func merged(weak, strong map[string]bool) map[string]bool {
	if weak == nil {
		return strong
	}
	maps.Copy(weak, strong)
	return weak
}
