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
	show   func(*v1.Pod, *v1.Volume) (payload, error)
}

// Folder implements kind.
func (s *shown) Folder() string { return s.folder }

// Mount makes the folder and has it show what it should by now. If that is not
// known it leaves all as it was.
func (s *shown) Mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (string, error) {
	files, err := s.show(p, vol)
	if err != nil {
		return "", err
	}
	dir := volumePath(p.UID, s.folder, vol.Name)
	f, err := s.make(p, dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // opened to read: nothing to lose
	if err := setOwner(f, s.memory, p.Spec.SecurityContext); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(byDescriptor(f))
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	for _, dir := range nested(p, vol.Name) {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("make folder for the volume that is mounted in this one: %w", err)
		}
	}
	w := writer{root: root}
	if sc := p.Spec.SecurityContext; sc != nil {
		w.group = sc.FSGroup
	}
	return filepath.Join(s.pods, dir), w.write(ctx, files)
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
