package syncloop

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// list takes in the runtime's full list. The first one says what runs already;
// later ones correct what the events missed.
func (l *Loop) list(ctx context.Context, found listed) {
	if l.found == nil {
		l.enter(found)
		l.mu.Lock()
		l.found = found
		l.mu.Unlock()
		l.reconcile(ctx)
		return
	}
	for uid, f := range found {
		if l.actor(uid) != nil || !l.swept {
			continue
		}
		l.found[uid] = f
		l.orphan(ctx, uid)
	}
}

// enter gives the pods that run already their grants before any other pod is
// judged.
func (l *Loop) enter(found listed) {
	for uid, f := range found {
		if _, known := l.Known[uid]; !known && lives(f.View) {
			// Little is known of it, but that it has its name.
			l.grants.enter(ledger.ClaimOf(rebuild(uid, f)))
		}
	}
	for _, d := range l.merge.Pods() {
		if f, ok := found[d.Pod.UID]; ok && lives(f.View) {
			l.grants.enter(ledger.ClaimOf(l.allocated(d.Pod)))
		}
	}
	l.enterKnown(found)
}

// enterKnown enters those that live for what their records say. The others had
// their grants before too, but one may have ended since for another's sake.
func (l *Loop) enterKnown(found listed) {
	var others []ledger.Claim
	byAge := func(a, b types.UID) int {
		return cmp.Or(l.Known[a].Started.Compare(l.Known[b].Started), cmp.Compare(a, b))
	}
	for _, uid := range slices.SortedFunc(maps.Keys(l.Known), byAge) {
		r := l.Known[uid]
		switch {
		case !r.Granted:
		case lives(found[uid].View): // also one that has ended, until it is down
			l.grants.enter(ledger.ClaimOf(l.allocated(r.Spec)))
		case !pod.IsTerminal(r.Phase):
			others = append(others, ledger.ClaimOf(r.Spec))
		}
	}
	for _, c := range others {
		l.grants.readmit(c)
	}
}

func lives(v pod.View) bool {
	return slices.ContainsFunc(v.Sandboxes, func(s pod.Sandbox) bool { return s.Ready })
}

// adopt gives a static pod the UID under which it already runs, if another
// agent, or another rule for UIDs, started it: same source, full name and
// container hashes, and no record of ours that says it was another pod.
func (l *Loop) adopt(d source.Desired) source.Desired {
	computed := d.Pod.UID
	if uid, ok := l.adopted[computed]; ok {
		if a := l.actor(uid); a != nil && !l.ended[uid] {
			if source.Same(a.wish, d.Pod) {
				return source.Desired{Pod: a.wish, Origin: d.Origin}
			}
		}
		return source.Desired{Pod: source.Adopt(d.Pod, uid), Origin: d.Origin}
	}
	if !pod.IsStatic(d.Pod) || l.actor(computed) != nil {
		return d
	}
	if _, same := l.found[computed]; same {
		return d
	}
	newest := func(a, b types.UID) int {
		return cmp.Or(began(l.found[b]).Compare(began(l.found[a])), cmp.Compare(a, b))
	}
	for _, uid := range slices.SortedFunc(maps.Keys(l.found), newest) {
		if !l.isOlder(l.found[uid], d.Pod) {
			continue
		}
		l.adopted[computed] = uid
		adopted := source.Adopt(d.Pod, uid)
		l.grants.enter(ledger.ClaimOf(adopted))
		l.Log.Info("adopting a pod that already runs", "pod", d.Pod.Namespace+"/"+d.Pod.Name, "uid", uid)
		return source.Desired{Pod: adopted, Origin: d.Origin}
	}
	return d
}

// began is when the newest sandbox of what was found was created.
func began(f cri.Found) time.Time {
	if len(f.View.Sandboxes) == 0 {
		return time.Time{}
	}
	return f.View.Sandboxes[0].CreatedAt
}

// isOlder says whether what was found is an older form of the wanted pod.
func (l *Loop) isOlder(f cri.Found, p *v1.Pod) bool {
	if f.Name != p.Name || f.Namespace != p.Namespace || len(f.View.Containers) == 0 || !lives(f.View) ||
		f.Annotations[pod.SourceAnnotation] != p.Annotations[pod.SourceAnnotation] {
		return false
	}
	if r, ok := l.Known[f.UID]; ok && !source.Same(r.Spec, p) {
		return false // it was changed while we were away
	}
	want := hashes(p)
	return !slices.ContainsFunc(f.View.Containers, func(c pod.Container) bool { return want[c.Name] != c.Hash })
}

// held are the pods that an earlier process took from origins which cannot be
// read now: they go on as they were.
func (l *Loop) held() []source.Desired {
	var origins []string
	for _, s := range l.Sources {
		origins = append(origins, l.merge.Held(s)...)
	}
	var out []source.Desired
	for _, a := range l.all() {
		if p := a.now.Load(); slices.Contains(origins, p.Origin) && !l.ended[p.UID()] {
			out = append(out, source.Desired{Pod: a.wish, Origin: p.Origin})
		}
	}
	for _, r := range l.Known {
		if slices.Contains(origins, r.Origin) && r.Stop == nil && r.Spec != nil {
			out = append(out, source.Desired{Pod: r.Spec, Origin: r.Origin})
		}
	}
	return append(out, l.unconfirmed()...)
}

// sweep ends what no source wants: pods in the runtime, records, folders. It
// runs once, after every source has delivered.
func (l *Loop) sweep(ctx context.Context, wanted map[types.UID]bool) {
	uids := map[types.UID]bool{}
	for uid := range l.found {
		uids[uid] = true
	}
	for uid := range l.Known {
		uids[uid] = true
	}
	l.work.Go(func() {
		// A disk that hangs must not stop the loop.
		dirs, err := l.Volumes.PodDirs()
		if err != nil {
			l.Log.Warn("folders of gone pods were not looked for", "error", err)
		}
		l.mail.put(folders(dirs))
	})
	for uid := range uids {
		if !wanted[uid] && l.actor(uid) == nil {
			l.orphan(ctx, uid)
		}
	}
}

// clear ends what is left on disk of pods that nobody knows any more.
func (l *Loop) clear(ctx context.Context, dirs folders) {
	wanted := map[types.UID]bool{}
	for _, d := range l.merge.Pods() {
		wanted[d.Pod.UID] = true
	}
	for _, uid := range dirs {
		if !wanted[uid] && l.actor(uid) == nil {
			l.orphan(ctx, uid)
		}
	}
}

// orphan ends a pod that no source wants, with the grace that it asked for.
func (l *Loop) orphan(ctx context.Context, uid types.UID) {
	found := l.found[uid]
	record, known := l.Known[uid]
	if !known && l.holds(found) {
		if !l.spared[uid] {
			l.spared[uid] = true
			l.Log.Warn("left alone: its source cannot be read now", "pod", found.Namespace+"/"+found.Name, "uid", uid)
		}
		return
	}
	delete(l.spared, uid)
	spec, grace := record.Spec, time.Duration(-1)
	if spec == nil {
		spec, grace = rebuild(uid, found), found.Grace
	}
	if !began(found).IsZero() {
		l.Metrics.Orphan()
	}
	l.Log.Info("ending a pod that no source wants", "pod", spec.Namespace+"/"+spec.Name, "uid", uid)
	l.ended[uid] = true
	a := l.start(ctx, pod.Wanted{At: time.Now(), Spec: spec, Origin: record.Origin})
	a.mail.put(pod.Ended{At: time.Now(), Grace: grace, Unwanted: true})
}

// holds says whether the pod may have come from an origin that cannot be read.
func (l *Loop) holds(f cri.Found) bool {
	name := f.Annotations[pod.SourceAnnotation]
	return name != "" && len(l.merge.Held(name)) > 0
}

// rebuild is the little that the runtime tells of a pod's spec.
func rebuild(uid types.UID, f cri.Found) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Name: f.Name, Namespace: f.Namespace, Annotations: f.Annotations}}
	for _, c := range f.View.Containers {
		if pod.FindContainer(p, c.Name) == nil {
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: c.Name, Image: c.Image,
				Lifecycle: &v1.Lifecycle{PreStop: f.PreStop[c.Name]}})
		}
	}
	p.Spec.HostNetwork = len(f.View.Sandboxes) > 0 && f.View.Sandboxes[0].HostNetwork
	return p
}
