package syncloop

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// Offline says what becomes of an apiserver's pods before it has said what it
// wants.
type Offline struct {
	// Boot is the kernel's ID of this boot of the machine.
	Boot string
	// Start has pods that ran before a reboot started without asking, as far as
	// pod.MayStartOffline lets them.
	Start bool
}

// offlinePatience is how long the apiserver is waited for after a reboot.
const offlinePatience = 10 * time.Second

// alone says that the apiserver did not answer within offlinePatience.
type alone struct{}

// lookAround waits for the apiserver for a while.
func (l *Loop) lookAround(ctx context.Context) {
	if !l.Offline.Start || !slices.Contains(l.Sources, source.APIName) {
		return
	}
	pause(ctx, offlinePatience)
	l.mail.put(alone{})
}

// unconfirmed are the pods of an apiserver that has not been reached yet, as it
// wanted them last. They go on, unless the machine was started anew since: then
// they may run elsewhere by now.
func (l *Loop) unconfirmed() []source.Desired {
	if !slices.Contains(l.Sources, source.APIName) || l.merge.Has(source.APIName) {
		return nil
	}
	var out []source.Desired
	for _, a := range l.all() {
		if p := a.now.Load(); p.Origin == source.APIName && !l.ended[p.UID()] {
			out = append(out, source.Desired{Pod: a.wish, Origin: p.Origin})
		}
	}
	for _, r := range l.Known {
		if r.Origin == source.APIName && l.goesOn(r) {
			out = append(out, source.Desired{Pod: r.Spec, Origin: r.Origin})
		}
	}
	return out
}

// goesOn says whether a pod of an apiserver goes on without its word.
func (l *Loop) goesOn(r pod.Record) bool {
	return r.Boot == l.Offline.Boot || l.alone && pod.MayStartOffline(r)
}

// unheard are the pods of which nothing begins before their apiserver has been
// heard, for people to see. The caller holds mu.
func (l *Loop) unheard() (out []pod.Pod) {
	if !slices.Contains(l.Sources, source.APIName) || l.merge.Has(source.APIName) {
		return nil
	}
	now := time.Now()
	for uid, r := range l.Known {
		if r.Origin != source.APIName || l.actors[uid] != nil {
			continue
		}
		p := pod.New(pod.Wanted{At: now, Spec: r.Spec, Origin: r.Origin}, pod.View{}, &r)
		if !l.goesOn(r) {
			p.Verdict = pod.Verdict{State: pod.Waiting, Reason: "ApiserverUnheard", Message: l.whyUnheard(r)}
		}
		out = append(out, p)
	}
	return out
}

func (l *Loop) whyUnheard(r pod.Record) string {
	const text = "waits for the apiserver: the machine was started anew since, and the pod may run elsewhere by now"
	switch {
	case !l.Offline.Start:
		return text
	case pod.MayStartOffline(r):
		return text + fmt.Sprintf("; it is started without after %s", offlinePatience)
	}
	return text + "; it is none that may be started without"
}
