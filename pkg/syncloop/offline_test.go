package syncloop

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// bound is a pod of an apiserver, of one container.
func bound(uid string, change ...func(*v1.Pod)) *v1.Pod {
	p := static(uid, uid, "term=1s")
	p.Annotations[pod.SourceAnnotation] = source.APIName
	for _, c := range change {
		c(p)
	}
	return p
}

func ofDaemonSet(p *v1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "d", Controller: new(true)}}
}

// granted are the records of pods that ran in a boot of the machine.
func granted(boot string, pods ...*v1.Pod) map[types.UID]pod.Record {
	out := map[types.UID]pod.Record{}
	for _, p := range pods {
		out[p.UID] = pod.Record{Spec: p, Origin: source.APIName, Boot: boot, Granted: true, Started: time.Now()}
	}
	return out
}

// from is all that a source wants.
func from(name string, pods ...*v1.Pod) source.Update {
	u := source.Update{Source: name}
	for _, p := range pods {
		u.Pods = append(u.Pods, source.Desired{Pod: p, Origin: name})
	}
	return u
}

// lives are the running containers of each pod, as ID.
func (b *bench) lives(uid string) (ids []string) {
	b.locked(func() {
		for id, c := range b.runtime.containers {
			if string(c.pod.UID) == uid && c.State == pod.Running {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// made is how many sandboxes and containers were ever made.
func (b *bench) made() (n int) {
	b.locked(func() { n = b.runtime.made })
	return n
}

func (b *bench) waits(uid string) string {
	for _, p := range b.agent.loop.Pods() {
		if string(p.UID()) == uid {
			return strings.Join(pod.Waits(p, b.agent.loop.Node(), time.Now()), "; ")
		}
	}
	return "not there"
}

// container is what the loop shows of the pod's only one.
func (b *bench) container(uid string) *pod.Container {
	for _, p := range b.agent.loop.Pods() {
		for _, m := range p.Containers {
			if string(p.UID()) == uid {
				return m.Known
			}
		}
	}
	return nil
}

func (b *bench) looked() bool {
	select {
	case <-b.agent.loop.Looked():
		return true
	default:
		return false
	}
}

func (b *bench) failIfWrong(t *testing.T) {
	for _, v := range b.wrong {
		t.Error(v)
	}
}

var joinedSources = []string{"file", source.APIName}

// An apiserver that is never reached: what ran goes on, and what ends is started
// again; static pods start. When it is reached after all, what it wants goes on
// untouched, and the rest ends.
func TestPodsGoOnWithoutTheirApiserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, crashing, unwanted := bound("kept"), bound("crashing"), bound("unwanted")
		b := newBenchOf(t, joinedSources, Offline{Boot: "now"}, granted("now", kept, crashing, unwanted), func(w *world) {
			for _, p := range []*v1.Pod{kept, crashing, unwanted} {
				running(w, p)
			}
		})
		time.Sleep(lookPatience / 2)
		if b.looked() {
			t.Error("it says that it has looked before the file source has")
		}
		b.updates <- from("file", static("s", "static", "term=0s"))
		<-b.agent.loop.Looked()
		if c := b.container("kept"); c == nil || c.State != pod.Running {
			t.Errorf("kept when Looked says that it is known: %+v", c)
		}
		time.Sleep(time.Hour)
		before := b.lives("kept")
		if len(before) != 1 || before[0] != "old container of kept" || len(b.lives("unwanted")) != 1 || len(b.lives("static")) != 1 {
			t.Errorf("after an hour without the apiserver: %v, %v, %v", before, b.lives("unwanted"), b.lives("static"))
		}
		b.locked(func() { b.runtime.exit(b.runtime.containers["old container of crashing"], 1) })
		time.Sleep(time.Minute)
		again := b.lives("crashing")
		if len(again) != 1 || again[0] == "old container of crashing" {
			t.Errorf("what ended was not started again: %v", again)
		}
		b.updates <- from(source.APIName, kept.DeepCopy(), crashing.DeepCopy())
		time.Sleep(time.Minute)
		if now := b.lives("kept"); !slices.Equal(now, before) {
			t.Errorf("kept: %v, was %v", now, before)
		}
		if now := b.lives("crashing"); !slices.Equal(now, again) {
			t.Errorf("crashing: %v, was %v", now, again)
		}
		if now := b.lives("unwanted"); len(now) > 0 {
			t.Errorf("unwanted runs: %v", now)
		}
		b.failIfWrong(t)
	})
}

// What another agent ran is none of the records': only the apiserver knows it.
func TestLookedIsAlsoAtPodsOfAnotherAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bound("theirs")
		b := newBenchOf(t, joinedSources, Offline{Boot: "now"}, nil, func(w *world) { running(w, p) })
		b.updates <- from("file")
		time.Sleep(lookPatience / 2)
		if b.looked() {
			t.Error("it says that it has looked, and knows nothing of what runs")
		}
		b.updates <- from(source.APIName, p)
		<-b.agent.loop.Looked()
		if c := b.container("theirs"); c == nil || c.State != pod.Running {
			t.Errorf("when Looked says that it is known: %+v", c)
		}
	})
}

// Who asks is not kept waiting by a source that doesn't answer.
func TestLookedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := newBenchOf(t, joinedSources, Offline{Boot: "now"}, nil, func(*world) {})
		<-b.agent.loop.Looked()
		if took := time.Since(began); took != lookPatience {
			t.Errorf("after %v, want %v", took, lookPatience)
		}
	})
}

// After a reboot only what may be started without asking is, when that is set,
// and after a while.
func TestRebootWithoutApiserver(t *testing.T) {
	for name, start := range map[string]bool{"waits": false, "starts": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				daemon, plain, gone := bound("daemon", ofDaemonSet), bound("plain"), bound("gone", ofDaemonSet)
				b := newBenchOf(t, joinedSources, Offline{Boot: "now", Start: start}, granted("before", daemon, plain, gone), func(*world) {})
				b.updates <- from("file", static("s", "static", "term=0s"))
				time.Sleep(offlinePatience - time.Second)
				const text = "admission: waits for the apiserver: the machine was started anew since"
				for uid, more := range map[string]string{"daemon": "after 10s", "plain": "none that may be started"} {
					if w := b.waits(uid); !strings.HasPrefix(w, text) || strings.Contains(w, more) != start {
						t.Errorf("%s: %s", uid, w)
					}
				}
				if n := b.made(); n != 2 || len(b.lives("static")) != 1 {
					t.Errorf("while the apiserver is waited for: %d sandboxes and containers", n)
				}
				time.Sleep(time.Minute)
				first := b.lives("daemon")
				if len(first) == 1 != start || len(b.lives("plain")) > 0 || !strings.HasPrefix(b.waits("plain"), text) {
					t.Errorf("daemon runs %v, plain %v and %s", first, b.lives("plain"), b.waits("plain"))
				}
				b.updates <- from(source.APIName, daemon.DeepCopy(), plain.DeepCopy())
				time.Sleep(time.Minute)
				now := b.lives("daemon")
				if start && !slices.Equal(now, first) || len(now) != 1 || len(b.lives("plain")) != 1 || len(b.lives("gone")) > 0 {
					t.Errorf("once the apiserver is there: daemon %v, was %v; plain %v; gone %v", now, first, b.lives("plain"), b.lives("gone"))
				}
				if w := b.waits("gone"); w != "not there" {
					t.Errorf("gone: %s", w)
				}
				b.failIfWrong(t)
			})
		})
	}
}

// An apiserver that answers within the patience decides.
func TestRebootWithApiserverInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBenchOf(t, joinedSources, Offline{Boot: "now", Start: true}, granted("before", bound("daemon", ofDaemonSet)), func(*world) {})
		b.updates <- from("file")
		time.Sleep(offlinePatience - time.Second)
		b.updates <- from(source.APIName)
		time.Sleep(time.Minute)
		if n := b.made(); n > 0 || b.waits("daemon") != "not there" {
			t.Errorf("started though it is unwanted: %d sandboxes and containers; %s", n, b.waits("daemon"))
		}
		b.failIfWrong(t)
	})
}

// A pod that was to end does so though the apiserver is away.
func TestEndsWithoutApiserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bound("ending")
		known := granted("now", p)
		r := known[p.UID]
		r.Stop = &pod.Stop{At: time.Now(), Grace: time.Second}
		known[p.UID] = r
		b := newBenchOf(t, joinedSources, Offline{Boot: "now"}, known, func(w *world) { running(w, p) })
		time.Sleep(time.Minute)
		if now := b.lives("ending"); len(now) > 0 {
			t.Errorf("still runs: %v", now)
		}
		b.failIfWrong(t)
	})
}
