package source

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/record"
)

// apiTest is a source that runs against an apiserver.
type apiTest struct {
	t       *testing.T
	server  *apiserver
	source  *apiSource
	known   *objects.Store
	updates chan Update
	stop    func()

	mu      sync.Mutex
	renewed map[objects.Key]int
	seen    map[types.UID]*v1.Pod
	gone    []types.UID
	log     strings.Builder
}

func newAPITest(t *testing.T) *apiTest {
	return &apiTest{t: t, server: newAPIServer(t), known: &objects.Store{Remote: true}, updates: make(chan Update),
		renewed: map[objects.Key]int{}, seen: map[types.UID]*v1.Pod{}}
}

func (a *apiTest) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

func (a *apiTest) start() {
	ready := make(chan struct{})
	close(ready)
	a.source = NewAPI(APIOptions{Client: a.server.client(a.t), NodeName: "here", Ready: ready, Objects: a.known,
		Log:  slog.New(slog.NewTextHandler(a, nil)),
		Seen: func(p *v1.Pod) { a.locked(func() { a.seen[p.UID] = p }) },
		Gone: func(p *v1.Pod) { a.locked(func() { a.gone = append(a.gone, p.UID) }) },
		Renew: func(keys map[objects.Key]bool) {
			a.locked(func() {
				for k := range keys {
					a.renewed[k]++
				}
			})
		}}).(*apiSource)
	ctx, cancel := context.WithCancel(a.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.source.Run(ctx, a.updates)
	}()
	a.stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			a.t.Error("the source does not end")
		}
	}
	a.t.Cleanup(a.stop)
}

func (a *apiTest) locked(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// next is the names of the pods in the next update.
func (a *apiTest) next() (u Update, names string) {
	a.t.Helper()
	select {
	case u = <-a.updates:
	case <-time.After(10 * time.Second):
		a.t.Fatal("no update")
	}
	var out []string
	for _, d := range u.Pods {
		out = append(out, d.Pod.Name)
	}
	return u, strings.Join(out, " ")
}

func (a *apiTest) expect(want string) Update {
	a.t.Helper()
	u, got := a.next()
	if got != want {
		a.t.Fatalf("pods %q, want %q", got, want)
	}
	return u
}

// until waits for something that others see.
func (a *apiTest) until(what string, holds func() bool) {
	a.t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(end) {
			a.t.Fatalf("never: %s\nwatched: %v\nlog: %s", what, a.server.open(), a.text())
		}
		<-time.After(time.Millisecond)
	}
}

func apiPod(name string, change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Generation: 1},
		Spec: v1.PodSpec{NodeName: "here", EnableServiceLinks: ptr.To(false), Containers: []v1.Container{{Name: "c", Image: "i"}}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func mentions(maps ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for _, name := range maps {
			p.Spec.Containers[0].EnvFrom = append(p.Spec.Containers[0].EnvFrom,
				v1.EnvFromSource{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: name}}})
		}
	}
}

func configMap(name, value string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string]string{"key": value}}
}

func mapKey(name string) objects.Key {
	return objects.Key{Kind: objects.ConfigMap, Namespace: "ns", Name: name}
}

func TestPodComesWithWhatItRefersTo(t *testing.T) {
	a := newAPITest(t)
	open := make(chan struct{})
	a.server.gate = func(r *http.Request) {
		if selectionOf(r).name == "slow" {
			<-open
		}
	}
	a.start()
	a.expect("")
	a.server.put(configMap("slow", "a"))
	a.server.put(apiPod("held", mentions("slow", "none")))
	a.server.put(apiPod("free", mentions("none")))
	a.expect("free")
	if _, err := a.known.ConfigMap("ns", "none"); !apierrors.IsNotFound(err) {
		t.Errorf("an object that is not there: %v", err)
	}
	if _, err := a.known.ConfigMap("ns", "slow"); err == nil || err.Error() != "ConfigMap ns/slow has not been read from the apiserver yet" {
		t.Errorf("an object that was not read: %v", err)
	}
	close(open)
	u := a.expect("held free")
	m, err := a.known.ConfigMap("ns", "slow")
	if err != nil || m.Data["key"] != "a" || m.ManagedFields != nil {
		t.Errorf("slow is %v, %v", m, err)
	}
	if p := u.Pods[0].Pod; p.Annotations[annotationSource] != "api" || p.Annotations[annotationSeen] == "" || p.ManagedFields != nil {
		t.Errorf("annotations %v, managed fields %v", p.Annotations, p.ManagedFields)
	}
}

func TestFirstListIsWhole(t *testing.T) {
	a := newAPITest(t)
	a.server.put(apiPod("b", mentions("b")))
	a.server.put(apiPod("a"))
	a.server.put(apiPod("z", mentions("late"), func(p *v1.Pod) { p.CreationTimestamp = metav1.Unix(1, 0) }))
	open := make(chan struct{})
	a.server.gate = func(r *http.Request) {
		if selectionOf(r).name == "late" {
			<-open
		}
	}
	a.start()
	a.until("the others are complete", func() bool { return a.known.Answered(mapKey("b")) })
	select {
	case u := <-a.updates:
		t.Fatalf("%d pods before all were known", len(u.Pods))
	default:
	}
	close(open)
	a.expect("a b z")
}

// TestKeptObjectsAreThoseOfTheFirstList: what an earlier process was answered
// counts until the first list is there, and then only for the pods in it.
func TestKeptObjectsAreThoseOfTheFirstList(t *testing.T) {
	a := newAPITest(t)
	files, err := record.Open(filepath.Join(t.TempDir(), "objects"))
	if err != nil {
		t.Fatal(err)
	}
	earlier, ended := context.WithCancel(t.Context())
	ended() // it writes all it has, and ends
	before := &objects.Store{Remote: true}
	keeper := objects.NewKeeper(before, files, false, slog.New(slog.DiscardHandler))
	for _, name := range []string{"used", "unused"} {
		before.Ask(mapKey(name)).Answer([]objects.Object{configMap(name, "old")})
	}
	if err := keeper.Run(earlier); err != context.Canceled {
		t.Fatal(err)
	}
	objects.NewKeeper(a.known, files, false, slog.New(slog.DiscardHandler))

	a.server.refuse = func(r *http.Request) int {
		if selectionOf(r).name == "used" {
			return http.StatusForbidden
		}
		return 0
	}
	a.server.put(apiPod("p", mentions("used")))
	knows := func(name string, want bool) {
		t.Helper()
		if m, err := a.known.ConfigMap("ns", name); (err == nil && m.Data["key"] == "old") != want {
			t.Errorf("%s: %v, %v; want it known: %v", name, m, err, want)
		}
	}
	knows("unused", true)
	a.start()
	a.expect("p") // held back first, as what is known of it may be old
	knows("used", true)
	knows("unused", false)
}

func TestUnreadObjectIsNamedAfterAWhile(t *testing.T) {
	a := newAPITest(t)
	var refused atomic.Bool
	refused.Store(true)
	a.server.refuse = func(r *http.Request) int {
		if selectionOf(r).name == "secret" && refused.Load() {
			return http.StatusForbidden
		}
		return 0
	}
	a.start()
	a.expect("")
	a.server.put(apiPod("p", func(p *v1.Pod) { p.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "secret"}} }))
	a.expect("p")
	_, err := a.known.Secret("ns", "secret")
	if want := "Secret ns/secret has not been read from the apiserver yet: "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "no relationship") {
		t.Errorf("got %v, want %s…", err, want)
	}
	refused.Store(false)
	k := objects.Key{Kind: objects.Secret, Namespace: "ns", Name: "secret"}
	a.until("the pod is told", func() (told bool) { a.locked(func() { told = a.renewed[k] == 1 }); return told })
}

// TestForbiddenIsAskedAgainAtOnce: the node authorizer learns of a binding a
// moment after the node.
func TestForbiddenIsAskedAgainAtOnce(t *testing.T) {
	a := newAPITest(t)
	var asked atomic.Int32
	a.server.refuse = func(r *http.Request) int {
		if selectionOf(r).name == "m" && asked.Add(1) <= 4 {
			return http.StatusForbidden
		}
		return 0
	}
	a.server.put(configMap("m", "a"))
	a.start()
	a.expect("")
	began := time.Now()
	a.server.put(apiPod("p", mentions("m")))
	a.expect("p")
	if _, err := a.known.ConfigMap("ns", "m"); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func TestObjectsAreWatchedByNameAndOnce(t *testing.T) {
	a := newAPITest(t)
	a.server.put(configMap("shared", "a"))
	fixed := configMap("fixed", "a")
	fixed.Immutable = ptr.To(true)
	a.server.put(fixed)
	a.server.put(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "class"}, Handler: "runc"})
	one := apiPod("one", mentions("shared", "fixed"), func(p *v1.Pod) { p.Spec.RuntimeClassName = ptr.To("class") })
	two := apiPod("two", mentions("shared"))
	a.server.put(one)
	a.server.put(two)
	a.start()
	a.expect("one two")
	a.until("what cannot change is watched no more", func() bool {
		return maps.Equal(a.server.open(), map[string]int{"pods": 1, "configmaps ns shared": 1, "runtimeclasses class": 1, "services default kubernetes": 1})
	})
	if n := a.server.asked("configmaps ns fixed"); n != 1 {
		t.Errorf("fixed was asked for %d times", n)
	}
	if c, err := a.known.RuntimeClass("class"); err != nil || c.Handler != "runc" {
		t.Errorf("class is %v, %v", c, err)
	}

	a.server.remove(one)
	a.expect("two")
	a.source.look(time.Now().Add(linger / 2))
	if _, err := a.known.RuntimeClass("class"); err != nil {
		t.Errorf("not kept for a successor: %v", err)
	}
	if a.known.Answered(mapKey("fixed")) {
		t.Error("an immutable object is kept, and there may be another one of its name")
	}
	a.source.look(time.Now().Add(linger + time.Second))
	a.until("one watch is left", func() bool {
		return maps.Equal(a.server.open(), map[string]int{"pods": 1, "configmaps ns shared": 1, "services default kubernetes": 1})
	})
	a.server.remove(two)
	a.expect("")
	a.source.look(time.Now().Add(linger + time.Second))
	a.until("only pods are watched", func() bool { return maps.Equal(a.server.open(), map[string]int{"pods": 1}) })
}

func TestChangesAreTold(t *testing.T) {
	a := newAPITest(t)
	a.server.put(apiPod("p", mentions("m")))
	a.start()
	a.expect("p")
	var base int
	a.locked(func() { base = a.renewed[mapKey("m")] })
	told := func(n int) func() bool {
		return func() (ok bool) { a.locked(func() { ok = a.renewed[mapKey("m")] == base+n }); return ok }
	}
	m := configMap("m", "a")
	a.server.put(m)
	a.until("told of the new one", told(1))
	m.Labels = map[string]string{"other": "label"}
	a.server.put(m) // concerns nobody
	m.Data["key"] = "b"
	a.server.put(m)
	a.until("told of the change", told(2))
	if got, err := a.known.ConfigMap("ns", "m"); err != nil || got.Data["key"] != "b" {
		t.Errorf("m is %v, %v", got, err)
	}
	a.server.remove(m)
	a.until("told of the end", told(3))
	if _, err := a.known.ConfigMap("ns", "m"); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

func TestTerminalPodRefersToNothing(t *testing.T) {
	a := newAPITest(t)
	p := apiPod("p", mentions("m"))
	a.server.put(p)
	a.start()
	a.expect("p")
	p.Status.Phase = v1.PodSucceeded
	a.server.put(p)
	a.expect("p")
	a.source.look(time.Now().Add(linger + time.Second))
	a.until("only pods are watched", func() bool { return maps.Equal(a.server.open(), map[string]int{"pods": 1}) })
}

func TestServicesOfVariables(t *testing.T) {
	a := newAPITest(t)
	service := func(namespace, name, ip string) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Port: 80}}}}
	}
	a.server.put(service("default", "kubernetes", "10.0.0.1"))
	a.server.put(service("default", "other", "10.0.0.2"))
	a.server.put(service("ns", "near", "10.0.0.3"))
	a.server.put(service("far", "far", "10.0.0.4"))
	a.start()
	a.expect("")
	variables := env.Resolver{Objects: a.known, Services: a.known.Services}
	hosts := func(p *v1.Pod) string {
		vars, err := variables.Container(p, &p.Spec.Containers[0], env.Surroundings{})
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, v := range vars {
			if strings.HasSuffix(v.Name, "_HOST") {
				out = append(out, v.Name+"="+v.Value)
			}
		}
		return strings.Join(out, " ")
	}
	without := apiPod("without")
	linked := apiPod("linked", func(p *v1.Pod) { p.Spec.EnableServiceLinks = ptr.To(true) })
	static := apiPod("static", func(p *v1.Pod) { p.Annotations = map[string]string{annotationSource: "file"} })
	if got, want := hosts(without), "services have not yet been read at least once, cannot construct envvars"; got != want {
		t.Errorf("before they were read: %q, want %q", got, want)
	}
	if got := hosts(static); got != "" {
		t.Errorf("a static pod waits: %q", got)
	}
	a.server.put(without)
	a.expect("without")
	if got, want := hosts(without), "KUBERNETES_SERVICE_HOST=10.0.0.1"; got != want {
		t.Errorf("without links: %q, want %q", got, want)
	}
	a.server.put(linked)
	a.expect("without linked")
	if got, want := hosts(linked), "KUBERNETES_SERVICE_HOST=10.0.0.1 NEAR_SERVICE_HOST=10.0.0.3"; got != want {
		t.Errorf("with links: %q, want %q", got, want)
	}
	if got, want := a.server.open(), (map[string]int{"pods": 1, "services default kubernetes": 1, "services ns": 1}); !maps.Equal(got, want) {
		t.Errorf("watched: %v, want %v", got, want)
	}
	before := maps.Clone(a.renewed)
	a.server.put(service("ns", "near", "10.0.0.5"))
	a.until("the newer address", func() bool { return strings.Contains(hosts(linked), "NEAR_SERVICE_HOST=10.0.0.5") })
	a.locked(func() {
		if !maps.Equal(a.renewed, before) {
			t.Errorf("pods were told of a service that changed: %v", a.renewed)
		}
	})
}

// TestOwnWordsAreNoNews: the status that the node writes comes back to it.
func TestOwnWordsAreNoNews(t *testing.T) {
	a := newAPITest(t)
	p := apiPod("p")
	a.server.put(p)
	a.start()
	first := a.expect("p").Pods[0].Pod
	p.Status = v1.PodStatus{Phase: v1.PodRunning, PodIP: "10.1.1.1", Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}
	a.server.put(p)
	a.until("seen", func() (ok bool) { a.locked(func() { ok = a.seen[p.UID].Status.Phase == v1.PodRunning }); return ok })
	for i, change := range []func(){
		func() { p.Labels = map[string]string{"a": "b"} },
		func() {
			p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: "example.com/gate", Status: v1.ConditionTrue})
		},
		func() { p.Spec.Containers[0].Image, p.Generation = "counted", 2 },
		func() { p.Spec.Containers[0].Image, p.Generation = "other", 0 },
		func() {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Unix(1, 0)}, ptr.To[int64](3)
		},
	} {
		change()
		a.server.put(p)
		u := a.expect("p") // the status alone would have come first
		if u.Pods[0].Pod == first {
			t.Errorf("change %d is not told", i)
		}
		if got := u.Pods[0].Pod; got.Status.Phase != v1.PodPending || got.Status.PodIP != "" || got.Annotations[annotationSeen] != first.Annotations[annotationSeen] {
			t.Errorf("change %d: wish is %v", i, got)
		}
		first = u.Pods[0].Pod
	}
	if len(first.Status.Conditions) != 1 || first.Spec.Containers[0].Image != "other" || *first.DeletionGracePeriodSeconds != 3 {
		t.Errorf("wish is %v", first)
	}
}

// TestEqualPartsAreKeptOnce: what did not change of a pod is in memory once.
func TestEqualPartsAreKeptOnce(t *testing.T) {
	a := newAPITest(t)
	p := apiPod("p", func(p *v1.Pod) { p.Labels = map[string]string{"a": "b"} })
	a.server.put(p)
	a.start()
	wish := a.expect("p").Pods[0].Pod
	p.Status.Phase = v1.PodRunning
	a.server.put(p)
	a.until("seen", func() (ok bool) { a.locked(func() { ok = a.seen[p.UID].Status.Phase == v1.PodRunning }); return ok })
	if seen := a.seen[p.UID]; &seen.Spec.Containers[0] != &wish.Spec.Containers[0] || seen.ResourceVersion != "2" {
		t.Errorf("the copy has a spec of its own, or the version %s of the older one", seen.ResourceVersion)
	}
}

// TestRecreatedPodIsAnother, as a StatefulSet's: merging must not take it for a
// second one of its name.
func TestRecreatedPodIsAnother(t *testing.T) {
	a := newAPITest(t)
	a.server.put(apiPod("other"))
	a.server.put(apiPod("p"))
	a.start()
	merged := NewMerge(APIName).With(a.expect("other p"))
	a.server.remove(apiPod("p"))
	a.server.put(apiPod("p", func(p *v1.Pod) { p.UID = "uid-second" }))
	for {
		u, _ := a.next()
		merged = merged.With(u)
		if len(merged.Conflicts()) > 0 {
			t.Fatalf("conflicts: %v", merged.Conflicts())
		}
		if len(u.Pods) == 2 {
			break
		}
	}
	if got := merged.Pods()[1].Pod.UID; got != "uid-second" {
		t.Errorf("%s is wanted", got)
	}
	if !slices.Equal(a.gone, []types.UID{"uid-p"}) {
		t.Errorf("gone: %v", a.gone)
	}
}

func TestOddPodsOfTheAPI(t *testing.T) {
	a := newAPITest(t)
	a.start()
	a.expect("")
	odd := []*v1.Pod{
		apiPod("elsewhere", func(p *v1.Pod) { p.Spec.NodeName = "there" }),
		apiPod("uid", func(p *v1.Pod) { p.UID = "../../x" }),
		apiPod("nouid", func(p *v1.Pod) { p.UID = "" }),
		apiPod("volume", func(p *v1.Pod) { p.Spec.Volumes = []v1.Volume{{Name: "../x"}} }),
		apiPod("container", func(p *v1.Pod) { p.Spec.Containers[0].Name = "a/b" }),
		apiPod("empty", func(p *v1.Pod) { p.Spec.Containers = nil }),
		apiPod("Name"),
	}
	for _, p := range odd {
		a.server.put(p)
	}
	a.server.put(apiPod("mirror", func(p *v1.Pod) { p.Annotations = map[string]string{mirrorAnnotation: "x"} }))
	a.server.put(apiPod("good"))
	var u Update
	for names := ""; names != "good"; {
		u, names = a.next()
	}
	if len(u.Problems) != len(odd) {
		t.Errorf("%d problems, want %d: %v", len(u.Problems), len(odd), u.Problems)
	}
	for _, p := range odd {
		a.server.remove(p)
	}
	for len(u.Problems) > 0 {
		u = a.expect("good")
	}
}

func TestOutageIsToldOnce(t *testing.T) {
	a := newAPITest(t)
	end := a.server.outage()
	a.start()
	a.until("asked several times", func() bool { return a.server.dialed.Load() > 4 })
	a.server.put(apiPod("p"))
	end()
	a.expect("p")
	end = a.server.outage()
	a.until("again", func() bool { return strings.Count(a.text(), "does not give") == 2 })
	end()
	a.server.put(apiPod("q"))
	a.expect("p q")
	a.until("it is over", func() bool { return strings.Count(a.text(), "pods again") == 2 })
	if got := strings.Count(a.text(), "\n"); got != 4 {
		t.Errorf("%d lines:\n%s", got, a.text())
	}
}

func (a *apiTest) text() (text string) {
	a.locked(func() { text = a.log.String() })
	return text
}

// TestRunEndsAtOnceDuringAnOutage, though it waits between attempts.
func TestRunEndsAtOnceDuringAnOutage(t *testing.T) {
	a := newAPITest(t)
	a.server.Close() // the connection is refused
	a.start()
	a.until("an attempt failed", func() bool { return a.text() != "" })
	began := time.Now()
	a.stop()
	if d := time.Since(began); d > time.Second {
		t.Errorf("took %v", d)
	}
}

// TestPodsMissedDuringAnOutage come and go with the list after it.
func TestPodsMissedDuringAnOutage(t *testing.T) {
	a := newAPITest(t)
	a.server.put(apiPod("old"))
	a.server.put(apiPod("kept"))
	a.start()
	kept := a.expect("kept old").Pods[0].Pod
	end := a.server.outage()
	a.server.remove(apiPod("old"))
	a.server.put(apiPod("new"))
	end()
	var u Update
	for names := ""; names != "kept new"; {
		u, names = a.next()
	}
	if u.Pods[0].Pod != kept {
		t.Error("a pod that did not change is another one")
	}
	if !slices.Equal(a.gone, []types.UID{"uid-old"}) {
		t.Errorf("gone: %v", a.gone)
	}
}

// TestOlderStateAfterAnOutage: an apiserver that was restored knows less than
// before, and its numbers begin below ours again.
func TestOlderStateAfterAnOutage(t *testing.T) {
	for name, since := range map[string]int{"numbers below ours": 0, "numbers beyond ours": 9} {
		t.Run(name, func(t *testing.T) {
			a := newAPITest(t)
			a.server.put(configMap("settings", "old"))
			a.server.put(apiPod("kept", mentions("settings")))
			a.start()
			a.expect("kept")
			a.server.put(configMap("settings", "new"))
			a.server.put(apiPod("new"))
			a.expect("kept new")
			end := a.server.outage()
			before := a.server.dialed.Load()
			a.until("it was noticed for both", func() bool { return a.server.dialed.Load() > before+8 })
			a.server.forget(2)
			for i := range since {
				a.server.put(configMap(fmt.Sprint("other", i), ""))
			}
			end()
			a.expect("kept")
			a.until("the older object counts", func() bool {
				m, err := a.known.ConfigMap("ns", "settings")
				return err == nil && m.Data["key"] == "old"
			})
			a.server.put(apiPod("after"))
			a.expect("kept after")
		})
	}
}

// BenchmarkStatusEcho is the cost of one status that comes back, with that many
// pods on the node.
func BenchmarkStatusEcho(b *testing.B) {
	for _, n := range []int{100, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := NewAPI(APIOptions{NodeName: "here", Seen: func(*v1.Pod) {}, Log: slog.New(slog.DiscardHandler)}).(*apiSource)
			known := &objects.Store{Remote: true}
			s.refs = &references{known: known, pods: map[types.UID][]objects.Key{}, watches: map[objects.Key]*objectWatch{}}
			// The watch that all need, without an apiserver.
			k := objects.Key{Kind: objects.Service, Namespace: "default", Name: "kubernetes"}
			q := known.Ask(k)
			q.Answer(nil)
			s.refs.watches[k] = &objectWatch{question: q, ctx: b.Context(), end: func() {}}
			in := &bound{s: s, ctx: b.Context()}
			var echo *v1.Pod
			for i := range n {
				echo = benchPod(i)
				_ = in.Update(echo.DeepCopy())
			}
			s.opens = time.Now()
			s.look(time.Now())
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				p := echo.DeepCopy()
				b.StartTimer()
				_ = in.Update(p)
				if _, news, _ := s.look(time.Now()); news {
					b.Fatal("an echo is news")
				}
			}
		})
	}
}

func benchPod(i int) *v1.Pod {
	p := apiPod(fmt.Sprint("pod-", i))
	p.Labels = map[string]string{"app": "bench", "pod-template-hash": "5d4f8c7b9"}
	c := &p.Spec.Containers[0]
	for j := range 10 {
		c.Env = append(c.Env, v1.EnvVar{Name: fmt.Sprint("VARIABLE_", j), Value: "some value"})
		p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Key: fmt.Sprint("key-", j), Operator: v1.TolerationOpExists})
	}
	p.Status = v1.PodStatus{Phase: v1.PodRunning, ContainerStatuses: []v1.ContainerStatus{{Name: "c", Ready: true}},
		Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}
	return p
}
