package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// The names of the images that every lab has, made by BuildImages.
const (
	PauseImage   = "nodeagent.test/pause:1"
	BusyboxImage = "nodeagent.test/busybox:1"
)

// Lowering oom_score_adj needs CAP_SYS_RESOURCE, which a build machine may
// not give: without restrict_oom_score_adj every sandbox fails there. NRI is
// off because its socket is one per machine; opt would write to /opt, and
// runc to a folder that all containerds share.
const common = `
root = "{{.Root}}"
state = "{{.State}}"
[grpc]
  address = "{{.Socket}}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Root}}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
`

const configV2 = `version = 2` + common + `
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Pause}}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{{.State}}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.CNI}}"
    conf_dir = "{{.NetDir}}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{.Certs}}"
`

const configV3 = `version = 3` + common + `
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{{.Pause}}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{{.Certs}}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{{.State}}/runc"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{{.CNI}}"]
    conf_dir = "{{.NetDir}}"
`

// 1.0.0 is the newest CNI version that containerd 1.6 knows; every release
// later than it reads the list too.
const conflist = `{
  "cniVersion": "1.0.0",
  "name": "{{.Name}}",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "{{.Bridge}}",
      "isGateway": true,
      "ipMasq": {{.Outbound}},
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "{{.IPAM}}",
        "ranges": [[{"subnet": "{{.Subnet}}"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

func (r *Runtime) configFile() string  { return filepath.Join(r.Dir, "containerd.toml") }
func (r *Runtime) stateDir() string    { return filepath.Join(r.RunDir, "state") }
func (r *Runtime) networkName() string { return "nodeagent-" + r.ID }

// NetDir is the folder with the CNI configuration.
func (r *Runtime) NetDir() string { return filepath.Join(r.Dir, "net.d") }

// IPAMDir is the folder in which host-local keeps the addresses it gave out,
// one file per address.
func (r *Runtime) IPAMDir() string { return filepath.Join(r.Dir, "ipam", r.networkName()) }

func (r *Runtime) certsDir() string { return filepath.Join(r.Dir, "certs.d") }

func (r *Runtime) writeConfig() error {
	text := configV2
	if r.Version == Containerd2 {
		text = configV3
	}
	for _, dir := range []string{r.Dir, r.RunDir, r.NetDir(), r.certsDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("configure containerd: %w", err)
		}
	}
	err := render(r.configFile(), text, map[string]string{
		"Root": filepath.Join(r.Dir, "root"), "State": r.stateDir(), "Socket": r.Socket(),
		"Pause": PauseImage, "CNI": r.Programs.CNI, "NetDir": r.NetDir(), "Certs": r.certsDir(),
	})
	if err != nil {
		return err
	}
	return render(filepath.Join(r.NetDir(), "10-nodeagent.conflist"), conflist, map[string]any{
		"Name": r.networkName(), "Bridge": r.Bridge, "Outbound": r.Outbound,
		"IPAM": filepath.Join(r.Dir, "ipam"), "Subnet": r.Subnet,
	})
}

// TrustRegistry makes containerd pull images named host/... over plain http
// from addr (host:port). It works at once, without a restart.
func (r *Runtime) TrustRegistry(host, addr string) error {
	dir := filepath.Join(r.certsDir(), host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("trust registry %s: %w", host, err)
	}
	return render(filepath.Join(dir, "hosts.toml"), `server = "http://{{.}}"

[host."http://{{.}}"]
  capabilities = ["pull", "resolve"]
`, addr)
}

func render(path, text string, data any) error {
	t, err := template.New(filepath.Base(path)).Option("missingkey=error").Parse(text)
	if err != nil {
		return fmt.Errorf("render %s: %w", path, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return fmt.Errorf("render %s: %w", path, err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("render: %w", err)
	}
	return nil
}
