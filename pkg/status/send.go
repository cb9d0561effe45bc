package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// fly does what is now to be done about the pod: one call.
func (w *Writer) fly(ctx context.Context, k *known, timeout time.Duration) {
	w.mu.Lock()
	v := w.view(k)
	k.news = false
	w.mu.Unlock()
	s := w.planned(v, time.Now())
	call, cancel := context.WithTimeout(ctx, timeout)
	sent := time.Now()
	newest, err := w.sendTraced(call, v, s)
	cancel()
	if ctx.Err() != nil {
		return // the agent ends
	}
	if err == nil && newest != nil {
		w.tellReady(v, s, sent)
	}
	if s.verb != idle {
		w.Metrics.Call(s.verb.String(), err != nil)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake() // somebody may wait for a place
	defer w.look(k)
	w.flying--
	k.busy = false
	if err == nil {
		k.took(v, s, newest)
	}
	w.judge(k, v, s, err)
}

// tellReady says of pods that the apiserver now knows that they are ready.
func (w *Writer) tellReady(v view, s step, sent time.Time) {
	said := s.status
	if s.verb == create {
		said = s.pod.Status
	}
	if w.Ready == nil || s.verb != patch && s.verb != create || !isTrue(said, v1.PodReady) {
		return
	}
	for _, p := range v.here {
		w.Ready(p.UID(), sent, time.Now())
	}
}

// send makes the call. What it brings is the apiserver's newest copy, nil if it
// has none.
func (w *Writer) send(ctx context.Context, v view, s step) (*v1.Pod, error) {
	pods := w.Client.CoreV1().Pods(v.name.Namespace)
	switch s.verb {
	case get:
		p, err := pods.Get(ctx, v.name.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && !v.static() && p.UID != v.there.UID, err == nil && v.static() && !isMirror(p):
			return nil, nil
		case v.static() && apierrors.IsForbidden(err):
			// A node may not ask for a pod that isn't there. If this one is, and the
			// apiserver has yet to learn whose it is, its creation tells.
			return nil, nil
		}
		return p, wrap("get pod", err)
	case patch:
		body, err := patchOf(v.there, s.status)
		if err != nil {
			return nil, err
		}
		p, err := pods.Patch(ctx, v.name.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return p, wrap("patch status", err)
	case remove:
		err := pods.Delete(ctx, v.name.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(v.there.UID))})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, wrap("delete pod", err)
	case create:
		p, err := pods.Create(ctx, s.pod, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return p, wrap("create image of static pod", err)
		}
		p, err = pods.Get(ctx, v.name.Name, metav1.GetOptions{})
		if err == nil && !isMirror(p) {
			err = errOther
		}
		return p, wrap("create image of static pod", err)
	}
	return v.there, nil
}

// errOther is of a static pod whose name a pod of the apiserver has.
var errOther = errors.New("the apiserver has another pod of that name: rename one of them")

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// took takes in what the call brought.
func (k *known) took(before view, s step, newest *v1.Pod) {
	switch {
	case s.verb == idle:
	case newest == nil:
		k.deleted = s.verb == remove && !k.static()
		if k.there != nil && before.there != nil && k.there.UID == before.there.UID {
			k.there, k.refused = nil, nil
		}
	case s.verb == get && k.there == before.there, !older(newest, k.there):
		k.there = newest
	}
	k.unsure = k.unsure && s.verb != get
	if s.verb == patch && newest != nil {
		k.refused = nil
		if !equality.Semantic.DeepEqual(newest.Status, s.status) {
			k.refused = &refused{sent: s.status, version: newest.ResourceVersion}
		}
	}
}

// outage is a time in which the apiserver can't be reached.
type outage struct {
	since time.Time
	tries int
	retry time.Time
}

const (
	callTimeout = 10 * time.Second
	// tryTimeout is that of a call that only finds out whether an outage is over.
	tryTimeout = 3 * time.Second
)

// timeout is how long a call may take. The caller holds w.mu.
func (w *Writer) timeout() time.Duration {
	if w.outage != nil {
		return tryTimeout
	}
	return callTimeout
}

// judge says what follows from how a call ended. The caller holds w.mu.
func (w *Writer) judge(k *known, v view, s step, err error) {
	now := time.Now()
	if err != nil {
		k.unsure = true
	}
	if err != nil && unreachable(err) {
		k.wait = now.Add(time.Second) // another one tries next
		w.lost(now, err)
		return
	}
	if o := w.outage; o != nil && s.verb != idle {
		w.outage = nil
		w.Log.Info("the apiserver can be reached again; telling it of the pods", "after", now.Sub(o.since).Round(time.Millisecond))
		w.doubt()
	}
	switch {
	case err == nil && s.verb == get:
		return // whether it helped, the next call tells
	case err == nil:
		k.fails, k.wait = 0, time.Time{}
		return
	}
	k.fails++
	k.wait = now.Add(backoff(k.fails, err))
	// The first time somebody else may have written too: not worth a word.
	if text := err.Error(); k.fails == 2 && text != w.told {
		w.told = text
		w.Log.Warn("the apiserver does not take what it is told of a pod; trying again", "pod", v.name, "error", err)
	}
}

// backoff is how long a pod waits after as many failures in a row. An error of
// the apiserver's own is soon over, a refusal is not.
func backoff(fails int, err error) time.Duration {
	most := time.Minute
	if apierrors.IsInternalError(err) {
		most = 3 * time.Second
	}
	return wait.Jitter(min(50*time.Millisecond<<min(fails-1, 12), most), 0.3)
}

// lost notes that the apiserver could not be reached. Calls that were under way
// beside count as one try.
func (w *Writer) lost(now time.Time, err error) {
	o := w.outage
	if o == nil {
		o = &outage{since: now}
		w.outage = o
		w.Log.Warn("the apiserver cannot be reached; pods go on, what is to be told of them waits", "error", err)
	}
	if o.retry.After(now) {
		return
	}
	o.tries++
	o.retry = now.Add(wait.Jitter(min(200*time.Millisecond<<min(o.tries-1, 8), 1500*time.Millisecond), 0.3))
}

// unreachable says that the error is about the apiserver and not about the pod.
func unreachable(err error) bool {
	var answer apierrors.APIStatus
	return !errors.Is(err, errOther) && !errors.As(err, &answer) || apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsUnauthorized(err)
}
