package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

const header = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

// write puts text into a new file below a folder of the test.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// load calls Load with args and, if yaml isn't empty, a config file of it.
func load(t *testing.T, yaml string, args ...string) (*Config, error) {
	t.Helper()
	if yaml != "" {
		args = append([]string{"--config", write(t, t.TempDir(), "config.yaml", header+yaml)}, args...)
	}
	return Load(append([]string{"--hostname-override=Node-1"}, args...))
}

func mustLoad(t *testing.T, yaml string, args ...string) *Config {
	t.Helper()
	c, err := load(t, yaml, args...)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

// wantError says that err is one and holds all of want.
func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q:\n%v", part, err)
		}
	}
}

// TestDefaultsAreClosed: nobody is let in unless the operator says so, whether
// there is a config file or not.
func TestDefaultsAreClosed(t *testing.T) {
	flags, file := mustLoad(t, ""), mustLoad(t, "maxPods: 110\n")
	type open struct {
		Anonymous, Webhook bool
		Mode               kubeletv1beta1.KubeletAuthorizationMode
		ReadOnly           int32
		Eviction           int
	}
	of := func(c *Config) open {
		k := c.Kubelet
		return open{*k.Authentication.Anonymous.Enabled, *k.Authentication.Webhook.Enabled, k.Authorization.Mode, k.ReadOnlyPort, len(k.EvictionHard)}
	}
	if got, want := of(flags), (open{false, true, "Webhook", 0, 0}); got != want {
		t.Errorf("flags only: %+v, want %+v", got, want)
	}
	if got, want := of(file), (open{false, true, "Webhook", 0, 5}); got != want {
		t.Errorf("with a file: %+v, want %+v", got, want)
	}
	if len(flags.Warnings) != 0 {
		t.Errorf("nothing was set, yet there are warnings: %q", flags.Warnings)
	}
	if len(file.Warnings) != 1 || !strings.Contains(file.Warnings[0], "evictionHard (default)") {
		t.Errorf("the default thresholds aren't warned of: %q", file.Warnings)
	}
	if flags.Node.Name != "node-1" {
		t.Errorf("node name %q isn't lower case", flags.Node.Name)
	}
}

// The figures that nodes rely upon without anybody having set them.
func TestDefaultFigures(t *testing.T) {
	k := mustLoad(t, "").Kubelet
	for what, ok := range map[string]bool{
		"syncFrequency":            k.SyncFrequency.Duration == time.Minute,
		"fileCheckFrequency":       k.FileCheckFrequency.Duration == 20*time.Second,
		"httpCheckFrequency":       k.HTTPCheckFrequency.Duration == 20*time.Second,
		"kubeAPIQPS":               *k.KubeAPIQPS == 50 && k.KubeAPIBurst == 100,
		"eventRecordQPS":           *k.EventRecordQPS == 50 && k.EventBurst == 100,
		"registryPullQPS":          *k.RegistryPullQPS == 5 && k.RegistryBurst == 10,
		"runtimeRequestTimeout":    k.RuntimeRequestTimeout.Duration == 2*time.Minute,
		"containerRuntimeEndpoint": k.ContainerRuntimeEndpoint == "unix:///run/containerd/containerd.sock",
		"maxOpenFiles":             k.MaxOpenFiles == 1000000,
		"maxPods":                  k.MaxPods == 110,
		"podPidsLimit":             *k.PodPidsLimit == -1,
		"hairpinMode":              k.HairpinMode == "promiscuous-bridge",
		"iptablesMasqueradeBit":    *k.IPTablesMasqueradeBit == 14,
		"cgroupDriver":             k.CgroupDriver == "cgroupfs",
		"failCgroupV1":             *k.FailCgroupV1,
		"failSwapOn":               *k.FailSwapOn,
		"healthzPort":              *k.HealthzPort == 10248 && k.HealthzBindAddress == "127.0.0.1",
		"oomScoreAdj":              *k.OOMScoreAdj == -999,
		"crashLoopBackOff":         k.CrashLoopBackOff.MaxContainerRestartPeriod.Duration == 5*time.Minute,
	} {
		if !ok {
			t.Errorf("the default of %s is not that of 1.36", what)
		}
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "20.conf", header+"maxPods: 30\nfeatureGates: {NodeLogQuery: true}\n")
	write(t, dir, "10.conf", header+"maxPods: 20\npodsPerCore: 7\nclusterDNS: [10.0.0.2]\nregistryBurst: null\n")
	write(t, dir, "sub/30.conf", header+"podsPerCore: 8\n")
	write(t, dir, "99.yaml", "this is not read")
	file := "maxPods: 10\npodsPerCore: 6\nclusterDNS: [10.0.0.1, 10.0.0.3]\nregistryBurst: 77\n" +
		"featureGates: {MemoryQoS: true, GracefulNodeShutdown: false}\ncrashLoopBackOff: {maxContainerRestartPeriod: 10s}\n"
	c := mustLoad(t, file, "--config-dir", dir, "--max-pods=40", "--feature_gates=MemoryQoS=false")
	k := c.Kubelet
	if k.MaxPods != 40 {
		t.Errorf("maxPods is %d: the flag must win", k.MaxPods)
	}
	if k.PodsPerCore != 8 {
		t.Errorf("podsPerCore is %d: the last drop-in must win", k.PodsPerCore)
	}
	if !slices.Equal(k.ClusterDNS, []string{"10.0.0.2"}) {
		t.Errorf("clusterDNS is %q: a drop-in replaces lists", k.ClusterDNS)
	}
	if k.RegistryBurst != 10 {
		t.Errorf("registryBurst is %d: null must return to the default", k.RegistryBurst)
	}
	if k.CrashLoopBackOff.MaxContainerRestartPeriod.Duration != 10*time.Second {
		t.Errorf("the file's crashLoopBackOff was lost")
	}
	want := map[string]bool{"MemoryQoS": false, "GracefulNodeShutdown": false, "NodeLogQuery": true}
	if diff := cmp.Diff(want, k.FeatureGates); diff != "" {
		t.Errorf("feature gates aren't merged: %s", diff)
	}
}

// TestOpenDoorsByFlag: who asks for the open doors of old command lines has them.
func TestOpenDoorsByFlag(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.conf", header+"readOnlyPort: 10255\n")
	c := mustLoad(t, "", "--config-dir", dir, "--anonymous-auth", "--authorization-mode=AlwaysAllow")
	k := c.Kubelet
	if k.ReadOnlyPort != 10255 || k.Authorization.Mode != "AlwaysAllow" || !*k.Authentication.Anonymous.Enabled || k.EvictionHard != nil {
		t.Errorf("got port %d, mode %s, eviction %v", k.ReadOnlyPort, k.Authorization.Mode, k.EvictionHard)
	}
}

func TestEvictionHard(t *testing.T) {
	for _, tc := range []struct {
		name, yaml, refused string
		want                map[string]string
	}{
		{"absent", "maxPods: 5\n", "", evictionHardDefaults},
		{"off, as kind has it", "evictionHard: {imagefs.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%}\n", "",
			map[string]string{"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"}},
		{"partial", "evictionHard: {memory.available: 1Gi}\n", "evictionHard", nil},
		{"merged with defaults", "evictionHard: {memory.available: 0%}\nmergeDefaultEvictionSettings: true\n", "evictionHard", nil},
		{"soft", "evictionSoft: {memory.available: 1Gi}\nevictionSoftGracePeriod: {memory.available: 1m}\n", "evictionSoft", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := load(t, tc.yaml)
			if tc.refused != "" {
				wantError(t, err, tc.refused+" is set", "--allow-unbuilt="+tc.refused)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, c.Kubelet.EvictionHard); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFileErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown field":     {header + "maxPod: 3\n", `unknown field "maxPod"`},
		"unknown subfield":  {header + "authentication: {x509: {caFile: /a}}\n", `unknown field "authentication.x509.caFile"`},
		"wrong case":        {header + "MaxPods: 3\n", `unknown field "MaxPods"`},
		"field given twice": {header + "maxPods: 3\nmaxPods: 4\n", `key "maxPods" already set`},
		"wrong type":        {header + "maxPods: many\n", "field maxPods: "},
		"bad duration":      {header + "syncFrequency: 5 parsecs\n", "field syncFrequency: "},
		"other version":     {"apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n", "apiVersion is kubelet.config.k8s.io/v1"},
		"other kind":        {"apiVersion: v1\nkind: Pod\n", "kind is Pod"},
		"no kind":           {"maxPods: 3\n", "apiVersion is <nil>"},
		"empty":             {"# nothing\n", "it is empty"},
		"two documents":     {header + "---\n" + header, "more than one YAML document"},
		"list":              {"- a\n", "must hold the fields"},
		"not YAML":          {"{", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, t.TempDir(), "kubelet.yaml", tc.text)
			_, err := Load([]string{"--config", path})
			wantError(t, err, path, tc.want)
			dir := t.TempDir()
			path = write(t, dir, "a.conf", tc.text)
			_, err = Load([]string{"--config-dir", dir})
			wantError(t, err, path, tc.want)
		})
	}
	_, err := Load([]string{"--config=/does/not/exist"})
	wantError(t, err, "read config file", "/does/not/exist")
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := load(t, "maxPods: a lot\nmaxPod: 3\nsyncFrequency: soon\n")
	wantError(t, err, "maxPods", `"maxPod"`, "syncFrequency")
	_, err = load(t, "port: 70000\ncgroupDriver: docker\nhealthzPort: -1\n", "--oom-score-adj=2000")
	wantError(t, err, "port: Invalid value: 70000: must be between 1 and 65535", "cgroupDriver: Unsupported value", `"systemd"`,
		"healthzPort: Invalid value: -1", "oomScoreAdj: Invalid value: 2000: must be between -1000 and 1000")
}

func TestRelativePathsCountFromTheFile(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "c.yaml", header+"staticPodPath: pods\nauthentication: {x509: {clientCAFile: ca.crt}}\nresolvConf: \"\"\n")
	c, err := Load([]string{"--config", path})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Kubelet.StaticPodPath, filepath.Join(dir, "pods"); got != want {
		t.Errorf("staticPodPath is %s, want %s", got, want)
	}
	if got, want := c.Kubelet.Authentication.X509.ClientCAFile, filepath.Join(dir, "ca.crt"); got != want {
		t.Errorf("clientCAFile is %s, want %s", got, want)
	}
	if *c.Kubelet.ResolverConfig != "" {
		t.Errorf("resolvConf is %q, want it to stay empty", *c.Kubelet.ResolverConfig)
	}
}

func TestEnforceNothingStays(t *testing.T) {
	c := mustLoad(t, "enforceNodeAllocatable: []\ncgroupsPerQOS: false\n")
	if c.Kubelet.EnforceNodeAllocatable == nil || len(c.Kubelet.EnforceNodeAllocatable) != 0 {
		t.Errorf("enforceNodeAllocatable is %v, want an empty list", c.Kubelet.EnforceNodeAllocatable)
	}
}

func TestVersionAndHelpNeedNoFile(t *testing.T) {
	for arg, want := range map[string]string{"--version": "true", "--version=true": "true", "--version=raw": "raw"} {
		c, err := Load([]string{arg, "--config=/does/not/exist"})
		if err != nil || c.PrintVersion != want {
			t.Errorf("%s: %v, %v", arg, c, err)
		}
	}
	if c := mustLoad(t, "", "--version=false"); c.PrintVersion != "" {
		t.Errorf("--version=false asks for the version")
	}
	if _, err := Load([]string{"-h"}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("-h gives %v", err)
	}
	if !strings.HasPrefix(Version(), "Kubernetes v1.36.") {
		t.Errorf("kubeadm would not understand %q", Version())
	}
}

func TestEveryFieldHasASetting(t *testing.T) {
	known := map[string]bool{}
	for f := range reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]().Fields() {
		name := fieldName(f)
		if name == "" {
			continue
		}
		known[name] = true
		s, ok := fieldSettings[name]
		if !ok {
			t.Errorf("field %s: is it built, harmless or unsafe?", name)
		}
		if s.state != built && s.why == "" {
			t.Errorf("field %s isn't built: why does that matter or not?", name)
		}
	}
	for name := range fieldSettings {
		if !known[name] {
			t.Errorf("%s is no field", name)
		}
	}
	fs := NewFlagSet(Default())
	for name, s := range flagSettings {
		if fs.Lookup(name) == nil {
			t.Errorf("%s is no flag", name)
		}
		if s.why == "" {
			t.Errorf("flag %s has no reason", name)
		}
	}
}

// Every flag that stands for a field must name one, and change that one alone.
func TestFlagsNameTheFieldTheyChange(t *testing.T) {
	for _, row := range kubeletFlags(&Default().Kubelet) {
		var value string
		fs := NewFlagSet(Default())
		f := fs.Lookup(row.name)
		for _, try := range []string{"true", "1h7m", "7", "7", "a=b", "memory.available<7Mi", "X:y", "1.2.3.4", "k=v:NoSchedule", "0:memory=7Gi", "f=7", "f=true"} {
			if try != f.DefValue && f.Value.Set(try) == nil {
				value = try
				break
			}
		}
		if f.DefValue == "true" {
			value = "false"
		}
		c := Default()
		if _, err := parse(c, []string{"--" + row.name + "=" + value}); err != nil {
			t.Errorf("--%s=%s: %v", row.name, value, err)
			continue
		}
		top, _, _ := strings.Cut(row.field, ".")
		if got := changedFields(&c.Kubelet, &Default().Kubelet); !slices.Equal(got, []string{top}) {
			t.Errorf("--%s=%s changes %v, want %s", row.name, value, got, top)
		}
	}
}

func TestDefaultingTwiceChangesNothing(t *testing.T) {
	once := Default().Kubelet
	twice := *once.DeepCopy()
	setDefaults(&twice)
	if diff := changedFields(&once, &twice); len(diff) > 0 {
		t.Errorf("changed: %v", diff)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(header + "maxPods: 3\nevictionHard: {memory.available: 5%}\nreservedMemory: [{numaNode: 1, limits: {memory: 1Gi}}]\n"))
	f.Add([]byte(`{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","logging":{"flushFrequency":5000000000}}`))
	f.Add([]byte("---\n# c\n---\na: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := decodeFile(data)
		if err != nil {
			return
		}
		addEvictionDefaults(tree)
		if err := resolvePaths(tree, "/etc"); err != nil {
			t.Fatal(err)
		}
		k, err := decodeTree(tree)
		if err != nil {
			t.Fatalf("a decoded file does not decode again: %v", err)
		}
		setDefaults(k)
		c := Default()
		c.Kubelet, c.Node.Name = *k, "n"
		if validate(c) == nil {
			_ = c.judgeUnbuilt(&Default().Kubelet, nil)
		}
	})
}
