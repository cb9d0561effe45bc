package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

const subPathsName = "volume-subpaths"

// BindSubPaths mounts the parts of volumes that the container's subPaths name,
// each at a path of its own below the pod's folder, and says where, by the
// index of the volumeMount (behaviour row 1.12-26). hosts is what Mount
// returned, values are the container's variables. Binding again finds anew what
// the paths lead to.
//
// It returns when ctx ends, though a dead mount may not answer yet.
func (v *Volumes) BindSubPaths(ctx context.Context, p *v1.Pod, c *v1.Container, hosts, values map[string]string) (map[int]string, error) {
	out := map[int]string{}
	for i, m := range c.VolumeMounts {
		if m.SubPath == "" && m.SubPathExpr == "" || isImage(p, m.Name) {
			continue
		}
		at, err := v.bindSubPath(ctx, p.UID, part{c.Name, i, m, hosts[m.Name]}, values)
		if err != nil {
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
		}
		out[i] = at
	}
	return out, nil
}

// part of a volume that a container mounts.
type part struct {
	container string
	index     int
	v1.VolumeMount
	host string // where the volume is
}

// bindSubPath returns where the part is mounted. What is in the volume is the
// pod's to change; what the path leads to is found once, in the volume, and
// that very file or folder is bound, whatever the pod puts in its place.
func (v *Volumes) bindSubPath(ctx context.Context, uid types.UID, s part, values map[string]string) (string, error) {
	if err := errors.Join(pod.CheckUID(uid), checkName(s.Name), checkName(s.container)); err != nil {
		return "", err
	}
	if s.host == "" {
		return "", errors.New("the volume is not mounted on the node")
	}
	if s.SubPathExpr == "" {
		return v.bindPart(ctx, uid, s, s.SubPath)
	}
	sub, err := env.ExpandStrictly(s.SubPathExpr, values)
	if err != nil {
		return "", fmt.Errorf("subPathExpr %w", err)
	}
	at, err := v.bindPart(ctx, uid, s, sub)
	if err != nil { // it names the path, in which the value of a secret may stand
		return "", fmt.Errorf("subPathExpr %q: %w", s.SubPathExpr, innermost(err))
	}
	return at, nil
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

var errNotLocal = errors.New("must be relative and without '..'")

func (v *Volumes) bindPart(ctx context.Context, uid types.UID, s part, sub string) (string, error) {
	if path.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("subPath %q: %w", sub, errNotLocal)
	}
	place := filepath.Join(string(uid), subPathsName, s.Name, s.container, strconv.Itoa(s.index))
	opened, err := v.open(ctx, place, s.host, sub)
	if err != nil {
		return "", err
	}
	defer func() { _ = opened.Close() }() // never written to
	if err := v.bind(ctx, place, opened); err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	return filepath.Join(v.pods, place), nil
}

// open finds the part, as long as ctx lets it look: on a dead mount that may
// be for ever. Only one looks for the same in each place; what nobody waits for
// any more is closed when it is collected.
func (v *Volumes) open(ctx context.Context, place, host, sub string) (*os.File, error) {
	key := place + "\x00" + host + "\x00" + sub // what is looked for may be another by now
	found := v.opens.DoChan(key, func() (any, error) { return openPart(host, sub) })
	select {
	case r := <-found:
		return r.Val.(*os.File), r.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s does not answer: %w; is it on a dead mount?", host, ctx.Err())
	}
}

var errOutside = errors.New("leads out of its volume")

// openPart opens sub in the volume. Links in the volume are followed as long as
// they lead to somewhere in it. Of what is outside the errors tell nothing.
func openPart(volume, sub string) (*os.File, error) {
	dir, err := os.Open(volume)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer func() { _ = dir.Close() }() // opened to read: nothing to lose
	part, err := beneath(dir, sub, unix.O_PATH, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	if errors.Is(err, unix.ENOENT) {
		if err := makePart(dir, sub); err != nil {
			return nil, fmt.Errorf("make subPath %q: %w", sub, err)
		}
		part, err = beneath(dir, sub, unix.O_PATH, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	}
	if errors.Is(err, unix.EXDEV) {
		part, err = openByName(dir, sub)
	}
	if err != nil {
		return nil, fmt.Errorf("open subPath %q: %w", sub, err)
	}
	return part, nil
}

// openByName opens what absolute links lead to, if that is in the volume: such
// links are the host's own, in hostPath volumes. The path is then opened
// without following any, so that one that changes meanwhile is an error.
func openByName(dir *os.File, sub string) (*os.File, error) {
	base, err := filepath.EvalSymlinks(dir.Name())
	if err != nil {
		return nil, errOutside
	}
	target, err := filepath.EvalSymlinks(filepath.Join(base, sub))
	if err != nil {
		return nil, errOutside
	}
	rel, err := filepath.Rel(base, target)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, errOutside
	}
	return beneath(dir, rel, unix.O_PATH, noLinks) // with O_NOFOLLOW it would be a link itself
}

// makePart makes the folders that are missing, with the volume's own mode.
func makePart(volume *os.File, sub string) error {
	root, err := os.OpenRoot(byDescriptor(volume))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	info, err := volume.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky)
	made := ""
	for _, name := range strings.Split(path.Clean(sub), "/") {
		made = path.Join(made, name)
		err := root.Mkdir(made, 0o700)
		if err == nil {
			err = root.Chmod(made, mode) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// bind mounts the part at its place. What an earlier instance of the container
// had there goes first: that instance keeps its own.
func (v *Volumes) bind(ctx context.Context, place string, part *os.File) error {
	if err := v.unbind(place); err != nil {
		return err
	}
	target, err := v.makePlace(ctx, place, part)
	if err != nil {
		return fmt.Errorf("make its place: %w", err)
	}
	defer func() { _ = target.Close() }() // never written to
	if err := unix.Mount(byDescriptor(part), byDescriptor(target), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind it at %s: %w", target.Name(), err)
	}
	return nil
}

// unbind unmounts all that is bound at that name below the pods' folder.
func (v *Volumes) unbind(name string) error {
	for {
		mounted, err := isMounted(v.pods, name)
		if err != nil || !mounted {
			return err
		}
		// Detached: the file system may be dead, and nobody works here.
		if err := unix.Unmount(filepath.Join(v.pods, name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount the subPath of an earlier instance: %w", err)
		}
	}
}

// makePlace makes the empty folder or file to bind the part upon, and opens it.
func (v *Volumes) makePlace(ctx context.Context, place string, part *os.File) (*os.File, error) {
	parent, err := makeBeneath(v.pods, filepath.Dir(place))
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	name := filepath.Base(place)
	// What is there may be of the other sort; it is empty in either case.
	if err := (&walk{ctx: ctx, policy: keepData}).remove(parent, name, 0); err != nil {
		return nil, err
	}
	isDir, err := isFolder(part)
	switch {
	case err != nil:
	case isDir:
		err = unix.Mkdirat(int(parent.Fd()), name, 0o750)
	default:
		err = unix.Mknodat(int(parent.Fd()), name, unix.S_IFREG|0o640, 0)
	}
	if err != nil {
		return nil, err
	}
	return beneath(parent, name, unix.O_PATH, noLinks)
}

func isFolder(f *os.File) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// unmountSubPaths undoes every bind of the pod's, and removes their places.
func (v *Volumes) unmountSubPaths(ctx context.Context, uid types.UID, t *table) error {
	top := filepath.Join(v.pods, string(uid), subPathsName)
	var ours []*mountinfo.Info
	for _, m := range t.below(top) {
		if len(t.elements(m)) == 4 { // volume-subpaths/<volume>/<container>/<index>
			ours = append(ours, m)
		}
	}
	if err := t.unmount(ours); err != nil {
		return err
	}
	if err := t.refuse(top); err != nil {
		return err
	}
	return removeTree(ctx, v.pods, filepath.Join(string(uid), subPathsName), keepData)
}

// isImage says that the volume is an image, whose parts the runtime finds.
func isImage(p *v1.Pod, volume string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v v1.Volume) bool { return v.Name == volume && v.Image != nil })
}
