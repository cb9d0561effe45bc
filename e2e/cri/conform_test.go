// Package cri runs the conformance suite of the runtime contract on real
// containerd, old and new.
package cri

import (
	"os"
	"testing"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/v1"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/criconform"
)

func TestRuntimes(t *testing.T) {
	for _, version := range []string{lab.Containerd2, lab.Containerd16} {
		t.Run(version, func(t *testing.T) {
			l := lab.New(t, lab.Options{Version: version})
			r, err := l.Registry(lab.RegistryOptions{User: "u", Password: "p"})
			if err != nil {
				t.Fatal(err)
			}
			image, err := lab.NewImage(gcr.Config{}, []lab.File{{Name: "hello", Mode: 0o644, Data: []byte("hello")}})
			if err != nil {
				t.Fatal(err)
			}
			ref, err := r.Push(t.Context(), "some/app:1", image)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.MkdirAll(dir+"/root", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/root/config.json", []byte(`{"auths":{"`+r.Host+`":{"username":"u","password":"p"}}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			criconform.Suite(t, criconform.Env{
				Options: cri.Options{
					Endpoint: l.Runtime.Endpoint(), LinksDir: dir + "/links", RequestTimeout: 30 * time.Second,
					Pods: cri.PodOptions{RootDir: dir + "/root", LogsDir: dir + "/logs", CPUCFSQuota: true, MemoryCapacity: 8 << 30,
						CgroupParent: func(p *v1.Pod) string { return l.CgroupRoot + "/pod" + string(p.UID) }},
				},
				Image: lab.BusyboxImage, Remote: ref, Events: version == lab.Containerd2,
			})
		})
	}
}
