// Package volumes makes the volumes of pods ready on the node and takes them
// away again, a file per kind. It also owns the pods' folders, because only one
// place may delete below them: what a folder shows may be somebody's data,
// mounted there.
//
// The rules: nothing is deleted under a mount point; a mount that this package
// didn't make is never unmounted, and the folder stays; the walk that deletes
// crosses no file system and follows no link (see remove.go).
//
// The layout on disk is the peer's. Kinds that need no staging have no state
// but the disk's and the mount table's, so that every call may be repeated
// after a crash. Calls for different pods may run side by side.
package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// kind is one sort of volume. What it does is idempotent: mounting what is
// mounted and removing what is gone succeed.
type kind interface {
	// Mount makes the volume ready, or brings it up to date. With an error it may
	// return a volume too: one that shows something older, but can be used.
	Mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (standing, error)
	// Folder is the name of the folder among a pod's volumes that has those of
	// the kind, "" if it keeps nothing there.
	Folder() string
	// Remove deletes what Mount made, contents included. Nothing is mounted there
	// any more.
	Remove(ctx context.Context, uid types.UID, name string) error
}

// standing is a volume that is ready.
type standing struct {
	path  string    // on the host; "" if it is not ready
	renew time.Time // when to mount it again, zero for never
}

// Volumes are the volumes of the node.
type Volumes struct {
	pods     string // <root>/pods, without links
	kinds    map[string]kind
	identity Identity
	// opens that run. One on a dead mount may never return: it holds its own
	// goroutine, and tries after it wait for the same one.
	opens singleflight.Group
	// Metrics is told of volumes that are mounted and taken away; nil for nobody.
	// It is set before anything else is asked.
	Metrics *metrics.Storage
}

// New takes the agent's root folder, which must exist, and the memory in bytes
// that all pods together may use (allocatable), the bound of volumes in
// memory; 0 is no bound. The resolver finds what volumes show; identity is nil
// for an agent without an apiserver.
func New(root string, memory int64, resolver env.Resolver, identity Identity) (*Volumes, error) {
	pods, err := canonical(root)
	if err != nil {
		return nil, fmt.Errorf("root folder of volumes: %w", err)
	}
	empty := &emptyDir{pods: pods, memory: memory}
	size := func(p *v1.Pod) int64 { return empty.size(p, nil) }
	show := shower{resolver, identity}.content
	return &Volumes{pods: pods, identity: identity, kinds: map[string]kind{
		"emptyDir":    empty,
		"hostPath":    &hostPath{},
		"configMap":   &shown{pods: pods, folder: "kubernetes.io~configmap", show: show},
		"secret":      &shown{pods: pods, folder: "kubernetes.io~secret", memory: true, size: size, show: show},
		"downwardAPI": &shown{pods: pods, folder: "kubernetes.io~downward-api", memory: true, size: size, show: show},
		"projected":   &shown{pods: pods, folder: "kubernetes.io~projected", memory: true, size: size, show: show},
	}}, nil
}

// volumePath is relative to the pods' folder.
func volumePath(uid types.UID, folder, name string) string {
	return filepath.Join(string(uid), "volumes", folder, name)
}

// canonical is the path of the pods' folder as the mount table knows it
// (behaviour row 1.24-4). It may be a link, or a mount point of its own.
func canonical(root string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", err
	}
	pods := filepath.Join(root, "pods")
	if linked, err := filepath.EvalSymlinks(pods); !errors.Is(err, fs.ErrNotExist) {
		return linked, err
	}
	return pods, nil
}

// Prepare makes the pod's folder and those in it that every pod has, with mode
// 0750 (behaviour rows 1.12-2, 1.24-3).
func (v *Volumes) Prepare(p *v1.Pod) error {
	if err := pod.CheckUID(p.UID); err != nil {
		return fmt.Errorf("prepare folder of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	for _, name := range []string{"volumes", "plugins", "containers"} {
		if err := os.MkdirAll(filepath.Join(v.pods, string(p.UID), name), 0o750); err != nil {
			return fmt.Errorf("prepare folder of pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return nil
}

// Mount makes the volumes of a prepared pod ready and returns where each is on
// the host, by its name. Volumes that no container mentions are left out, as by
// the peer. renew is when to mount them again though nothing has changed, zero
// for never. With an error there are paths too if every volume can be used, as it
// was before.
func (v *Volumes) Mount(ctx context.Context, p *v1.Pod) (paths map[string]string, renew time.Time, err error) {
	if err := pod.CheckUID(p.UID); err != nil {
		return nil, renew, fmt.Errorf("mount volumes of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	used := pod.UsedVolumes(p)
	paths = map[string]string{}
	var errs []error
	usable := true
	for i := range p.Spec.Volumes {
		vol := &p.Spec.Volumes[i]
		if !used[vol.Name] || vol.Image != nil {
			continue // an image is the runtime's to mount
		}
		began := time.Now()
		ready, err := v.mount(ctx, p, vol)
		v.Metrics.Mounted(Plugin(vol), time.Since(began), err != nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("mount volume %q of pod %s/%s: spec.volumes[%d].%s: %w", vol.Name, p.Namespace, p.Name, i, source(vol), err))
			usable = usable && ready.path != ""
		}
		paths[vol.Name] = ready.path
		renew = earlier(renew, ready.renew)
	}
	if !usable {
		return nil, time.Time{}, errors.Join(errs...)
	}
	return paths, renew, errors.Join(errs...)
}

func (v *Volumes) mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (standing, error) {
	if err := ctx.Err(); err != nil {
		return standing{}, err
	}
	if err := checkName(vol.Name); err != nil {
		return standing{}, err
	}
	k := v.kinds[source(vol)]
	if k == nil {
		return standing{}, fmt.Errorf("this kind of volume is not built yet; there are %s", strings.Join(slices.Sorted(maps.Keys(v.kinds)), ", "))
	}
	return k.Mount(ctx, p, vol)
}

// Unmount takes the pod's volumes away, with what emptyDirs hold. Call it when
// no container of the pod is left. What is mounted is compared with the mount
// table before anything is deleted.
func (v *Volumes) Unmount(ctx context.Context, uid types.UID) error {
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("unmount volumes: %w", err)
	}
	if v.identity != nil {
		v.identity.Forget(uid)
	}
	if err := v.unmount(ctx, uid); err != nil {
		return fmt.Errorf("unmount volumes of pod %s: %w", uid, err)
	}
	return nil
}

func (v *Volumes) unmount(ctx context.Context, uid types.UID) error {
	table, err := readMounts(filepath.Join(v.pods, string(uid)))
	if err != nil {
		return err
	}
	if err := v.unmountSubPaths(ctx, uid, table); err != nil {
		return err
	}
	var errs []error
	for _, source := range slices.Sorted(maps.Keys(v.kinds)) {
		k := v.kinds[source]
		names, err := v.names(uid, k.Folder())
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range names {
			began := time.Now()
			err := table.release(filepath.Join(v.pods, volumePath(uid, k.Folder(), name)))
			if err == nil {
				err = k.Remove(ctx, uid, name)
			}
			v.Metrics.Unmounted(pluginOf(source), time.Since(began), err != nil)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s volume %q: %w", source, name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// names of the pod's volumes that have a folder.
func (v *Volumes) names(uid types.UID, folder string) ([]string, error) {
	if folder == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(v.pods, string(uid), "volumes", folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// PodDirs are the pods that have a folder. Those that nobody wants and the
// runtime doesn't know are for Unmount and RemovePod.
func (v *Volumes) PodDirs() ([]types.UID, error) {
	entries, err := os.ReadDir(v.pods)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list folders of pods: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if uid := types.UID(e.Name()); e.IsDir() && pod.CheckUID(uid) == nil {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// RemovePod deletes the pod's folder; one that is gone is no error. It refuses
// while anything is mounted in it, or while its volumes hold data, which is so
// until Unmount has worked, and for kinds that this package doesn't have
// (behaviour row 1.12-36).
func (v *Volumes) RemovePod(ctx context.Context, uid types.UID) error {
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("remove folder of pod: %w", err)
	}
	dir := string(uid)
	table, err := readMounts(filepath.Join(v.pods, dir))
	if err == nil {
		err = table.refuse(filepath.Join(v.pods, dir))
	}
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err == nil {
			err = removeTree(ctx, v.pods, filepath.Join(dir, sub), keepData)
		}
	}
	if err == nil {
		err = removeTree(ctx, v.pods, dir, everything)
	}
	if err != nil {
		return fmt.Errorf("remove folder of pod %s: %w", uid, err)
	}
	return nil
}

// validName is of what becomes an element of paths, and comes from whoever
// wrote the pod.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("name %.260q: want letters, digits, '.' and '-'", name)
	}
	return nil
}

// source is the name of the field that says what kind the volume is. Without
// any it is an emptyDir.
func source(vol *v1.Volume) string { return cmp.Or(fieldOf(vol.VolumeSource), "emptyDir") }

// fieldOf is the name of the first field of a struct of pointers that is set.
func fieldOf(of any) string {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}
