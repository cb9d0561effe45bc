package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// api is an apiserver that has nothing but pods, in one namespace: it counts
// their versions, looks at UIDs, and notes what was asked of it. What is new it
// tells as a watch would, after lag.
type api struct {
	latency time.Duration
	lag     time.Duration
	watcher *Writer // told of what changes

	mu      sync.Mutex
	version int
	pods    map[string]*v1.Pod
	calls   []call
	// fail, if set, is asked before a call is served.
	fail func(verb, name string) error
	// alter, if set, changes what is stored, as a server does that knows less.
	alter func(*v1.Pod)
}

// call is one that an apiserver was asked.
type call struct {
	at         time.Time
	verb, name string
	body       string
}

func newAPI() *api {
	return &api{pods: map[string]*v1.Pod{}, latency: 5 * time.Millisecond, lag: 5 * time.Millisecond}
}

// client is the real client, whose connection ends in RoundTrip.
func (a *api) client(t *testing.T, qps float32, burst int) kubernetes.Interface {
	c, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: "http://api", ContentConfig: rest.ContentConfig{ContentType: "application/json"}, QPS: qps, Burst: burst}, &http.Client{Transport: a})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RoundTrip serves a request.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(a.latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	p, err := a.serve(r, body)
	code, answer := http.StatusOK, any(p)
	var refusal *apierrors.StatusError
	switch {
	case errors.As(err, &refusal):
		code, answer = int(refusal.ErrStatus.Code), &refusal.ErrStatus
	case err != nil:
		return nil, err
	case p == nil:
		answer = &metav1.Status{Status: metav1.StatusSuccess}
	}
	text, err := json.Marshal(answer)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
}

var verbs = map[string]string{http.MethodGet: "get", http.MethodPatch: "patch", http.MethodPost: "create", http.MethodDelete: "delete"}

func (a *api) serve(r *http.Request, body []byte) (*v1.Pod, error) {
	c := call{at: time.Now(), verb: verbs[r.Method], body: string(body)}
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/shop/pods"), "/")
	sent := &v1.Pod{}
	switch {
	case c.verb == "create":
		if err := json.Unmarshal(body, sent); err != nil {
			return nil, err
		}
		c.name = sent.Name
	case len(path) > 1:
		c.name = path[1]
	}
	if c.verb == "patch" && (len(path) != 3 || path[2] != "status" || r.Header.Get("Content-Type") != string(types.StrategicMergePatchType)) {
		return nil, fmt.Errorf("a patch of %s as %s", r.URL.Path, r.Header.Get("Content-Type"))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, c)
	if a.fail != nil {
		if err := a.fail(c.verb, c.name); err != nil {
			return nil, err
		}
	}
	p := a.pods[c.name]
	pods := v1.Resource("pods")
	switch {
	case c.verb == "create" && p != nil:
		return nil, apierrors.NewAlreadyExists(pods, c.name)
	case c.verb == "create":
		sent.UID = types.UID(fmt.Sprintf("made-%d", a.version))
		sent.Status = v1.PodStatus{Phase: v1.PodPending}
		return a.store(sent), nil
	case p == nil && c.verb == "get":
		// It is nobody's pod as far as the authorizer of nodes knows.
		return nil, apierrors.NewForbidden(pods, c.name, errors.New("no relationship found between node and this object"))
	case p == nil:
		return nil, apierrors.NewNotFound(pods, c.name)
	case c.verb == "delete":
		var o metav1.DeleteOptions
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, err
		}
		if *o.GracePeriodSeconds != 0 || *o.Preconditions.UID != p.UID {
			return nil, apierrors.NewConflict(pods, c.name, fmt.Errorf("want grace 0 and UID %s: %s", p.UID, body))
		}
		if len(p.Finalizers) > 0 {
			p = p.DeepCopy()
			p.DeletionGracePeriodSeconds = o.GracePeriodSeconds
			return a.store(p), nil
		}
		a.drop(p)
		return nil, nil
	case c.verb == "patch":
		return a.patch(p, c.body)
	}
	return p, nil
}

func (a *api) patch(p *v1.Pod, body string) (*v1.Pod, error) {
	before, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, []byte(body), v1.Pod{})
	if err != nil {
		return nil, err
	}
	next := &v1.Pod{}
	if err := json.Unmarshal(after, next); err != nil {
		return nil, err
	}
	if next.UID != p.UID {
		return nil, apierrors.NewConflict(v1.Resource("pods"), p.Name, fmt.Errorf("the UID %s is not %s", next.UID, p.UID))
	}
	return a.store(next), nil
}

// store keeps the pod and has it told. The caller holds a.mu.
func (a *api) store(p *v1.Pod) *v1.Pod {
	if a.alter != nil {
		a.alter(p)
	}
	a.version++
	p.ResourceVersion = strconv.Itoa(a.version)
	a.pods[p.Name] = p
	a.tell(func() { a.watcher.Seen(p) })
	return p
}

func (a *api) drop(p *v1.Pod) {
	a.version++
	delete(a.pods, p.Name)
	a.tell(func() { a.watcher.Gone(p) })
}

func (a *api) tell(f func()) {
	if a.watcher != nil {
		time.AfterFunc(a.lag, f)
	}
}

// put is somebody else's write.
func (a *api) put(p *v1.Pod) *v1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.store(p.DeepCopy())
}

// change is somebody else's write to a pod that is there.
func (a *api) change(name string, f func(*v1.Pod)) {
	p := a.get(name).DeepCopy()
	f(p)
	a.put(p)
}

// remove is somebody else's deletion.
func (a *api) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(a.pods[name])
}

func (a *api) get(name string) *v1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[name]
}

// asked are the calls of that verb about that pod; "" for any.
func (a *api) asked(verb, name string) (out []call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if (verb == "" || c.verb == verb) && (name == "" || c.name == name) {
			out = append(out, c)
		}
	}
	return out
}

func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}
