package stats

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// sizes are what a pod's volumes take, by their names.
type sizes struct {
	at      time.Time
	volumes map[string]volumes.Usage
	failed  error // told once, until it is another
}

// oldest is the age of the oldest figures of volumes: very old when a pod has
// none yet.
func (v *view) oldest(known map[types.UID]sizes) (age time.Duration) {
	for _, p := range v.pods {
		one, ok := known[p.UID()]
		if !ok {
			return v.stats.sizes.old
		}
		age = max(age, time.Since(one.at))
	}
	return age
}

// budget of one pod's volumes: a walk that takes longer is given up.
const budget = time.Minute

// measure finds out what the volumes of all live pods take. Of one that can't be
// measured wholly the figure before stays, or the part that could be if it is more.
func (s *Stats) measure(ctx context.Context, known map[types.UID]sizes) (map[types.UID]sizes, error) {
	all := map[types.UID]sizes{}
	for _, p := range s.live() {
		before := known[p.UID()]
		if time.Since(before.at) < s.options.VolumePeriod {
			all[p.UID()] = before
			continue
		}
		now, err := s.walk(ctx, p, before)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && (before.failed == nil || before.failed.Error() != err.Error()) {
			s.options.Log.Warn("volumes are told with the figures before", "pod", p.Spec.Namespace+"/"+p.Spec.Name, "error", err)
		}
		now.failed = err
		all[p.UID()] = now
	}
	return all, nil
}

// walk measures the pod's volumes. One on a dead mount may never answer: that
// holds a goroutine of its own, and looks after it wait for the same one.
func (s *Stats) walk(ctx context.Context, p pod.Pod, before sizes) (sizes, error) {
	done := s.walks.DoChan(string(p.UID()), func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, budget)
		defer cancel()
		return s.measurePod(ctx, p, before)
	})
	late := time.NewTimer(budget + time.Second)
	defer late.Stop()
	select {
	case r := <-done:
		return r.Val.(sizes), r.Err
	case <-ctx.Done():
		return before, ctx.Err()
	case <-late.C:
		before.at = time.Now() // not again before the others
		return before, errors.New("measuring the volumes does not end; is one of them on a dead mount?")
	}
}

func (s *Stats) measurePod(ctx context.Context, p pod.Pod, before sizes) (sizes, error) {
	now := sizes{at: time.Now(), volumes: map[string]volumes.Usage{}}
	var errs []error
	for i := range p.Spec.Spec.Volumes {
		vol := &p.Spec.Spec.Volumes[i]
		usage, err := s.options.Volumes.Measure(ctx, p.Spec, vol)
		switch {
		case err == nil:
			now.volumes[vol.Name] = usage
		case errors.Is(err, volumes.ErrNotMeasured):
		default:
			// What was counted until a walk was given up is the least that it takes:
			// no pod hides what it stores by making it hard to count.
			if last := before.volumes[vol.Name]; last.Used >= usage.Used {
				usage = last
			}
			if !usage.At.IsZero() {
				now.volumes[vol.Name] = usage
			}
			errs = append(errs, err)
		}
	}
	return now, errors.Join(errs...)
}

// volumeStats are what is known of the pod's volumes, in the order of its spec.
func volumeStats(p *v1.Pod, known sizes) (all []statsapi.VolumeStats) {
	for _, vol := range p.Spec.Volumes {
		u, ok := known.volumes[vol.Name]
		if !ok {
			continue
		}
		all = append(all, statsapi.VolumeStats{Name: vol.Name, PVCRef: claim(p, vol), FsStats: statsapi.FsStats{
			Time: metav1.NewTime(u.At), UsedBytes: &u.Used, InodesUsed: &u.InodesUsed,
			CapacityBytes: &u.Capacity, AvailableBytes: &u.Available, Inodes: &u.Inodes, InodesFree: &u.InodesFree,
		}})
	}
	return all
}

// claim that the volume is of, if it is of one.
func claim(p *v1.Pod, vol v1.Volume) *statsapi.PVCReference {
	switch {
	case vol.PersistentVolumeClaim != nil:
		return &statsapi.PVCReference{Namespace: p.Namespace, Name: vol.PersistentVolumeClaim.ClaimName}
	case vol.Ephemeral != nil:
		return &statsapi.PVCReference{Namespace: p.Namespace, Name: p.Name + "-" + vol.Name}
	}
	return nil
}

// ephemeral says whether what is in the volume counts as ephemeral storage of
// the node's disk.
func ephemeral(p *v1.Pod, name string) bool {
	for _, vol := range p.Spec.Volumes {
		if vol.Name == name {
			return vol.ConfigMap != nil || vol.EmptyDir != nil && vol.EmptyDir.Medium == v1.StorageMediumDefault
		}
	}
	return false
}

// filesIn counts the files that lie in a folder, not those in folders below, and what
// they take of the disk.
func filesIn(dir string) (bytes, count uint64, err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }() // opened to read: nothing to lose
	for {
		entries, err := f.ReadDir(64)
		if errors.Is(err, io.EOF) {
			return bytes, count, nil
		}
		if err != nil {
			return bytes, count, err
		}
		for _, e := range entries {
			var st unix.Stat_t
			if e.IsDir() || unix.Fstatat(int(f.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // not a file, or rotated away meanwhile
			}
			bytes += uint64(st.Blocks) * 512
			count++
		}
	}
}

// fileSystem is how the file system is that the path is on.
func fileSystem(path string, now time.Time) (*statsapi.FsStats, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	block := uint64(fs.Bsize)
	capacity, available, used, inodesUsed := fs.Blocks*block, fs.Bavail*block, (fs.Blocks-fs.Bfree)*block, fs.Files-fs.Ffree
	return &statsapi.FsStats{
		Time: metav1.NewTime(now), CapacityBytes: &capacity, AvailableBytes: &available,
		UsedBytes: &used, Inodes: &fs.Files, InodesFree: &fs.Ffree, InodesUsed: &inodesUsed,
	}, nil
}

// with says what one thing takes of a file system.
func with(fs statsapi.FsStats, at time.Time, bytes, inodes uint64) *statsapi.FsStats {
	fs.Time, fs.UsedBytes, fs.InodesUsed = metav1.NewTime(at), &bytes, &inodes
	return &fs
}

// logsIn counts the files that lie in the pod's folder of logs, or in the one of
// a container in it, and what they take. Before the first line is printed there
// may be no such folder.
func (s *Stats) logsIn(p *v1.Pod, container string) (bytes, count uint64, err error) {
	folder, err := cri.LogFolder(p.Namespace, p.Name, p.UID)
	if err != nil {
		return 0, 0, err
	}
	return filesIn(filepath.Join(s.options.LogsDir, folder, container))
}
