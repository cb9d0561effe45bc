package volumes

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkFourVolumes is what a pod's volumes cost from the folder to nothing:
// one on disk, a ConfigMap, a Secret and the pod's own labels.
func BenchmarkFourVolumes(b *testing.B) {
	root := b.TempDir()
	v, err := New(root, 64<<20, resolver(), nil)
	if err != nil {
		b.Fatal(err)
	}
	p := newPod(disk("cache"), configMap("config"), secret("keys"), downward("info"))
	p.UID = types.UID("bench")
	for b.Loop() {
		if err := v.Prepare(p); err != nil {
			b.Fatal(err)
		}
		if _, _, err := v.Mount(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := v.Unmount(b.Context(), p.UID); err != nil {
			b.Fatal(err)
		}
		if err := v.RemovePod(b.Context(), p.UID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
