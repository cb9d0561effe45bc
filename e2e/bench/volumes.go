package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shown is the ConfigMap that pods with volumes show, at a version.
func shown(version int) []byte {
	return fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shown, namespace: default}\ndata: {version: v%d}\n", version)
}

const hidden = "apiVersion: v1\nkind: Secret\nmetadata: {name: hidden, namespace: default}\nstringData: {key: hidden}\n"

// withVolumes is the pod of manifest with an emptyDir, a ConfigMap, a Secret and
// what it says of itself.
func withVolumes(name string) []byte {
	return append(manifest(name), `    volumeMounts:
    - {name: cache, mountPath: /cache}
    - {name: config, mountPath: /config}
    - {name: keys, mountPath: /keys}
    - {name: about, mountPath: /about}
  volumes:
  - {name: cache, emptyDir: {}}
  - {name: config, configMap: {name: shown}}
  - {name: keys, secret: {secretName: hidden}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
`...)
}

// volumes starts pods with and without volumes in turns, and then sees how long
// a changed ConfigMap takes to be seen in a container.
func (b *bed) volumes(ctx context.Context) error {
	if b.floor == nil {
		return nil // a kubelet without an apiserver has no ConfigMaps
	}
	if err := b.agent.WritePod("hidden.yaml", []byte(hidden)); err != nil {
		return err
	}
	if err := b.agent.WritePod("shown.yaml", shown(0)); err != nil {
		return err
	}
	var with, without, updates []float64
	for range b.o.samples {
		for _, pods := range []struct {
			manifest func(string) []byte
			took     *[]float64
		}{{manifest, &without}, {withVolumes, &with}} {
			name := b.name()
			_, took, err := b.runAs(ctx, name, pods.manifest(name))
			if err != nil {
				return err
			}
			*pods.took = append(*pods.took, milliseconds(took))
			if err := pause(ctx, settled); err != nil {
				return err
			}
			if _, err := b.end(ctx, name); err != nil {
				return err
			}
			if err := pause(ctx, 2*settled); err != nil {
				return err
			}
		}
	}
	name := b.name()
	e, _, err := b.runAs(ctx, name, withVolumes(name))
	if err != nil {
		return err
	}
	file, err := b.inContainer(ctx, e.id, "/config/version")
	if err != nil {
		return err
	}
	for version := 1; version <= b.o.samples; version++ {
		if err := pause(ctx, settled); err != nil {
			return err
		}
		began := time.Now()
		if err := b.agent.WritePod("shown.yaml", shown(version)); err != nil {
			return err
		}
		if err := awaitText(ctx, file, fmt.Sprintf("v%d", version)); err != nil {
			return err
		}
		updates = append(updates, milliseconds(time.Since(began)))
	}
	b.tellVolumes(with, without, updates)
	return b.clear(ctx)
}

func (b *bed) tellVolumes(with, without, updates []float64) {
	who := b.subject.name
	b.table.set("file dropped → container running, in turns with the next", who, estimate(median, without).text("ms"))
	b.table.set("file dropped → container running, with emptyDir, configMap, secret, downwardAPI", who, estimate(median, with).text("ms"))
	f := estimate(difference, with, without)
	b.table.set("— later for the four volumes", who, f.text("ms")).targeted("≤ 15 ms", f.atMost(15))
	b.table.set("ConfigMap's file changed → seen in the container, p50", who, estimate(median, updates).text("ms"))
	f = estimate(p99, updates)
	b.table.set("ConfigMap's file changed → seen in the container, p99", who, f.text("ms")).targeted("≤ 1000 ms", f.atMost(1000))
}

// inContainer is a path of the container as this process can read it.
func (b *bed) inContainer(ctx context.Context, id, path string) (string, error) {
	r, err := b.CRI.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return "", err
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil || info.Pid == 0 {
		return "", fmt.Errorf("the runtime does not tell the process of container %s: %w", id, err)
	}
	return fmt.Sprintf("/proc/%d/root%s", info.Pid, path), nil
}

// awaitText returns when the file has the text. Nobody announces that inside a
// container, so it looks all the time.
func awaitText(ctx context.Context, file, want string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		got, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(got)) == want {
			return nil
		}
		if pause(ctx, 200*time.Microsecond) != nil {
			return fmt.Errorf("wait until %s shows %s: it shows %q, %w", file, want, got, err)
		}
	}
}
