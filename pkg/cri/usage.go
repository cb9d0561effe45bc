package cri

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Usage is what the runtime counts of a running container.
type Usage struct {
	At  time.Time
	CPU uint64 // ns of CPU time
	// Memory in bytes, and how often it was faulted in.
	Memory, WorkingSet, RSS, Swap uint64
	PageFaults, MajorPageFaults   uint64
	// Layer is the container's writable layer; its Mountpoint is "" when the
	// runtime has not measured it yet.
	Layer FileSystem
}

// FileSystem is what something takes of a file system.
type FileSystem struct {
	At time.Time
	// Mountpoint is a folder on the file system, "" when nothing is known.
	Mountpoint    string
	Bytes, Inodes uint64
}

// Usage is that of all running containers, by their IDs (CRI
// ListContainerStats). The runtime asks each container's shim for it: it is a
// dear call.
func (c *Client) Usage(ctx context.Context) (map[string]Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list what containers use: %w", err)
	}
	all := make(map[string]Usage, len(r.Stats))
	for _, s := range r.Stats {
		if s.GetAttributes() == nil {
			continue
		}
		m, layer := s.GetMemory(), s.GetWritableLayer()
		all[s.Attributes.Id] = Usage{
			At: time.Unix(0, s.GetCpu().GetTimestamp()), CPU: s.GetCpu().GetUsageCoreNanoSeconds().GetValue(),
			Memory: m.GetUsageBytes().GetValue(), WorkingSet: m.GetWorkingSetBytes().GetValue(), RSS: m.GetRssBytes().GetValue(),
			Swap:       s.GetSwap().GetSwapUsageBytes().GetValue(),
			PageFaults: m.GetPageFaults().GetValue(), MajorPageFaults: m.GetMajorPageFaults().GetValue(),
			Layer: fileSystem(layer),
		}
	}
	return all, nil
}

// ImageFS is what images take, and what the writable layers of containers do:
// the same file system, unless the runtime keeps them apart (CRI ImageFsInfo).
func (c *Client) ImageFS(ctx context.Context) (images, containers FileSystem, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.image.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return images, containers, fmt.Errorf("ask what images take of the disk: %w", err)
	}
	if len(r.ImageFilesystems) == 0 {
		return images, containers, fmt.Errorf("ask what images take of the disk: the runtime names no file system")
	}
	images = fileSystem(r.ImageFilesystems[0])
	containers = images
	if len(r.ContainerFilesystems) > 0 { // containerd before 2.0 doesn't know them
		containers = fileSystem(r.ContainerFilesystems[0])
	}
	return images, containers, nil
}

func fileSystem(u *runtimeapi.FilesystemUsage) FileSystem {
	if u == nil {
		return FileSystem{}
	}
	return FileSystem{
		At: time.Unix(0, u.Timestamp), Mountpoint: u.GetFsId().GetMountpoint(),
		Bytes: u.GetUsedBytes().GetValue(), Inodes: u.GetInodesUsed().GetValue(),
	}
}
