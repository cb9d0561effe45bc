package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// flagRow is one flag: where its value goes and what stands behind it. The
// current value of the target is the flag's default.
type flagRow struct {
	name   string
	target any // *string, *bool, *int, *int32, *int64, *time.Duration, *[]string or a pflag.Value
	// field is the field of the config file that the flag stands for, empty
	// for a flag that no file can hold.
	field string
	usage string
}

// permanentFlags stand for a field of the file and are yet not deprecated
// (behaviour row 1.22-8).
var permanentFlags = map[string]bool{
	"v": true, "vmodule": true, "log-flush-frequency": true,
	"provider-id": true, "fail-cgroupv1": true, "seccomp-default": true,
}

// removedFlags are met on nodes that were upgraded from an older release. They
// are unknown, as in the kubelet; the error says what took their place.
var removedFlags = map[string]string{
	"pod-infra-container-image": "set the sandbox image in the container runtime's own configuration",
	"container-runtime":         "only CRI runtimes exist; set --container-runtime-endpoint",
	"network-plugin":            "pod networks are configured in /etc/cni/net.d",
	"cni-bin-dir":               "set the plugin folder in the container runtime's own configuration",
	"cni-conf-dir":              "set the network folder in the container runtime's own configuration",
	"cloud-config":              "cloud providers run outside of the agent; use --cloud-provider=external",
}

// NewFlagSet returns the kubelet's flags bound to c, whose values are their
// defaults (behaviour rows 1.22-8 and 1.22-9), and those of this agent alone.
// Underscores in flag names count as hyphens.
func NewFlagSet(c *Config) *pflag.FlagSet {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.SortFlags = true
	for _, rows := range [][]flagRow{agentFlags(c), nodeFlags(c), kubeletFlags(&c.Kubelet), cadvisorFlags()} {
		for _, row := range rows {
			addFlag(fs, row)
		}
	}
	fs.Lookup("version").NoOptDefVal = "true"
	return fs
}

func addFlag(fs *pflag.FlagSet, row flagRow) {
	usage := row.usage
	if usage == "" && row.field != "" {
		usage = "Overrides " + row.field + " of the config file."
	}
	switch p := row.target.(type) {
	case *string:
		fs.StringVar(p, row.name, *p, usage)
	case *bool:
		fs.BoolVar(p, row.name, *p, usage)
	case *int:
		fs.IntVar(p, row.name, *p, usage)
	case *int32:
		fs.Int32Var(p, row.name, *p, usage)
	case *int64:
		fs.Int64Var(p, row.name, *p, usage)
	case *time.Duration:
		fs.DurationVar(p, row.name, *p, usage)
	case *[]string:
		fs.StringSliceVar(p, row.name, *p, usage)
	case pflag.Value:
		shorthand := ""
		if len(row.name) == 1 {
			shorthand = row.name // -v is as good as --v
		}
		fs.VarP(p, row.name, shorthand, usage)
	default:
		panic(fmt.Sprintf("flag --%s has a target of type %T", row.name, row.target))
	}
}

// Flags are all flags with the values that apply, however they were set; what
// is secret in them is masked.
func (c *Config) Flags() map[string]string {
	now := *c // the flags of a set are bound to it, and may be set
	now.Kubelet = *c.Kubelet.DeepCopy()
	now.Kubelet.StaticPodURLHeader = Masked(now.Kubelet.StaticPodURLHeader)
	out := map[string]string{}
	NewFlagSet(&now).VisitAll(func(f *pflag.Flag) { out[f.Name] = f.Value.String() })
	return out
}

// Masked is a header that tells nobody what it says.
func Masked(header map[string][]string) map[string][]string {
	out := map[string][]string{}
	for name, values := range header {
		out[name] = slices.Repeat([]string{"<masked>"}, len(values))
	}
	return out
}

// parse parses args into c and refuses what the kubelet refuses: unknown flags
// and words that are no flags. It returns the flags that were given.
func parse(c *Config, args []string) ([]*pflag.Flag, error) {
	fs := NewFlagSet(c)
	fs.Usage = func() {}
	if err := fs.Parse(args); err != nil {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			name := strings.ReplaceAll(unknown.GetSpecifiedName(), "_", "-")
			if remedy, ok := removedFlags[name]; ok {
				return nil, fmt.Errorf("parse flags: %w: it was removed; %s", err, remedy)
			}
		}
		return nil, fmt.Errorf("parse flags: %w", err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("parse flags: %q is neither a flag nor a command", fs.Arg(0))
	}
	var given []*pflag.Flag
	fs.Visit(func(f *pflag.Flag) { given = append(given, f) })
	return given, nil
}

// deprecatedWarning names the given flags that belong into the config file, with
// the fields that they stand for; it is empty if there are none.
func deprecatedWarning(given []*pflag.Flag) string {
	fields := map[string]string{}
	for _, row := range kubeletFlags(&Default().Kubelet) {
		if !permanentFlags[row.name] {
			fields[row.name] = row.field
		}
	}
	var used []string
	for _, f := range given {
		if field, ok := fields[f.Name]; ok {
			used = append(used, fmt.Sprintf("--%s (%s)", f.Name, field))
		}
	}
	if len(used) == 0 {
		return ""
	}
	return "deprecated flags, should be set via the config file (field in brackets): " + strings.Join(used, ", ")
}

// agentFlags are the flags about the program and not about the node.
func agentFlags(c *Config) []flagRow {
	return []flagRow{
		{"config", &c.Paths.ConfigFile, "", "KubeletConfiguration file to read. Without it, defaults and flags apply."},
		{"config-dir", &c.Paths.ConfigDir, "", "Folder whose *.conf files are merged over the config file, in lexical order."},
		{"version", (*versionFlag)(&c.PrintVersion), "", "Print the version and exit; --version=raw prints all its parts."},
		{"offline-start", &c.Node.OfflineStart, "", "After a reboot, start pods of DaemonSets and those annotated nodeagent.dev/offline-start=true though the apiserver cannot be reached."},
		{"keep-secrets", &c.Node.KeepSecrets, "", "Keep the Secrets that pods here refer to on disk, below --root-dir, so that containers start again though the apiserver cannot be reached when the agent starts."},
		{"allow-unbuilt", &c.AllowUnbuilt, "", "Start although this field or flag is set and not built yet. May be repeated."},
	}
}

// nodeFlags are the flags that no config file can hold, since they differ from
// node to node or cannot change during a node's life.
func nodeFlags(c *Config) []flagRow {
	return []flagRow{
		{"kubeconfig", &c.Paths.Kubeconfig, "", "How to reach the apiserver. Without it, the agent is standalone."},
		{"bootstrap-kubeconfig", &c.Paths.BootstrapKubeconfig, "", "How to reach the apiserver while --kubeconfig does not exist yet."},
		{"cert-dir", &c.Paths.CertDir, "", "Folder of the TLS certificates and keys."},
		{"root-dir", &c.Paths.RootDir, "", "Folder of the state of pods and volumes."},
		{"lock-file", &c.Paths.LockFile, "", "File to lock while running."},
		{"image-credential-provider-config", &c.Paths.ImageCredentialConfig, "", "Configuration of the image credential plugins."},
		{"image-credential-provider-bin-dir", &c.Paths.ImageCredentialBinDir, "", "Folder of the image credential plugins."},
		{"exit-on-lock-contention", &c.Node.ExitOnLockContention, "", "Exit when another process opens --lock-file."},
		{"hostname-override", &c.Node.Name, "", "Name of this node, in place of its host name."},
		{"node-ip", (*ipList)(&c.Node.IPs), "", "Address of this node, or one of each family, separated by a comma."},
		{"node-labels", cliflag.NewMapStringString(&c.Node.Labels), "", "Labels to register the node with, as key=value,..."},
		{"cloud-provider", &c.Node.CloudProvider, "", "\"external\", or empty for none."},
		{"runtime-cgroups", &c.Node.RuntimeCgroups, "", "Cgroup that the container runtime runs in."},
		{"minimum-container-ttl-duration", &c.DeadContainers.MinAge, "", "Deprecated. How long a dead container is kept at least."},
		{"maximum-dead-containers-per-container", &c.DeadContainers.PerContainer, "", "Deprecated. How many dead instances of a container are kept; negative for all."},
		{"maximum-dead-containers", &c.DeadContainers.Total, "", "Deprecated. How many dead containers are kept on the node; negative for all."},
		{"experimental-mounter-path", new(string), "", "Deprecated, without effect."},
		{"experimental-allocatable-ignore-eviction", new(bool), "", "Deprecated, without effect."},
	}
}

// cadvisorFlags are taken and ignored. The kubelet has them because a library
// of its registered them, and k3s passes --containerd.
func cadvisorFlags() []flagRow {
	targets := map[string]any{
		"application-metrics-count-limit": new(int),
		"enable-load-reader":              new(bool),
		"global-housekeeping-interval":    new(time.Duration),
		"housekeeping-interval":           new(time.Duration),
		"log-cadvisor-usage":              new(bool),
		"storage-driver-secure":           new(bool),
		"storage-driver-buffer-duration":  new(time.Duration),
	}
	for _, name := range []string{
		"boot-id-file", "container-hints", "containerd", "containerd-namespace",
		"event-storage-age-limit", "event-storage-event-limit", "machine-id-file",
		"storage-driver-user", "storage-driver-password", "storage-driver-host",
		"storage-driver-db", "storage-driver-table",
	} {
		targets[name] = new(string)
	}
	var rows []flagRow
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		rows = append(rows, flagRow{name, targets[name], "", "Accepted for compatibility, without effect."})
	}
	return rows
}

// loggingFlags are the flags of the logging field. They are listed here since
// the library's own registration resets what the file has set.
func loggingFlags(l *logsapi.LoggingConfiguration) []flagRow {
	text, json := &l.Options.Text.OutputRoutingOptions, &l.Options.JSON.OutputRoutingOptions
	return []flagRow{
		{"v", logsapi.VerbosityLevelPflag(&l.Verbosity), "logging.verbosity", "Log level; 0 logs changes of state, 4 and more log decisions."},
		{"vmodule", logsapi.VModuleConfigurationPflag(&l.VModule), "logging.vmodule", ""},
		{"logging-format", &l.Format, "logging.format", "Log format: text or json."},
		{"log-flush-frequency", &l.FlushFrequency.Duration.Duration, "logging.flushFrequency", ""},
		{"log-text-split-stream", &text.SplitStream, "logging.options.text.splitStream", ""},
		{"log-text-info-buffer-size", &text.InfoBufferSize, "logging.options.text.infoBufferSize", ""},
		{"log-json-split-stream", &json.SplitStream, "logging.options.json.splitStream", ""},
		{"log-json-info-buffer-size", &json.InfoBufferSize, "logging.options.json.infoBufferSize", ""},
	}
}
