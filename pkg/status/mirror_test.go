package status

import (
	"errors"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

var nodeObject = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}}

// static is a pod from a file, whose definition has that hash.
func (b *bed) static(name, hash string) *life {
	p := bound(name, time.Now())
	p.UID, p.Generation = types.UID(hash), 0
	p.Labels = map[string]string{"app": name}
	p.Annotations = map[string]string{pod.SourceAnnotation: "file", pod.HashAnnotation: hash}
	return born(p, time.Now(), b.w.Tell)
}

var etcd = []types.NamespacedName{{Namespace: "shop", Name: "etcd"}}

// TestMirror: a static pod has an image as soon as there is a node for it, with
// the status of the pod, which is never deleted for having ended.
func TestMirror(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.static("etcd", "h1")
		l.live("")
		b.w.Synced(etcd)
		b.settle()
		b.wantCalls("", "", 0)
		b.w.Registered(nodeObject)
		time.Sleep(50 * time.Millisecond)
		m := b.get("etcd")
		if m == nil || !ready(m) || m.UID == l.p.UID() {
			b.Fatalf("the image: %+v", m)
		}
		o := m.OwnerReferences
		if m.Annotations[v1.MirrorPodAnnotationKey] != "h1" || m.Annotations[pod.HashAnnotation] != "h1" || m.Labels["app"] != "etcd" ||
			len(o) != 1 || o[0].Kind != "Node" || o[0].UID != "node-uid" || !*o[0].Controller || m.Spec.Containers[0].Image != "img" {
			b.Errorf("the image: %+v", m.ObjectMeta)
		}
		l.dies("c", 1)
		l.live("")
		b.settle()
		if c := b.get("etcd").Status.ContainerStatuses[0]; c.RestartCount != 1 {
			b.Errorf("not the static pod's status: %+v", c)
		}
		before := len(b.asked("", ""))
		time.Sleep(time.Hour)
		b.wantCalls("", "", before)
	})
}

// TestMirrorComesBack when somebody deletes it, at once or by and by, and with
// another node.
func TestMirrorComesBack(t *testing.T) {
	inBed(t, func(b *bed) {
		b.w.Registered(nodeObject)
		l := b.static("etcd", "h1")
		l.live("")
		b.settle()
		first := b.get("etcd").UID
		b.change("etcd", func(p *v1.Pod) { p.DeletionTimestamp = new(metav1.Now()) })
		b.settle()
		second := b.get("etcd")
		if second == nil || second.UID == first || !ready(second) {
			b.Fatalf("after a deletion: %+v", second)
		}
		b.w.Registered(nil)
		b.api.remove("etcd")
		b.settle()
		if p := b.get("etcd"); p != nil {
			b.Errorf("there is no node: %+v", p)
		}
		b.w.Registered(nodeObject)
		b.settle()
		if p := b.get("etcd"); p == nil || !ready(p) {
			b.Errorf("after the node is back: %+v", p)
		}
	})
}

// TestMirrorOfAnotherDefinition: the image stays that of the old pod until that
// is gone, and is replaced then.
func TestMirrorOfAnotherDefinition(t *testing.T) {
	inBed(t, func(b *bed) {
		b.w.Registered(nodeObject)
		b.w.Synced(etcd)
		old := b.static("etcd", "h1")
		old.live("")
		b.settle()
		first := b.get("etcd").UID
		next := b.static("etcd", "h2")
		next.apply(pod.Judged{At: time.Now(), Verdict: pod.Verdict{State: pod.Waiting}})
		old.apply(pod.Ended{At: time.Now(), Grace: -1, Unwanted: true})
		old.live("")
		b.settle()
		if p := b.get("etcd"); p.UID != first || !pod.IsTerminal(p.Status.Phase) {
			b.Errorf("while the old one ends: %+v", p)
		}
		b.w.Forget(old.p.UID())
		next.apply(pod.Judged{At: time.Now()})
		next.live("")
		b.settle()
		if p := b.get("etcd"); p == nil || p.Annotations[v1.MirrorPodAnnotationKey] != "h2" || !ready(p) {
			b.Errorf("the new one's image: %+v", p)
		}
		b.w.Forget(next.p.UID())
		b.settle()
		if p := b.get("etcd"); p != nil {
			b.Errorf("the image of a pod that is gone: %+v", p)
		}
		b.empty()
	})
}

// TestOrphanedMirror: images of earlier days go once all sources have told what
// they want; the image of a pod that is yet to be told of does not.
func TestOrphanedMirror(t *testing.T) {
	inBed(t, func(b *bed) {
		mirror := func(name string) *v1.Pod {
			return b.put(bound(name, time.Now(), func(p *v1.Pod) {
				p.Annotations = map[string]string{v1.MirrorPodAnnotationKey: "h1", pod.SourceAnnotation: "file"}
			}))
		}
		mirror("old")
		kept := mirror("etcd")
		b.w.Registered(nodeObject)
		b.settle()
		b.wantCalls("", "", 0)
		b.w.Synced(etcd)
		b.settle()
		if b.get("old") != nil || b.get("etcd") == nil {
			b.Errorf("old: %v, etcd: %v", b.get("old"), b.get("etcd"))
		}
		b.static("etcd", "h1").live("")
		b.settle()
		if p := b.get("etcd"); p.UID != kept.UID || !ready(p) {
			b.Errorf("the image was to be kept: %+v", p)
		}
		b.wantCalls("create", "", 0)
	})
}

// TestMirrorIsThereAlready: an image that the watch has not shown yet is taken;
// any other pod of the name is left alone, and said so once.
func TestMirrorIsThereAlready(t *testing.T) {
	inBed(t, func(b *bed) {
		b.lag = time.Hour
		b.w.Registered(nodeObject)
		b.put(bound("etcd", time.Now(), func(p *v1.Pod) { p.Annotations = map[string]string{v1.MirrorPodAnnotationKey: "h1"} }))
		b.put(bound("web", time.Now()))
		b.static("etcd", "h1").live("")
		b.static("web", "h2").live("")
		b.settle()
		if !ready(b.get("etcd")) || ready(b.get("web")) || b.log.count() != 1 {
			b.Errorf("etcd ready %v, web ready %v, logged %v", ready(b.get("etcd")), ready(b.get("web")), b.log.text)
		}
		b.wantCalls("delete", "", 0)
	})
}

// TestMirrorAfterAnother: the image is made soon after the pod is gone that had
// its name.
func TestMirrorAfterAnother(t *testing.T) {
	inBed(t, func(b *bed) {
		b.w.Registered(nodeObject)
		b.put(bound("etcd", time.Now()))
		b.static("etcd", "h1").live("")
		b.settle()
		b.api.remove("etcd")
		time.Sleep(2 * time.Minute)
		if p := b.get("etcd"); p == nil || !isMirror(p) || !ready(p) {
			b.Errorf("the image: %+v", p)
		}
	})
}

// TestMirrorHeldByFinalizers is waited for, and then made anew.
func TestMirrorHeldByFinalizers(t *testing.T) {
	inBed(t, func(b *bed) {
		b.w.Registered(nodeObject)
		b.static("etcd", "h1").live("")
		b.settle()
		b.change("etcd", func(p *v1.Pod) { p.Finalizers, p.DeletionTimestamp = []string{"example.com/stay"}, new(metav1.Now()) })
		b.settle()
		before := len(b.asked("", ""))
		time.Sleep(time.Minute)
		b.wantCalls("", "", before)
		b.wantCalls("delete", "etcd", 1)
		b.api.remove("etcd")
		b.settle()
		if p := b.get("etcd"); p == nil || p.DeletionTimestamp != nil || !ready(p) {
			b.Errorf("the new image: %+v", p)
		}
	})
}

// TestMirrorIsRefused: an apiserver that does not take the image is asked ever
// more seldom.
func TestMirrorIsRefused(t *testing.T) {
	inBed(t, func(b *bed) {
		b.fail = func(verb, name string) error {
			if verb == "create" {
				return apierrors.NewForbidden(v1.Resource("pods"), name, errors.New("no"))
			}
			return nil
		}
		b.w.Registered(nodeObject)
		b.static("etcd", "h1").live("")
		time.Sleep(10 * time.Minute)
		if n := len(b.asked("create", "")); n < 5 || n > 30 || b.log.count() != 1 {
			b.Errorf("%d tries, logged %v", n, b.log.text)
		}
	})
}
