package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/env"
)

// payload is what a volume shows: files by their path in it. It follows from
// the pod, the volume, the objects and the pod's identity alone.
type payload map[string]file

type file struct {
	data []byte
	mode fs.FileMode
	// owner is the user whose file it is, nil for the agent's.
	owner *int64
}

// Bounds of the kernel: here the error can name the path.
const (
	maxPath = 4096
	maxName = 255
)

// put adds a file; of two at one path the later one counts.
func (p payload) put(name string, f file) error {
	if err := checkPath(name); err != nil {
		return fmt.Errorf("path %.300q: %w", name, err)
	}
	p[path.Clean(name)] = f
	return nil
}

// checkPath refuses paths that could leave the volume, and those that the
// writer has for itself.
func checkPath(name string) error {
	elements := strings.Split(name, "/")
	switch {
	case name == "":
		return errors.New("must not be empty")
	case len(name) > maxPath:
		return fmt.Errorf("must not be longer than %d characters", maxPath)
	case path.IsAbs(name):
		return errors.New("must be relative")
	case slices.Contains(elements, ".."):
		return errors.New("must not contain '..'")
	case strings.HasPrefix(path.Clean(name), ".."):
		return errors.New("must not start with '..'")
	case path.Clean(name) == ".":
		return errors.New("must name a file")
	case strings.ContainsRune(name, 0):
		return errors.New("must not contain a zero byte")
	}
	for _, e := range elements {
		if len(e) > maxName {
			return fmt.Errorf("must not have a name longer than %d characters in it", maxName)
		}
	}
	return nil
}

// tree refuses files of which one would have to be the folder of another.
func (p payload) tree() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, both := p[dir]; both {
				errs = append(errs, fmt.Errorf("path %q: %q is a file, and cannot be a folder too", name, dir))
			}
		}
	}
	return errors.Join(errs...)
}

// object is what volumes show of a ConfigMap or a Secret.
type object struct {
	kind string // as in messages: config, secret
	data map[string][]byte
}

// pick adds what the volume shows of the object: all of it by its keys, or the
// items. What is optional may be missing (behaviour row 1.12-7).
func (p payload) pick(o object, items []v1.KeyToPath, defaultMode *int32, optional *bool) error {
	if len(items) == 0 {
		for _, key := range slices.Sorted(maps.Keys(o.data)) {
			if err := p.put(key, file{data: o.data[key], mode: modeOf(nil, defaultMode)}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		content, ok := o.data[item.Key]
		switch {
		case !ok && ptr.Deref(optional, false):
			continue
		case !ok:
			return fmt.Errorf("references non-existent %s key: %s", o.kind, item.Key)
		}
		if err := p.put(item.Path, file{data: content, mode: modeOf(item.Mode, defaultMode)}); err != nil {
			return err
		}
	}
	return nil
}

// modeOf is the file's own mode, else the volume's, else the API's default.
func modeOf(own, defaults *int32) fs.FileMode {
	for _, mode := range []*int32{own, defaults} {
		if mode != nil {
			return fs.FileMode(*mode) & fs.ModePerm
		}
	}
	return fs.FileMode(v1.ConfigMapVolumeSourceDefaultMode)
}

// shower finds what volumes show of a pod and of objects on this node.
type shower struct {
	env.Resolver
	identity Identity // nil if there is none
}

// configMap is empty for one that is optional and not there.
func (s shower) configMap(namespace, name string, optional *bool) (object, error) {
	o := object{kind: "config", data: map[string][]byte{}}
	c, err := s.Objects.ConfigMap(namespace, name)
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	maps.Copy(o.data, c.BinaryData)
	for key, text := range c.Data {
		o.data[key] = []byte(text)
	}
	return o, nil
}

// secret is empty for one that is optional and not there.
func (s shower) secret(namespace, name string, optional *bool) (object, error) {
	o := object{kind: "secret"}
	c, err := s.Objects.Secret(namespace, name)
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.data = c.Data
	return o, nil
}

// content is what the volume shows: a configMap, secret, downwardAPI or
// projected one (behaviour row 1.12-6).
func (s shower) content(ctx context.Context, p *v1.Pod, vol *v1.Volume) (content, error) {
	all := content{files: payload{}, stale: s.Stale != nil && s.Stale(p, vol)}
	out := all.files
	var err error
	switch {
	case vol.ConfigMap != nil:
		c := vol.ConfigMap
		err = s.showConfigMap(out, p, c.Name, c.Items, c.DefaultMode, c.Optional)
	case vol.Secret != nil:
		c := vol.Secret
		err = s.showSecret(out, p, c.SecretName, c.Items, c.DefaultMode, c.Optional)
	case vol.DownwardAPI != nil:
		err = s.showPod(out, p, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode)
	case vol.Projected != nil:
		err = s.showAll(ctx, &all, p, vol.Name, vol.Projected)
	}
	if err != nil {
		return content{}, err
	}
	return all, out.tree()
}

func (s shower) showConfigMap(out payload, p *v1.Pod, name string, items []v1.KeyToPath, mode *int32, optional *bool) error {
	o, err := s.configMap(p.Namespace, name, optional)
	if err == nil {
		err = out.pick(o, items, mode, optional)
	}
	if err != nil {
		return fmt.Errorf("configMap %q: %w", name, err)
	}
	return nil
}

func (s shower) showSecret(out payload, p *v1.Pod, name string, items []v1.KeyToPath, mode *int32, optional *bool) error {
	o, err := s.secret(p.Namespace, name, optional)
	if err == nil {
		err = out.pick(o, items, mode, optional)
	}
	if err != nil {
		return fmt.Errorf("secret %q: %w", name, err)
	}
	return nil
}

// showPod adds files about the pod itself (behaviour row 1.12-12).
func (s shower) showPod(out payload, p *v1.Pod, items []v1.DownwardAPIVolumeFile, mode *int32) error {
	var errs []error
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = env.Field(p, item.FieldRef.FieldPath, env.Surroundings{})
		case item.ResourceFieldRef == nil:
			err = errors.New("has neither fieldRef nor resourceFieldRef")
		case item.ResourceFieldRef.ContainerName == "":
			err = errors.New("resourceFieldRef: a volume is of no container: containerName is needed")
		default:
			value, err = s.Resource(p, nil, item.ResourceFieldRef)
		}
		if err == nil {
			err = out.put(item.Path, file{data: []byte(value), mode: modeOf(item.Mode, mode)})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("file %q: %w", item.Path, err))
		}
	}
	return errors.Join(errs...)
}

// showAll adds what the sources show, one after another.
func (s shower) showAll(ctx context.Context, all *content, p *v1.Pod, name string, vol *v1.ProjectedVolumeSource) error {
	out := all.files
	var errs, older []error
	for i, from := range vol.Sources {
		var err error
		all.older = nil
		switch {
		case from.ConfigMap != nil:
			c := from.ConfigMap
			err = s.showConfigMap(out, p, c.Name, c.Items, vol.DefaultMode, c.Optional)
		case from.Secret != nil:
			c := from.Secret
			err = s.showSecret(out, p, c.Name, c.Items, vol.DefaultMode, c.Optional)
		case from.DownwardAPI != nil:
			err = s.showPod(out, p, from.DownwardAPI.Items, vol.DefaultMode)
		case from.ServiceAccountToken != nil:
			err = s.showToken(ctx, all, p, from.ServiceAccountToken, vol.DefaultMode)
		case from.ClusterTrustBundle != nil:
			err = s.showBundle(ctx, all, p, from.ClusterTrustBundle, vol.DefaultMode)
		case from.PodCertificate != nil:
			err = s.showCertificate(ctx, all, p, certificate{name, i, from.PodCertificate}, vol.DefaultMode)
		default:
			err = errors.New("a source without a kind")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sources[%d]: %w", i, err))
		}
		if all.older != nil {
			older = append(older, fmt.Errorf("sources[%d]: %w", i, all.older))
		}
	}
	all.older = errors.Join(older...)
	return errors.Join(errs...)
}
