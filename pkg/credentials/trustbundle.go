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
	"sync/atomic"
	"time"

	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/certificates/v1beta1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
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
	informer cache.SharedIndexInformer
	// failed is why the apiserver could not be asked lately, nil if it always could.
	failed  atomic.Pointer[error]
	failing chan struct{}      // closed at the first failure
	pods    map[types.UID]bool // guarded by bundles.mu
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
	w, err := i.bundles.watch(selector, p.UID)
	if err == nil {
		err = w.known(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("get ClusterTrustBundles with %s: %w", selector, err)
	}
	var found []*v1beta1.ClusterTrustBundle
	for _, o := range w.informer.GetStore().List() {
		if b := o.(*v1beta1.ClusterTrustBundle); matches(b) {
			found = append(found, b)
		}
	}
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
func (b *bundles) watch(selector string, uid types.UID) (*bundleWatch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.watches[selector]
	if w == nil {
		w = &bundleWatch{pods: map[types.UID]bool{}, failing: make(chan struct{}), informer: informers.NewFilteredClusterTrustBundleInformer(b.client, 0, nil,
			func(o *metav1.ListOptions) { o.FieldSelector = selector })}
		failed := func(_ context.Context, _ *cache.Reflector, err error) {
			if w.failed.Swap(&err) == nil {
				close(w.failing)
			}
		}
		if err := errors.Join(w.informer.SetTransform(anchorsOnly), w.informer.SetWatchErrorHandlerWithContext(failed)); err != nil {
			return nil, err
		}
		b.watches[selector] = w
		b.look()
	}
	w.pods[uid] = true
	return w, nil
}

// anchorsOnly is what is kept of a bundle in memory.
func anchorsOnly(o any) (any, error) {
	if b, ok := o.(*v1beta1.ClusterTrustBundle); ok {
		b.ManagedFields, b.Annotations = nil, nil
	}
	return o, nil
}

// known waits until the apiserver has said what there is, or could not be asked.
func (w *bundleWatch) known(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, bundlePatience)
	defer cancel()
	synced := w.informer.HasSyncedChecker()
	select {
	case <-synced.Done():
	case <-w.failing:
	case <-patience.Done():
	}
	if cache.IsDone(synced) {
		return nil
	}
	switch err := w.failed.Load(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return errors.New("the apiserver has not answered yet")
	case apierrors.IsNotFound(*err):
		return errors.New("the apiserver has none in certificates.k8s.io/v1beta1; are they enabled there?")
	default:
		return *err
	}
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
			if _, err := w.informer.AddEventHandler(b.teller(w, renewed)); err != nil {
				return fmt.Errorf("watch ClusterTrustBundles: %w", err)
			}
			ctx, stop := context.WithCancel(ctx)
			running[w] = stop
			work.Go(func() { w.informer.RunWithContext(ctx) })
		}
	}
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

// teller tells the pods that something came, went or changed. Of what was there
// from the start they know.
func (b *bundles) teller(w *bundleWatch, renewed func(types.UID)) cache.ResourceEventHandler {
	tell := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for uid := range w.pods {
			renewed(uid)
		}
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(_ any, initial bool) {
			if !initial {
				tell()
			}
		},
		UpdateFunc: func(old, now any) {
			was, is := old.(*v1beta1.ClusterTrustBundle), now.(*v1beta1.ClusterTrustBundle)
			if was.Spec != is.Spec || !labels.Equals(was.Labels, is.Labels) {
				tell()
			}
		},
		DeleteFunc: func(any) { tell() },
	}
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
