package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// kubeletPods is where the kubelet lists its pods, in the lab's network.
const kubeletPods = "127.0.0.1:10255"

// The kubelet sees folders of the lab where it writes at fixed paths.
const kubeletScript = `#!/bin/sh
exec unshare --mount sh -c 'mount --bind %[1]s/lib /var/lib && mount --bind %[1]s/log /var/log && exec %[2]s "$@"' kubelet "$@"
`

// kernelSettings are what the kubelet sets on its node, by path under /proc/sys.
var kernelSettings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// kubeletSubject is the real kubelet, standalone, with what it does beside
// running pods turned off as far as its configuration allows.
func kubeletSubject(program string) subject {
	return subject{name: "kubelet",
		prepare: func(b *bed) (*lab.Agent, error) { return prepareKubelet(b, program) },
		report:  kubeletReport,
	}
}

func prepareKubelet(b *bed, program string) (*lab.Agent, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	script, dir := b.Path("kubelet.sh"), b.Path("kubelet")
	err = errors.Join(os.MkdirAll(filepath.Join(dir, "lib"), 0o755), os.MkdirAll(filepath.Join(dir, "log"), 0o755),
		os.WriteFile(filepath.Join(dir, "resolv.conf"), nil, 0o644),
		os.WriteFile(script, fmt.Appendf(nil, kubeletScript, dir, program), 0o755), keepKernelSettings(b.tb), makeCgroups(b.CgroupRoot))
	if err != nil {
		return nil, fmt.Errorf("prepare the kubelet: %w", err)
	}
	a, err := b.Agent(script)
	if err != nil {
		return nil, err
	}
	a.Config = map[string]any{
		"failSwapOn": false, "makeIPTablesUtilChains": false, "localStorageCapacityIsolation": false,
		"resolvConf": filepath.Join(dir, "resolv.conf"), "evictionHard": map[string]any{"memory.available": "1Mi"},
		"containerLogMaxSize": "1Gi", "enableServer": true, "address": "127.0.0.1", "readOnlyPort": 10255,
	}
	return a, nil
}

// keepKernelSettings has them set back in the end.
func keepKernelSettings(tb lab.TB) error {
	for _, name := range kernelSettings {
		path := filepath.Join("/proc/sys", name)
		before, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tb.Cleanup(func() {
			if now, err := os.ReadFile(path); err == nil && slices.Equal(now, before) {
				return
			}
			if err := os.WriteFile(path, before, 0); err != nil {
				tb.Errorf("set %s back: %v", name, err)
			}
		})
	}
	return nil
}

// makeCgroups makes the node's top cgroup, which the kubelet wants to find.
func makeCgroups(root string) error {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if mount := strings.Fields(s.Text()); strings.HasPrefix(mount[2], "cgroup") {
			err = errors.Join(err, os.MkdirAll(mount[1]+root, 0o755))
		}
	}
	return errors.Join(err, s.Err())
}

func kubeletReport(ctx context.Context, b *bed) (all, running int, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return b.Network.Dial(ctx, network, kubeletPods)
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+kubeletPods+"/pods", nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	var list v1.PodList
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return 0, 0, err
	}
	for _, p := range list.Items {
		if p.Status.Phase == v1.PodRunning {
			running++
		}
	}
	return len(list.Items), running, nil
}
