package credentials

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/reflector"
)

// bundlePatience is how long a pod's volumes wait for the apiserver to say which
// bundles there are.
const bundlePatience = 10 * time.Second

// bundles are the ClusterTrustBundles that pods here ask for. What a pod selects
// is watched for as long as it is here; nobody else's bundles are.
type bundles struct {
	client  kubernetes.Interface
	changed chan struct{} // a token says that other ones are to be watched
	seed    maphash.Seed

	mu      sync.Mutex
	watches map[string]*bundleWatch // by field selector
}

// bundleWatch is what one field selector selects.
type bundleWatch struct {
	selector string
	said     chan struct{} // closed when the apiserver has answered, well or badly

	// Guarded by bundles.mu.
	pods     map[types.UID]bool
	found    []*v1beta1.ClusterTrustBundle
	answered bool
	failed   error // why there is no answer yet, as far as is known
}

func newBundles(client kubernetes.Interface) *bundles {
	return &bundles{client: client, changed: make(chan struct{}, 1), seed: maphash.MakeSeed(), watches: map[string]*bundleWatch{}}
}

// TrustBundle is the certificates of the authorities that the source selects, as
// PEM (behaviour row 1.12-11). An optional one may be empty. Run must run: it
// watches them.
func (i *PodIdentity) TrustBundle(ctx context.Context, p *v1.Pod, from *v1.ClusterTrustBundleProjection) ([]byte, error) {
	selector, matches, err := chosen(from)
	if err != nil {
		return nil, err
	}
	all, err := i.bundles.known(ctx, i.bundles.watch(selector, p.UID))
	if err != nil {
		return nil, fmt.Errorf("get ClusterTrustBundles with %s: %w", selector, err)
	}
	found := slices.DeleteFunc(all, func(b *v1beta1.ClusterTrustBundle) bool { return !matches(b) })
	if len(found) == 0 && !ptr.Deref(from.Optional, false) {
		return nil, fmt.Errorf("there is no ClusterTrustBundle with %s%s", selector, labelsOf(from))
	}
	return i.bundles.anchors(found), nil
}

// chosen is what the source selects: by a field selector, and of what that gives
// those that match.
func chosen(from *v1.ClusterTrustBundleProjection) (selector string, matches func(*v1beta1.ClusterTrustBundle) bool, err error) {
	if from.Name != nil {
		return fields.OneTermEqualSelector("metadata.name", *from.Name).String(),
			func(b *v1beta1.ClusterTrustBundle) bool { return b.Name == *from.Name }, nil
	}
	if from.SignerName == nil {
		return "", nil, errors.New("it has neither name nor signerName")
	}
	// None at all selects nothing, an empty one everything.
	label, err := metav1.LabelSelectorAsSelector(from.LabelSelector)
	if err != nil {
		return "", nil, fmt.Errorf("labelSelector: %w", err)
	}
	return fields.OneTermEqualSelector("spec.signerName", *from.SignerName).String(),
		func(b *v1beta1.ClusterTrustBundle) bool {
			return b.Spec.SignerName == *from.SignerName && label.Matches(labels.Set(b.Labels))
		}, nil
}

// labelsOf are the labels that the source asks for, in words.
func labelsOf(from *v1.ClusterTrustBundleProjection) string {
	if from.Name != nil {
		return ""
	}
	return fmt.Sprintf(" and labels %q", metav1.FormatLabelSelector(from.LabelSelector))
}

// watch has what is selected watched for the pod.
func (b *bundles) watch(selector string, uid types.UID) *bundleWatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.watches[selector]
	if w == nil {
		w = &bundleWatch{selector: selector, said: make(chan struct{}), pods: map[types.UID]bool{}}
		b.watches[selector] = w
		b.look()
	}
	w.pods[uid] = true
	return w
}

// known are all that are selected, once the apiserver has said.
func (b *bundles) known(ctx context.Context, w *bundleWatch) ([]*v1beta1.ClusterTrustBundle, error) {
	patience, cancel := context.WithTimeout(ctx, bundlePatience)
	defer cancel()
	select {
	case <-w.said:
	case <-patience.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case w.answered:
		return slices.Clone(w.found), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case w.failed == nil:
		return nil, errors.New("the apiserver has not answered yet")
	case apierrors.IsNotFound(w.failed):
		return nil, errors.New("the apiserver has none in certificates.k8s.io/v1beta1; are they enabled there?")
	}
	return nil, w.failed
}

// forget that the pod needs any.
func (b *bundles) forget(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for selector, w := range b.watches {
		delete(w.pods, uid)
		if len(w.pods) == 0 {
			delete(b.watches, selector)
			b.look()
		}
	}
}

// look has run look at what is to be watched.
func (b *bundles) look() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// run watches what is to be watched, and tells the pods of changes, until ctx
// ends.
func (b *bundles) run(ctx context.Context, renewed func(types.UID)) error {
	var work sync.WaitGroup
	defer work.Wait()
	running := map[*bundleWatch]context.CancelFunc{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.changed:
		}
		wanted := b.wanted()
		for w, stop := range running {
			if !wanted[w] {
				stop()
				delete(running, w)
			}
		}
		for w := range wanted {
			if running[w] != nil {
				continue
			}
			ctx, stop := context.WithCancel(ctx)
			running[w] = stop
			watched := b.reflector(w, renewed)
			work.Go(func() { watched.Run(ctx) })
		}
	}
}

// reflector keeps true what is known of the selection.
func (b *bundles) reflector(w *bundleWatch, renewed func(types.UID)) reflector.Reflector {
	all := b.client.CertificatesV1beta1().ClusterTrustBundles()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = w.selector
			return all.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector = w.selector
			return all.Watch(ctx, o)
		},
	}
	return reflector.Reflector{ListerWatcher: cache.ToListWatcherWithWatchListSemantics(source, b.client),
		Example: &v1beta1.ClusterTrustBundle{}, WatchFor: 30 * time.Minute,
		Store: reflector.NewReplica(anchorsOnly, func(found []*v1beta1.ClusterTrustBundle) { b.take(w, found, renewed) }),
		Asked: func(err error) { b.fail(w, err) }}
}

// anchorsOnly is what is kept of a bundle in memory.
func anchorsOnly(b *v1beta1.ClusterTrustBundle) *v1beta1.ClusterTrustBundle {
	return &v1beta1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: b.Name, Labels: b.Labels}, Spec: b.Spec}
}

// take takes in what there is now, and tells the pods if they know otherwise.
func (b *bundles) take(w *bundleWatch, found []*v1beta1.ClusterTrustBundle, renewed func(types.UID)) {
	same := func(x, y *v1beta1.ClusterTrustBundle) bool {
		return x.Name == y.Name && x.Spec == y.Spec && labels.Equals(x.Labels, y.Labels)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	news := w.failed != nil || w.answered && !slices.EqualFunc(w.found, found, same)
	if !w.answered && w.failed == nil {
		close(w.said)
	}
	w.found, w.answered, w.failed = found, true, nil
	for uid := range w.pods {
		if news {
			renewed(uid)
		}
	}
}

// fail notes why the apiserver has not answered yet. An answer that was given
// holds on.
func (b *bundles) fail(w *bundleWatch, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil || w.answered {
		return
	}
	if w.failed == nil {
		close(w.said)
	}
	w.failed = err
}

func (b *bundles) wanted() map[*bundleWatch]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[*bundleWatch]bool{}
	for _, w := range b.watches {
		out[w] = true
	}
	return out
}

// anchors are the certificates of the bundles, each once. Their order is the same
// for as long as the agent runs, and means nothing: nobody is to rely on it.
func (b *bundles) anchors(found []*v1beta1.ClusterTrustBundle) []byte {
	var all []string
	for _, bundle := range found {
		for block, rest := pem.Decode([]byte(bundle.Spec.TrustBundle)); block != nil; block, rest = pem.Decode(rest) {
			all = append(all, string(block.Bytes))
		}
	}
	slices.SortFunc(all, func(x, y string) int {
		return cmp.Or(cmp.Compare(maphash.String(b.seed, x), maphash.String(b.seed, y)), strings.Compare(x, y))
	})
	var out bytes.Buffer
	for _, der := range slices.Compact(all) {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)}))
	}
	return out.Bytes()
}
