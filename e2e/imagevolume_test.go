package e2e

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestImageVolume is what images mounted as volumes show.
func TestImageVolume(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"ShowsTheImageReadOnly": showsTheImageReadOnly,
		"MissingFailsItsUser":   missingFailsItsUser,
	})
}

func showsTheImageReadOnly(b *bed) {
	b.apply("img", podOf("img", `
volumes: [{name: i, image: {reference: BUSYBOX}}]
containers:
- name: a
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  volumeMounts: [{name: i, mountPath: /i, readOnly: true}, {name: i, mountPath: /part, subPath: bin}]`))
	p := b.ready("img")
	id := b.instances(string(p.UID))["a"]
	if got := b.exec(id, "sh", "-c", "test -x /i/bin/busybox && test -x /part/busybox && echo there; touch /i/x 2>/dev/null || echo read-only"); got != "there\nread-only" {
		b.t.Errorf("it shows %q", got)
	}
	mounts := container(p, "a").VolumeMounts
	if len(mounts) != 2 || mounts[0].MountPath != "/i" || !mounts[0].ReadOnly || mounts[0].RecursiveReadOnly == nil || mounts[1].RecursiveReadOnly != nil {
		b.t.Errorf("status tells %+v", mounts)
	}
}

// missingFailsItsUser: the container that mounts the image waits, the other
// runs.
func missingFailsItsUser(b *bed) {
	b.apply("noimg", podOf("noimg", `
volumes: [{name: i, image: {reference: "nodeagent.test/none:1", pullPolicy: IfNotPresent}}]
containers:
- {name: a, image: BUSYBOX, volumeMounts: [{name: i, mountPath: /i}]}
- {name: b, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`))
	_, s := b.await("noimg", "a", "waits for its image", func(s v1.ContainerStatus) bool {
		return s.State.Waiting != nil && (s.State.Waiting.Reason == "ErrImagePull" || s.State.Waiting.Reason == "ImagePullBackOff")
	})
	if !strings.Contains(s.State.Waiting.Message, "nodeagent.test/none:1") {
		b.t.Errorf("it says %q", s.State.Waiting.Message)
	}
	b.await("noimg", "b", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
}

// TestImageVolumeOnOldRuntime: a runtime without image volumes is said so.
func TestImageVolumeOnOldRuntime(t *testing.T) {
	b := newBed(t, lab.Containerd16)
	b.start()
	b.apply("old", podOf("old", `
volumes: [{name: i, image: {reference: BUSYBOX}}]
containers: [{name: a, image: BUSYBOX, volumeMounts: [{name: i, mountPath: /i}]}]`))
	_, s := b.await("old", "a", "is refused", waitsFor("CreateContainerConfigError"))
	if !strings.Contains(s.State.Waiting.Message, "containerd 2.1") {
		t.Errorf("it says %q", s.State.Waiting.Message)
	}
}
