package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	v1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/dns"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// CheckHost says what of the machine itself keeps the agent from starting, and
// what to do (behaviour rows 1.15-15, 1.15-17).
func CheckHost(c *config.Config) error {
	var errs []error
	if *c.Kubelet.FailSwapOn {
		if n, err := swaps("/proc/swaps"); err == nil && n > 0 {
			errs = append(errs, errors.New("swap is on and failSwapOn is true: run swapoff -a, or set failSwapOn: false"))
		}
	}
	facts, err := cgroups.Check()
	if err != nil {
		errs = append(errs, err)
	} else if facts.Version != "v2" && *c.Kubelet.FailCgroupV1 {
		errs = append(errs, errors.New("this machine has cgroup v1 and failCgroupV1 is true: boot with cgroup v2, or set failCgroupV1: false"))
	}
	return errors.Join(errs...)
}

// swaps counts the swap areas in use.
func swaps(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if strings.HasPrefix(s.Text(), "/") {
			n++
		}
	}
	return n, s.Err()
}

// adjustOOMScore makes the kernel spare the agent (behaviour row 1.15-13).
// Without the right to do so it goes on: that costs safety, not function.
func adjustOOMScore(c *config.Config, log *slog.Logger) {
	score := strconv.Itoa(int(*c.Kubelet.OOMScoreAdj))
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
		log.Warn("the kernel may kill the agent when memory runs out: its oom_score_adj was not lowered", "wanted", score, "error", err)
	}
}

// relay is this program as the process that reads the runtime's events. The
// kernel's link to it holds also when an upgrade has replaced or removed the file.
func relay(endpoint string) []string { return []string{"/proc/self/exe", RelayCommand, endpoint} }

// RelayCommand is the subcommand that the agent starts for itself; it is not
// for people.
const RelayCommand = "relay-events"

func runtimeOptions(c *config.Config, root string, m machine, t *tree) cri.Options {
	k := &c.Kubelet
	parallel := 1
	if !*k.SerializeImagePulls {
		parallel = -1
	}
	if k.MaxParallelImagePulls != nil {
		parallel = int(*k.MaxParallelImagePulls)
	}
	return cri.Options{
		Relay:    relay(k.ContainerRuntimeEndpoint),
		Endpoint: k.ContainerRuntimeEndpoint, ImageEndpoint: k.ImageServiceEndpoint,
		RequestTimeout: k.RuntimeRequestTimeout.Duration,
		Images:         cri.ImageOptions{MaxParallel: parallel, QPS: float64(*k.RegistryPullQPS), Burst: int(k.RegistryBurst)},
		Pods: cri.PodOptions{
			RootDir: root, LogsDir: k.PodLogsDir, ClusterDomain: k.ClusterDomain,
			CgroupParent:   t.Parent,
			SeccompDefault: *k.SeccompDefault, CPUCFSQuota: *k.CPUCFSQuota, CPUCFSQuotaPeriod: k.CPUCFSQuotaPeriod.Duration,
			LimitedSwap: k.MemorySwap.SwapBehavior == "LimitedSwap", SwapCapacity: m.swap,
			MemoryCapacity:       quantity(m.capacity, v1.ResourceMemory),
			SingleProcessOOMKill: ptr.Deref(k.SingleProcessOOMKill, false),
		},
	}
}

// resolver is the node's share in its pods' resolver settings. What is wrong
// with it is told once, here (behaviour row 1.8-7).
func resolver(k *kubeletv1beta1.KubeletConfiguration, ips []string, log *slog.Logger) dns.Settings {
	s := dns.Settings{ClusterDNS: k.ClusterDNS, ClusterDomain: k.ClusterDomain, ResolvConf: *k.ResolverConfig, NodeIPs: ips}
	if err := s.Check(); err != nil {
		log.Warn("the host's resolver settings do not suit pods", "error", err)
	}
	return s
}

// userRanges are the ranges of user IDs that pods can have (behaviour row
// 1.9-9), and those that they have already.
func userRanges(k *kubeletv1beta1.KubeletConfiguration, vols *volumes.Volumes, pods int64, log *slog.Logger) (ledger.Users, error) {
	length := uint32(65536)
	if u := k.UserNamespaces; u != nil && u.IDsPerPod != nil {
		length = uint32(*u.IDsPerPod) // validated
	}
	ids, err := node.PodUsers(length, int(pods))
	if err != nil {
		return ledger.Users{}, fmt.Errorf("find user IDs for pods (userNamespaces): %w", err)
	}
	held, err := vols.Users()
	if err != nil {
		log.Warn("pods whose range of user IDs cannot be read get another one", "error", err)
	}
	return ledger.Users{First: uint32(ids.First), Length: length, Count: int(ids.Total / uint64(length)), Held: held}, nil
}

// notify tells systemd that the agent is up, and that it is still alive as
// often as the unit's watchdog asks, unless it hangs (behaviour row 1.24-8).
func notify(ctx context.Context, log *slog.Logger, hung func(time.Time) time.Duration) error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd was not told that the agent is up", "error", err)
	}
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil || period == 0 {
		return nil
	}
	t := time.NewTicker(period / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			if d := hung(now); d > patience {
				log.Error("not telling systemd's watchdog that the agent is alive: the loop over all pods hangs", "for", d)
				continue
			}
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				log.Warn("systemd's watchdog was not told that the agent is alive", "error", err)
			}
		}
	}
}
