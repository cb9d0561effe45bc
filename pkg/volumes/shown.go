package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// shown is a volume whose files the agent writes: a configMap, secret,
// downwardAPI or projected one (behaviour rows 1.12-6 to 1.12-8). Containers
// only ever read it. Mounting it again brings it up to date.
type shown struct {
	pods   string // where the pods' folders are
	folder string // of the kind, below a pod's volumes
	// memory keeps what may be secret off the disk: each volume is a tmpfs.
	memory bool
	size   func(*v1.Pod) int64
	show   func(context.Context, *v1.Pod, *v1.Volume) (content, error)
}

// Folder implements kind.
func (s *shown) Folder() string { return s.folder }

// Mount makes the folder and has it show what it should by now. If that is not
// known it leaves all as it was; a volume that shows something already is ready
// with that: it keeps no container from starting again though the apiserver can't
// be reached, also after a restart of the agent.
func (s *shown) Mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (standing, error) {
	dir := volumePath(p.UID, s.folder, vol.Name)
	at := filepath.Join(s.pods, dir)
	show, err := s.show(ctx, p, vol)
	if err != nil {
		if s.stands(dir) {
			return standing{path: at}, err
		}
		return standing{}, err
	}
	if err := s.write(ctx, p, vol, dir, show.files); err != nil {
		return standing{}, err
	}
	return standing{path: at, renew: show.renew}, show.older
}

// stands says whether the volume was written before, and is there still.
func (s *shown) stands(dir string) bool {
	mounted, err := isMounted(s.pods, dir)
	if err != nil || mounted != s.memory {
		return false
	}
	f, err := openBeneath(s.pods, dir)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // opened to read: nothing to lose
	root, err := os.OpenRoot(byDescriptor(f))
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(dataLink)
	return err == nil && info.IsDir()
}

// write makes the volume show the files.
func (s *shown) write(ctx context.Context, p *v1.Pod, vol *v1.Volume, dir string, files payload) error {
	f, err := s.make(p, dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened to read: nothing to lose
	if err := setOwner(f, s.memory, p.Spec.SecurityContext); err != nil {
		return err
	}
	root, err := os.OpenRoot(byDescriptor(f))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, dir := range nested(p, vol.Name) {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder for the volume that is mounted in this one: %w", err)
		}
	}
	w := writer{root: root}
	if sc := p.Spec.SecurityContext; sc != nil {
		w.group = sc.FSGroup
	}
	return w.write(ctx, files)
}

// make opens the volume's folder, made and mounted.
func (s *shown) make(p *v1.Pod, dir string) (*os.File, error) {
	f, err := makeBeneath(s.pods, dir)
	if err != nil || !s.memory {
		return f, err
	}
	mounted, err := isMounted(s.pods, dir)
	if err == nil && !mounted {
		err = mountTmpfs(f, s.size(p))
	}
	if err == nil && !mounted {
		_ = f.Close() // it is the folder below
		return openBeneath(s.pods, dir)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Remove implements kind. The mark is what the peer leaves beside it.
func (s *shown) Remove(ctx context.Context, uid types.UID, name string) error {
	if err := removeTree(ctx, s.pods, filepath.Dir(readyPath(uid, "wrapped_"+name)), everything); err != nil {
		return err
	}
	return removeTree(ctx, s.pods, volumePath(uid, s.folder, name), everything)
}
