package volumes

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// pageSize in bytes is what the medium names, or, for HugePages, the one size
// that the pod's containers ask for (behaviour row 1.12-3).
func pageSize(p *v1.Pod, medium v1.StorageMedium) (int64, error) {
	asked := map[int64]bool{}
	lists := []v1.ResourceList{}
	if p.Spec.Resources != nil {
		lists = append(lists, p.Spec.Resources.Requests)
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		lists = append(lists, c.Resources.Requests, c.Resources.Limits)
	}
	for _, list := range lists {
		for name := range list {
			if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
				q, err := resource.ParseQuantity(size)
				if err != nil {
					return 0, fmt.Errorf("resource %s: %w", name, err)
				}
				asked[q.Value()] = true
			}
		}
	}
	size, named := strings.CutPrefix(string(medium), string(v1.StorageMediumHugePagesPrefix))
	if named {
		q, err := resource.ParseQuantity(size)
		if err != nil {
			return 0, fmt.Errorf("page size: %w", err)
		}
		if !asked[q.Value()] {
			return 0, fmt.Errorf("no container requests %s%s", v1.ResourceHugePagesPrefix, size)
		}
		return q.Value(), nil
	}
	if medium != v1.StorageMediumHugePages {
		return 0, errors.New("want HugePages or HugePages-<size>")
	}
	for bytes := range asked {
		if len(asked) == 1 {
			return bytes, nil
		}
	}
	return 0, fmt.Errorf("the containers request huge pages of %d sizes, want one; or name it: HugePages-<size>", len(asked))
}

// mountHugePages mounts a file system of huge pages upon the opened folder.
func mountHugePages(f *os.File, page int64, limit *resource.Quantity) error {
	options := fmt.Sprintf("pagesize=%d", page)
	if limit != nil && limit.Sign() > 0 {
		options += fmt.Sprintf(",size=%d", (limit.Value()+page-1)/page*page)
	}
	if err := unix.Mount("nodev", byDescriptor(f), "hugetlbfs", 0, options); err != nil {
		return fmt.Errorf("mount huge pages of %d bytes at %s: %w", page, f.Name(), err)
	}
	return nil
}
