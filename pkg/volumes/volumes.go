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
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/moby/sys/mountinfo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// kind is one sort of volume. What it does is idempotent: mounting what is
// mounted and unmounting what is not succeed.
type kind interface {
	// Mount makes the volume ready and returns its path on the host.
	Mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (string, error)
	// Unmount takes away what Mount made, contents included. If anything is
	// mounted in it that Mount didn't, it fails and leaves all as it is.
	Unmount(ctx context.Context, uid types.UID, name string) error
	// Names are the pod's volumes of this kind that are on disk.
	Names(uid types.UID) ([]string, error)
}

// Volumes are the volumes of the node.
type Volumes struct {
	pods     string // <root>/pods, without links
	emptyDir *emptyDir
	hostPath *hostPath
}

// New takes the agent's root folder, which must exist, and the memory in bytes
// that all pods together may use (allocatable), the bound of emptyDirs in
// memory; 0 is no bound.
func New(root string, memory int64) (*Volumes, error) {
	pods, err := canonical(root)
	if err != nil {
		return nil, fmt.Errorf("root folder of volumes: %w", err)
	}
	return &Volumes{pods: pods, emptyDir: &emptyDir{pods: pods, memory: memory}, hostPath: &hostPath{}}, nil
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

func (v *Volumes) kinds() []kind { return []kind{v.emptyDir, v.hostPath} }

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
// the host, by its name. Volumes that no container mentions are left out, as by the peer.
func (v *Volumes) Mount(ctx context.Context, p *v1.Pod) (map[string]string, error) {
	if err := pod.CheckUID(p.UID); err != nil {
		return nil, fmt.Errorf("mount volumes of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	mentioned := mentioned(p)
	paths := map[string]string{}
	var errs []error
	for i := range p.Spec.Volumes {
		vol := &p.Spec.Volumes[i]
		if !mentioned[vol.Name] {
			continue
		}
		path, err := v.mount(ctx, p, vol)
		if err != nil {
			errs = append(errs, fmt.Errorf("mount volume %q of pod %s/%s: spec.volumes[%d].%s: %w", vol.Name, p.Namespace, p.Name, i, source(vol), err))
			continue
		}
		paths[vol.Name] = path
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return paths, nil
}

func (v *Volumes) mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkName(vol.Name); err != nil {
		return "", err
	}
	switch {
	case vol.EmptyDir != nil || source(vol) == "emptyDir":
		return v.emptyDir.Mount(ctx, p, vol)
	case vol.HostPath != nil:
		return v.hostPath.Mount(ctx, p, vol)
	}
	return "", errors.New("this kind of volume is not built yet; there are emptyDir and hostPath")
}

// Unmount takes the pod's volumes away, with what emptyDirs hold. Call it when
// no container of the pod is left.
func (v *Volumes) Unmount(ctx context.Context, uid types.UID) error {
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("unmount volumes: %w", err)
	}
	var errs []error
	for _, k := range v.kinds() {
		names, err := k.Names(uid)
		if err != nil {
			errs = append(errs, fmt.Errorf("unmount volumes of pod %s: %w", uid, err))
		}
		for _, name := range names {
			if err := k.Unmount(ctx, uid, name); err != nil {
				errs = append(errs, fmt.Errorf("unmount volume %q of pod %s: %w", name, uid, err))
			}
		}
	}
	return errors.Join(errs...)
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
	err := refuseMounts(filepath.Join(v.pods, dir))
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

// mentioned are the names of volumes that a container mounts or maps.
func mentioned(p *v1.Pod) map[string]bool {
	names := map[string]bool{}
	add := func(mounts []v1.VolumeMount, devices []v1.VolumeDevice) {
		for _, m := range mounts {
			names[m.Name] = true
		}
		for _, d := range devices {
			names[d.Name] = true
		}
	}
	for _, containers := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			add(c.VolumeMounts, c.VolumeDevices)
		}
	}
	for _, c := range p.Spec.EphemeralContainers {
		add(c.VolumeMounts, c.VolumeDevices)
	}
	return names
}

// source is the name of the field that says what kind the volume is. Without
// any it is an emptyDir.
func source(vol *v1.Volume) string {
	sources := reflect.ValueOf(vol.VolumeSource)
	for i := range sources.NumField() {
		if !sources.Field(i).IsNil() {
			name, _, _ := strings.Cut(sources.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "emptyDir"
}

// refuseMounts fails if the folder is a mount point or has one below it.
func refuseMounts(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	if len(mounts) == 0 {
		return nil
	}
	m := mounts[0]
	return fmt.Errorf("%s (%s %s) is mounted there, one of %d: nothing is deleted; find out who mounted it, then umount it", m.Mountpoint, m.FSType, m.Source, len(mounts))
}
