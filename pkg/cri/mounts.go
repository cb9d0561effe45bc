package cri

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

const etcHosts = "/etc/hosts"

// mounts prepares what is mounted into the container: its volumes, /etc/hosts
// and the termination message file.
func (c *Client) mounts(ctx context.Context, p *v1.Pod, k *v1.Container, req CreateRequest) ([]*runtimeapi.Mount, error) {
	if err := pod.CheckUID(p.UID); err != nil {
		return nil, err
	}
	var out []*runtimeapi.Mount
	values := env.Values(req.Env)
	hosts := p.Spec.HostNetwork || len(req.PodIPs) > 0
	for i, vm := range k.VolumeMounts {
		m, err := c.imageMount(ctx, p, vm, values)
		if err == nil && m == nil {
			m, err = c.volumeMount(p, vm, c.handler(req.Handler), cmp.Or(req.SubPaths[i], req.Mounts[vm.Name]))
		}
		if err != nil {
			return nil, fmt.Errorf("volumeMount %s: %w", vm.Name, err)
		}
		hosts = hosts && vm.MountPath != etcHosts
		out = append(out, m)
	}
	if hosts {
		path, err := c.writeHosts(p, req.PodIPs)
		if err != nil {
			return nil, fmt.Errorf("write hosts file: %w", err)
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: etcHosts, HostPath: path, SelinuxRelabel: c.machine.SELinux})
	}
	if k.TerminationMessagePath != "" {
		path, err := c.makeMessageFile(p.UID, k.Name)
		if err != nil {
			return nil, fmt.Errorf("make termination message file: %w", err)
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: absolute(k.TerminationMessagePath), HostPath: path, SelinuxRelabel: c.machine.SELinux})
	}
	for _, m := range out {
		m.UidMappings, m.GidMappings = mapping(req.Users), mapping(req.Users)
	}
	return out, nil
}

// volumeMount mounts what is at the host's path.
func (c *Client) volumeMount(p *v1.Pod, vm v1.VolumeMount, h Handler, host string) (*runtimeapi.Mount, error) {
	if host == "" {
		return nil, fmt.Errorf("volume %q is not mounted on the node", vm.Name)
	}
	how, err := propagation(vm.MountPropagation)
	if err != nil {
		return nil, err
	}
	recursive, err := recursiveReadOnly(vm, h.RecursiveReadOnly)
	if err != nil {
		return nil, err
	}
	volume := volumeNamed(p, vm.Name)
	// What the agent writes is not the container's to change.
	written := volume.ConfigMap != nil || volume.Secret != nil || volume.DownwardAPI != nil || volume.Projected != nil
	return &runtimeapi.Mount{
		ContainerPath:     absolute(vm.MountPath),
		HostPath:          host,
		Readonly:          vm.ReadOnly || written,
		RecursiveReadOnly: recursive,
		Propagation:       how,
		// The node's own files keep their SELinux labels.
		SelinuxRelabel: c.machine.SELinux && volume.HostPath == nil && !written,
	}, nil
}

// volumeNamed is empty when the pod has no such volume.
func volumeNamed(p *v1.Pod, name string) v1.Volume {
	for _, v := range p.Spec.Volumes {
		if v.Name == name {
			return v
		}
	}
	return v1.Volume{}
}

// makeMessageFile makes the file that the container's termination message
// path shows (behaviour row 1.3-29). It is everybody's to write: the
// container may run as any user.
func (c *Client) makeMessageFile(uid types.UID, container string) (string, error) {
	dir := c.containerFolder(uid, container)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%08x", rand.Uint32()))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Chmod(0o666), f.Close()) // the umask must not count
}

// dropMessageFile removes the file of a container that was not created: one
// that fails for days must not fill the folder.
func (c *Client) dropMessageFile(p *v1.Pod, container string, cfg *runtimeapi.ContainerConfig) {
	for _, m := range cfg.Mounts {
		if filepath.Dir(m.HostPath) != c.containerFolder(p.UID, container) {
			continue
		}
		if err := removed(os.Remove(m.HostPath)); err != nil {
			slog.Warn("termination message file not removed", "file", m.HostPath, "error", err)
		}
	}
}

// writeHosts writes the pod's hosts file (behaviour rows 1.8-9, 1.8-10). It is
// written in place, since running containers have it mounted, and not at all
// when nothing would change.
func (c *Client) writeHosts(p *v1.Pod, podIPs []string) (string, error) {
	content, err := hostsContent(p, podIPs, c.opts.Pods.ClusterDomain)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.opts.Pods.RootDir, "pods", string(p.UID))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "etc-hosts")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return "", err
	}
	// Containers can write to the file, as much as they like.
	old, err := io.ReadAll(io.LimitReader(f, int64(len(content))+1))
	if err == nil && !bytes.Equal(old, content) {
		_, err = f.WriteAt(content, 0)
		err = errors.Join(err, f.Truncate(int64(len(content))))
	}
	return path, errors.Join(err, f.Chmod(0o644), f.Close())
}

func hostsContent(p *v1.Pod, podIPs []string, clusterDomain string) ([]byte, error) {
	var out bytes.Buffer
	if p.Spec.HostNetwork {
		node, err := os.ReadFile(etcHosts)
		if err != nil {
			return nil, err
		}
		out.WriteString("# Kubernetes-managed hosts file (host network).\n")
		out.Write(node)
	} else {
		host, domain, err := hostname(p, clusterDomain)
		if err != nil {
			return nil, err
		}
		out.WriteString("# Kubernetes-managed hosts file.\n" +
			"127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		names := host
		if domain != "" {
			names = host + "." + domain + "\t" + host
		}
		for _, ip := range podIPs {
			fmt.Fprintf(&out, "%s\t%s\n", ip, names)
		}
	}
	if len(p.Spec.HostAliases) > 0 {
		out.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, a := range p.Spec.HostAliases {
		fmt.Fprintf(&out, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return out.Bytes(), nil
}
