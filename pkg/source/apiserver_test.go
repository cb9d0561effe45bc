package source

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// apiserver is the little of an apiserver that a source asks: it lists and
// watches, by name, by node, or by namespace.
type apiserver struct {
	*httptest.Server
	mu       sync.Mutex
	log      []change // resource version N is that of log[N-1]
	more     chan struct{}
	refuse   func(r *http.Request) int // an HTTP status, 0 to answer
	gate     func(r *http.Request)     // is waited for before the answer
	down     atomic.Bool               // nobody listens
	dialed   atomic.Int32              // also in vain
	requests []string
	watches  map[string]int // that are open now
}

// change is one object as it is from then on; gone when it was deleted.
type change struct {
	resource string
	object   metav1.Object
	gone     bool
}

func newAPIServer(t testing.TB) *apiserver {
	a := &apiserver{more: make(chan struct{}), watches: map[string]int{},
		refuse: func(*http.Request) int { return 0 }, gate: func(*http.Request) {}}
	a.Server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
	})
	return a
}

func (a *apiserver) client(t testing.TB) kubernetes.Interface {
	c, err := kubernetes.NewForConfig(&rest.Config{Host: a.URL, QPS: -1, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		a.dialed.Add(1)
		if a.down.Load() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// outage has no connection made until the returned function is called.
func (a *apiserver) outage() (end func()) {
	a.down.Store(true)
	a.CloseClientConnections()
	return func() { a.down.Store(false) }
}

// forget has it know only the first n changes, as one that was restored.
func (a *apiserver) forget(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = a.log[:n]
}

func resourceOf(o metav1.Object) string {
	switch o.(type) {
	case *v1.Pod:
		return "pods"
	case *v1.ConfigMap:
		return "configmaps"
	case *v1.Secret:
		return "secrets"
	case *v1.Service:
		return "services"
	case *nodev1.RuntimeClass:
		return "runtimeclasses"
	}
	panic(fmt.Sprintf("no resource for %T", o))
}

func (a *apiserver) put(o metav1.Object)    { a.write(o, false) }
func (a *apiserver) remove(o metav1.Object) { a.write(o, true) }

func (a *apiserver) write(o metav1.Object, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o = o.(runtime.Object).DeepCopyObject().(metav1.Object)
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "somebody"}})
	o.SetResourceVersion(strconv.Itoa(len(a.log) + 1))
	a.log = append(a.log, change{resourceOf(o), o, gone})
	close(a.more)
	a.more = make(chan struct{})
}

// selection is what one request is about.
type selection struct{ resource, namespace, name, node string }

func selectionOf(r *http.Request) selection {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	s := selection{resource: parts[len(parts)-1]}
	if i := slices.Index(parts, "namespaces"); i > 0 {
		s.namespace = parts[i+1]
	}
	selector := r.URL.Query().Get("fieldSelector")
	s.name, _ = strings.CutPrefix(selector, "metadata.name=")
	if node, ok := strings.CutPrefix(selector, "spec.nodeName="); ok {
		s.name, s.node = "", node
	}
	return s
}

func (s selection) has(c change) bool {
	return s.resource == c.resource && (s.namespace == "" || s.namespace == c.object.GetNamespace()) && (s.name == "" || s.name == c.object.GetName())
}

func (s selection) String() string {
	return strings.Join(strings.Fields(s.resource+" "+s.namespace+" "+s.name), " ")
}

func (a *apiserver) serve(w http.ResponseWriter, r *http.Request) {
	s := selectionOf(r)
	a.mu.Lock()
	refuse, gate := a.refuse, a.gate
	a.requests = append(a.requests, s.String())
	a.mu.Unlock()
	gate(r)
	w.Header().Set("Content-Type", "application/json")
	if code := refuse(r); code != 0 {
		w.WriteHeader(code)
		status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code),
			Reason: metav1.StatusReasonForbidden, Message: "no relationship found between node and this object"}
		_ = json.NewEncoder(w).Encode(status)
		return
	}
	a.mu.Lock()
	now := map[string]change{}
	for _, c := range a.log {
		if key := c.object.GetNamespace() + "/" + c.object.GetName(); s.has(c) && !c.gone {
			now[key] = c
		} else if s.has(c) {
			delete(now, key)
		}
	}
	version := len(a.log)
	a.mu.Unlock()
	if r.URL.Query().Get("watch") == "" {
		sendList(w, s, now, version)
		return
	}
	a.watch(w, r, s, now, version)
}

func sendList(w http.ResponseWriter, s selection, now map[string]change, version int) {
	kind, group := map[string]string{"pods": "Pod", "configmaps": "ConfigMap", "secrets": "Secret", "services": "Service", "runtimeclasses": "RuntimeClass"}[s.resource], "v1"
	if kind == "RuntimeClass" {
		group = "node.k8s.io/v1"
	}
	var items []json.RawMessage
	for _, key := range slices.Sorted(maps.Keys(now)) {
		items = append(items, encoded(now[key].object))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind + "List", "apiVersion": group, "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(version)}})
}

func encoded(o metav1.Object) []byte {
	out, err := runtime.Encode(scheme.Codecs.LegacyCodec(v1.SchemeGroupVersion, nodev1.SchemeGroupVersion), o.(runtime.Object))
	if err != nil {
		panic(err)
	}
	return out
}

func (a *apiserver) watch(w http.ResponseWriter, r *http.Request, s selection, now map[string]change, version int) {
	a.count(s, 1)
	defer a.count(s, -1)
	send := func(kind string, o metav1.Object) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": json.RawMessage(encoded(o))})
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, key := range slices.Sorted(maps.Keys(now)) {
			send("ADDED", now[key].object)
		}
		end := map[string]metav1.Object{"pods": &v1.Pod{}, "configmaps": &v1.ConfigMap{}, "secrets": &v1.Secret{}, "services": &v1.Service{}, "runtimeclasses": &nodev1.RuntimeClass{}}[s.resource]
		end.SetResourceVersion(strconv.Itoa(version))
		end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		send("BOOKMARK", end)
	} else {
		version, _ = strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	}
	known := maps.Clone(now)
	for {
		_ = http.NewResponseController(w).Flush()
		a.mu.Lock()
		news, more := a.log[min(version, len(a.log)):], a.more
		a.mu.Unlock()
		for _, c := range news {
			version++
			if !s.has(c) {
				continue
			}
			key := c.object.GetNamespace() + "/" + c.object.GetName()
			kind := "ADDED"
			if _, there := known[key]; there {
				kind = "MODIFIED"
			}
			known[key] = c
			if c.gone {
				kind = "DELETED"
				delete(known, key)
			}
			send(kind, c.object)
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

func (a *apiserver) count(s selection, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watches[s.String()] += n
}

// open are the selections that are watched now.
func (a *apiserver) open() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	open := maps.Clone(a.watches)
	maps.DeleteFunc(open, func(_ string, n int) bool { return n == 0 })
	return open
}

// asked is how often the selection was asked for.
func (a *apiserver) asked(s string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if r == s {
			n++
		}
	}
	return n
}
