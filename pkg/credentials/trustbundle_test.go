package credentials

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// The library has those who fail wait for each other, by the real clock.
func init() { utilruntime.ErrorHandlers = nil }

// anchor is a PEM block with noise around it.
func anchor(der string) string {
	return "of " + der + "\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"X": "y"}, Bytes: []byte(der)}))
}

func bundle(name, signer, tier string, ders ...string) *v1beta1.ClusterTrustBundle {
	b := &v1beta1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": tier}}, Spec: v1beta1.ClusterTrustBundleSpec{SignerName: signer}}
	for _, der := range ders {
		b.Spec.TrustBundle += anchor(der)
	}
	return b
}

func byName(name string) *v1.ClusterTrustBundleProjection {
	return &v1.ClusterTrustBundleProjection{Name: &name, Path: "ca.pem"}
}

func bySigner(signer string, label *metav1.LabelSelector) *v1.ClusterTrustBundleProjection {
	return &v1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: label, Path: "ca.pem"}
}

func optional(from *v1.ClusterTrustBundleProjection) *v1.ClusterTrustBundleProjection {
	from.Optional = new(true)
	return from
}

// trust runs an identity before an apiserver with the bundles, and says which
// pods were told of changes.
func trust(t *testing.T, api *fake.Clientset) (*PodIdentity, func() []types.UID) {
	i := NewPodIdentity(api, "n1")
	var mu sync.Mutex
	var told []types.UID
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- i.Run(ctx, func(uid types.UID) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, uid)
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
	})
	return i, func() []types.UID {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := slices.Sorted(slices.Values(told))
		told = nil
		return out
	}
}

// ders are the certificates in PEM, sorted.
func ders(t *testing.T, text []byte) string {
	t.Helper()
	var out []string
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || len(block.Headers) > 0 || !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE-----\n")) {
			t.Fatalf("more than certificates: %q", text)
		}
		out, text = append(out, string(block.Bytes)), rest
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTrustBundleIsWhatTheSourceSelects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, _ := trust(t, fake.NewClientset(
			bundle("plain", "", "x", "A", "B", "A"),
			bundle("s:one", "ex.com/s", "live", "C", "D"), bundle("s:two", "ex.com/s", "canary", "D", "E"), bundle("o:one", "ex.com/o", "live", "F")))
		live := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "live"}}
		for name, c := range map[string]struct {
			from *v1.ClusterTrustBundleProjection
			want string
			err  string
		}{
			"by name":            {byName("plain"), "A B", ""},
			"by signer":          {bySigner("ex.com/s", &metav1.LabelSelector{}), "C D E", ""},
			"by label":           {bySigner("ex.com/s", live), "C D", ""},
			"no labels":          {bySigner("ex.com/s", nil), "", `there is no ClusterTrustBundle with spec.signerName=ex.com/s and labels "<none>"`},
			"none":               {byName("gone"), "", "there is no ClusterTrustBundle with metadata.name=gone"},
			"none of the signer": {bySigner("ex.com/x", live), "", `there is no ClusterTrustBundle with spec.signerName=ex.com/x and labels "tier=live"`},
			"optional":           {optional(byName("gone")), "", ""},
			"optional signer":    {optional(bySigner("ex.com/x", live)), "", ""},
			"neither":            {&v1.ClusterTrustBundleProjection{}, "", "neither name nor signerName"},
			"bad labels":         {bySigner("s", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: "Odd"}}}), "", "labelSelector: "},
		} {
			got, err := i.TrustBundle(t.Context(), podOf("web"), c.from)
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && ders(t, got) != c.want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if again, _ := i.TrustBundle(t.Context(), podOf("web"), c.from); !bytes.Equal(got, again) {
				t.Errorf("%s: another order without a change", name)
			}
		}
	})
}

// Pods are told when what they selected changes, and only they; what they knew
// from the start is no news.
func TestTrustBundleChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(bundle("a", "", "x", "A"))
		i, told := trust(t, api)
		get := func(pod, name string) string {
			got, err := i.TrustBundle(t.Context(), podOf(pod), optional(byName(name)))
			if err != nil {
				t.Fatal(err)
			}
			return ders(t, got)
		}
		get("web", "a")
		get("db", "a")
		get("mail", "b")
		if got := told(); len(got) > 0 {
			t.Errorf("told of what they knew: %v", got)
		}
		all := api.CertificatesV1beta1().ClusterTrustBundles()
		do := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		do(all.Update(t.Context(), bundle("a", "", "x", "A2"), metav1.UpdateOptions{}))
		if got := told(); !slices.Contains(got, "uid-of-web") || !slices.Contains(got, "uid-of-db") {
			t.Errorf("told: %v", got)
		}
		if got := get("web", "a"); got != "A2" {
			t.Errorf("shown: %s", got)
		}
		do(all.Create(t.Context(), bundle("b", "", "x", "B"), metav1.CreateOptions{}))
		if got := told(); !slices.Contains(got, "uid-of-mail") || get("mail", "b") != "B" {
			t.Errorf("told: %v", got)
		}
		do(nil, all.Delete(t.Context(), "b", metav1.DeleteOptions{}))
		if got := told(); !slices.Contains(got, "uid-of-mail") || get("mail", "b") != "" {
			t.Errorf("told: %v", got)
		}
		i.Forget("uid-of-mail")
		i.Forget("uid-of-db")
		do(all.Update(t.Context(), bundle("a", "", "x", "A3"), metav1.UpdateOptions{}))
		if got := told(); slices.Contains(got, "uid-of-mail") || slices.Contains(got, "uid-of-db") || !slices.Contains(got, "uid-of-web") {
			t.Errorf("told after two are gone: %v", got)
		}
	})
}

// What no pod needs any more is not watched any more.
func TestBundlesAreWatchedWhilePodsNeedThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(bundle("a", "", "x", "A"))
		i, _ := trust(t, api)
		synctest.Wait()
		if got := api.Actions(); len(got) > 0 {
			t.Errorf("asked before any pod needed it: %v", got)
		}
		for range 2 {
			if _, err := i.TrustBundle(t.Context(), podOf("web"), byName("a")); err != nil {
				t.Fatal(err)
			}
			for _, a := range api.Actions() {
				if l, ok := a.(clienttesting.ListActionImpl); ok && l.ListOptions.FieldSelector != "metadata.name=a" {
					t.Errorf("asked for %q", l.ListOptions.FieldSelector)
				}
			}
			i.Forget("uid-of-web")
			synctest.Wait()
			api.ClearActions()
			time.Sleep(time.Hour)
			if got := api.Actions(); len(got) > 0 {
				t.Errorf("asked when no pod needs it: %v", got)
			}
		}
	})
}

// The reason is said at once, and the bundle is there once the apiserver has it.
func TestTrustBundleSaysWhyItIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(bundle("a", "", "x", "A"))
		var mu sync.Mutex
		answer := error(apierrors.NewNotFound(schema.GroupResource{}, ""))
		api.PrependReactor("list", "clustertrustbundles", func(clienttesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			return answer != nil, nil, answer
		})
		i, _ := trust(t, api)
		began := time.Now()
		_, err := i.TrustBundle(t.Context(), podOf("web"), byName("a"))
		if err == nil || !strings.Contains(err.Error(), "get ClusterTrustBundles with metadata.name=a: the apiserver has none in certificates.k8s.io/v1beta1") || time.Since(began) > time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		mu.Lock()
		answer = errors.New("connection refused")
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		if _, err = i.TrustBundle(t.Context(), podOf("web"), byName("a")); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		mu.Lock()
		answer = nil
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		if got, err := i.TrustBundle(t.Context(), podOf("web"), byName("a")); err != nil || ders(t, got) != "A" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A pod that was told why there is none is told when there is.
func TestPodsAreToldWhenTheApiserverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(bundle("a", "", "x", "A"))
		var down atomic.Bool
		down.Store(true)
		api.PrependReactor("list", "clustertrustbundles", func(clienttesting.Action) (bool, runtime.Object, error) {
			return down.Load(), nil, errors.New("connection refused")
		})
		i, told := trust(t, api)
		if _, err := i.TrustBundle(t.Context(), podOf("web"), byName("a")); err == nil {
			t.Error("no error")
		}
		time.Sleep(time.Minute)
		if got := told(); len(got) > 0 {
			t.Errorf("told in vain: %v", got)
		}
		down.Store(false)
		time.Sleep(6 * time.Second)
		if got := told(); len(got) != 1 || got[0] != "uid-of-web" {
			t.Errorf("told: %v", got)
		}
	})
}
