package stats

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	info "github.com/google/cadvisor/info/v1"
)

// TestFiguresOfV2: every figure comes from the file that has it.
func TestFiguresOfV2(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	main := find(t, sample(t, s, Full), KindContainer, "web")
	got := *main.Stats
	got.Timestamp = time.Time{}
	want := info.ContainerStats{OOMEvents: 2}
	want.Cpu.Usage = info.CpuUsage{Total: 2e6, User: 15e5, System: 5e5}
	want.Cpu.CFS = info.CpuCFS{Periods: 10, ThrottledPeriods: 3, ThrottledTime: 7000}
	want.Cpu.PSI = info.PSIStats{Some: info.PSIData{Avg10: 1.5, Avg60: 0.25, Total: 1234}, Full: info.PSIData{Total: 55}}
	want.Memory = info.MemoryStats{Usage: 1e6, MaxUsage: 2e6, Cache: 3e5, RSS: 6e5, Swap: 4096, MappedFile: 1000, WorkingSet: 8e5,
		TotalActiveFile: 1e5, TotalInactiveFile: 2e5, Failcnt: 4,
		ContainerData: info.MemoryStatsMemoryData{Pgfault: 77, Pgmajfault: 5}, HierarchicalData: info.MemoryStatsMemoryData{Pgfault: 77, Pgmajfault: 5},
		PSI: info.PSIStats{Some: info.PSIData{Total: 2}, Full: info.PSIData{Total: 1}}}
	want.DiskIo = info.DiskIoStats{PSI: info.PSIStats{Some: info.PSIData{Total: 4}, Full: info.PSIData{Total: 3}},
		IoServiceBytes: []info.PerDiskStats{{Major: 4095, Stats: map[string]uint64{"Read": 4096, "Write": 8192, "Discard": 0}}},
		IoServiced:     []info.PerDiskStats{{Major: 4095, Stats: map[string]uint64{"Read": 1, "Write": 2, "Discard": 0}}}}
	want.Processes = info.ProcessStats{ProcessCount: 3, ThreadsCurrent: 5, ThreadsMax: 100}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if spec := main.Spec; spec.Memory.Limit < Unlimited || spec.Memory.SwapLimit != 8192 || spec.Cpu.Quota != 50000 || spec.Cpu.Period != 100000 ||
		spec.Cpu.Limit != 2597 || spec.Processes.Limit != 100 {
		t.Errorf("limits: %+v", spec)
	}
	machine := sample(t, s, Full)[0]
	if machine.Stats.Memory.Usage != 9e5 || machine.Stats.Memory.WorkingSet != 7e5 || machine.Spec.Memory.Limit < 1<<20 {
		t.Errorf("machine: %+v %+v", machine.Stats.Memory, machine.Spec.Memory)
	}
}

// TestStill: of a cgroup in which nothing runs only what others can change is read
// again, and all once in a while.
func TestStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newV2(t)
		f.add(t, "p")
		main := func() (*info.ContainerStats, uint64) {
			time.Sleep(settled + time.Second)
			c := find(t, sample(t, s, Full), KindContainer, "p").Stats
			return c, c.DiskIo.IoServiced[0].Stats["Read"]
		}
		main()
		before, _ := main()
		f.cgroup(t, "podp/p-main", map[string]string{"memory.stat": "anon 5\n", "pids.current": "9\n", "io.stat": "4095:0 rios=77\n",
			"memory.pressure": "some avg10=3.00 avg60=0.00 avg300=0.00 total=2\n"})
		now, reads := main()
		if now.Memory.RSS != before.Memory.RSS || now.Processes.ThreadsCurrent != 5 || reads != 77 || now.Memory.PSI.Some.Avg10 != 3 || !now.Timestamp.After(before.Timestamp) {
			t.Errorf("while nothing ran: %+v, %d reads", now, reads)
		}
		f.cgroup(t, "podp/p-main", map[string]string{"memory.stat": "anon 5\n", "pids.current": "9\n", "pids.max": "50\n"})
		time.Sleep(limitsAge)
		if now, _ := main(); now.Processes.ThreadsMax != 50 || now.Memory.RSS != before.Memory.RSS {
			t.Errorf("held to less while nothing ran: %+v", now)
		}
		time.Sleep(stillAge)
		if now, _ := main(); now.Memory.RSS != 5 || now.Processes.ThreadsCurrent != 9 {
			t.Errorf("after a while: %+v", now)
		}
		main()
		f.cgroup(t, "podp/p-main", map[string]string{"cpu.stat": "usage_usec 2001\n", "memory.stat": "anon 6\n"})
		if now, _ := main(); now.Memory.RSS != 6 || now.Processes.ThreadsCurrent != 5 {
			t.Errorf("when something ran: %+v", now)
		}
		f.cgroup(t, "podp/p-main", map[string]string{"cpu.stat": "usage_usec 2001\n", "memory.stat": "anon 7\n"})
		if now, _ := main(); now.Memory.RSS != 7 {
			t.Errorf("just after something ran: %+v", now)
		}
	})
}

// TestPodThatDoesNotAnswerIsToldFromBefore: one cgroup that hangs holds up
// nobody, and its pod is there with the time of its last sample.
func TestPodThatDoesNotAnswerIsToldFromBefore(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "stuck")
	f.add(t, "well")
	first := s.round(Usage)
	free := f.hang(t, "podstuck/stuck-main/memory.stat")
	began := time.Now()
	for range 2 { // the second doesn't wait: it knows
		second := s.round(Usage)
		was, is := find(t, first, KindContainer, "stuck"), find(t, second, KindContainer, "stuck")
		if !is.Stats.Timestamp.Equal(was.Stats.Timestamp) {
			t.Errorf("sampled at %v, want %v as before", is.Stats.Timestamp, was.Stats.Timestamp)
		}
		if well := find(t, second, KindContainer, "well"); !well.Stats.Timestamp.After(was.Stats.Timestamp) {
			t.Error("the other pod is not sampled anew")
		}
	}
	if took := time.Since(began); took > 2*patience {
		t.Errorf("two rounds took %v", took)
	}
	free()
	again := find(t, first, KindContainer, "stuck").Stats.Timestamp
	for deadline := time.Now().Add(30 * time.Second); !find(t, s.round(Usage), KindContainer, "stuck").Stats.Timestamp.After(again); {
		if time.Now().After(deadline) {
			t.Fatal("it is not sampled again once it answers")
		}
	}
}

// TestContainerThatCannotBeReadIsToldFromBefore, while its pod goes on.
func TestContainerThatCannotBeReadIsToldFromBefore(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	first := s.round(Usage)
	f.cgroup(t, "podweb/web-main", map[string]string{"memory.current": "much\n"})
	second := s.round(Usage)
	if was, is := find(t, first, KindContainer, "web"), find(t, second, KindContainer, "web"); !is.Stats.Timestamp.Equal(was.Stats.Timestamp) {
		t.Error("a sample that could not be read counts as new")
	}
	if was, is := find(t, first, KindPod, "web"), find(t, second, KindPod, "web"); !is.Stats.Timestamp.After(was.Stats.Timestamp) {
		t.Error("the pod's own sample is old")
	}
}

// TestContainerThatIsGoneIsNotTold, although it was well before.
func TestContainerThatIsGoneIsNotTold(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	s.round(Usage)
	if err := os.Rename(filepath.Join(f.dir, "podweb/web-main"), filepath.Join(f.dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	for _, c := range s.round(Usage) {
		if c.Kind == KindContainer {
			t.Errorf("still told: %+v", c)
		}
	}
}

// TestThoseWhoAskTogetherAreGivenTheSame sample, and the next one later another.
func TestThoseWhoAskTogetherAreGivenTheSame(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	first, second := sample(t, s, Full), sample(t, s, Usage)
	if &first[0] != &second[0] {
		t.Error("read twice within a second")
	}
	s.newest[Full].at = time.Now().Add(-shared)
	if third := sample(t, s, Usage); third[0].Stats.Timestamp.Equal(first[0].Stats.Timestamp) {
		t.Error("a sample of a second ago was given")
	}
}

// TestRates: over which time a rate is taken.
func TestRates(t *testing.T) {
	type look struct {
		at    time.Duration // since the first
		usage time.Duration
		want  int64 // 1e-9 cores, -1 for none
	}
	for name, looks := range map[string][]look{
		"none at first":             {{0, time.Second, -1}},
		"since the one before":      {{0, 0, -1}, {10 * time.Second, 5 * time.Second, 5e8}, {20 * time.Second, 15 * time.Second, 1e9}},
		"not over a short time":     {{0, 0, -1}, {10 * time.Second, 10 * time.Second, 1e9}, {11 * time.Second, 11 * time.Second, 1e9}, {12 * time.Second, 18 * time.Second, 15e8}},
		"over a short one at first": {{0, 0, -1}, {time.Second, time.Second, 1e9}},
		"of two who ask in turns":   {{0, 0, -1}, {9 * time.Second, 0, 0}, {10 * time.Second, 0, 0}, {19 * time.Second, 5 * time.Second, 5e8}, {20 * time.Second, 11 * time.Second, 1e9}},
		"not of another container":  {{0, time.Minute, -1}, {10 * time.Second, time.Second, -1}, {20 * time.Second, 2 * time.Second, 1e8}},
		"not over more than 10 min": {{0, 0, -1}, {11 * time.Minute, time.Second, -1}},
	} {
		var r rate
		start := time.Unix(1e9, 0)
		for i, l := range looks {
			r = r.next(point{start.Add(l.at), uint64(l.usage)})
			got := int64(-1)
			if r.nanoCores != nil {
				got = int64(*r.nanoCores)
			}
			if got != l.want {
				t.Errorf("%s: look %d: got %d, want %d", name, i, got, l.want)
			}
		}
	}
}

// TestInterfaces: the pod's own are told, as the kernel counts them.
func TestInterfaces(t *testing.T) {
	table := []byte(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1000 11 2 3 0 0 0 0 2000 22 4 5 0 0 0 0
veth12:   1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
  net1:5 6 7 8 0 0 0 0 9 10 11 12 0 0 0 0
`)
	got := interfaces(table).Interfaces
	want := []info.InterfaceStats{
		{Name: "eth0", RxBytes: 1000, RxPackets: 11, RxErrors: 2, RxDropped: 3, TxBytes: 2000, TxPackets: 22, TxErrors: 4, TxDropped: 5},
		{Name: "net1", RxBytes: 5, RxPackets: 6, RxErrors: 7, RxDropped: 8, TxBytes: 9, TxPackets: 10, TxErrors: 11, TxDropped: 12},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestLongFileIsReadWhole: of a container with very many processes.
func TestLongFileIsReadWhole(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	f.cgroup(t, "podweb/web-main", map[string]string{"cgroup.procs": longList(50000)})
	if got := find(t, s.round(Usage), KindContainer, "web").Stats.Processes.ProcessCount; got != 50000 {
		t.Errorf("%d processes, want 50000", got)
	}
}

func longList(n int) string {
	list := make([]byte, 0, 8*n)
	for range n {
		list = append(list, "9999999\n"...)
	}
	return string(list)
}

// TestWhatIsOnDisk: one whose answer might never come is not asked.
func TestWhatIsOnDisk(t *testing.T) {
	for line, want := range map[string][3]string{
		`36 35 8:1 / / rw,noatime master:1 - ext4 /dev/root rw`:                {"8:1", "/", "/dev/root"},
		`36 35 8:17 /a /mnt\040x rw shared:1 master:2 - xfs /dev/disk\040b rw`: {"8:17", "/mnt x", "/dev/disk b"},
		`96 27 0:62 / /mnt rw,relatime - fuse /dev/fuse rw,user_id=0`:          {},
		`96 27 0:62 / /mnt rw,relatime - fuse.s3fs /dev/fuse rw,user_id=0`:     {},
		`96 27 8:33 / /mnt rw,relatime - fuseblk /dev/sdc1 rw,user_id=0`:       {},
		`30 27 0:26 / /dev/shm rw,nosuid - tmpfs tmpfs rw`:                     {},
		`30 27 0:26 / /mnt rw`: {},
		``:                     {},
	} {
		if number, place, device := onDisk(line); want != [3]string{number, place, device} {
			t.Errorf("%q: %q %q %q, want %q", line, number, place, device, want)
		}
	}
}

// TestThoseWhoAskForMoreWait for a round that is under way, and are not given
// what it has not read.
func TestThoseWhoAskForMoreWait(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "stuck")
	f.add(t, "well")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one reader, which hangs
	free := f.hang(t, "podstuck/stuck-main/memory.stat")
	less := make(chan error, 1)
	go func() {
		_, err := s.Sample(t.Context(), Usage)
		less <- err
	}()
	for reading := false; !reading; runtime.Gosched() {
		s.mu.Lock()
		reading = len(s.units) > 0
		s.mu.Unlock()
	}
	time.AfterFunc(patience/4, free)
	for _, name := range []string{"stuck", "well"} {
		if c := find(t, sample(t, s, Full), KindContainer, name); c.Stats.Memory.MaxUsage != 2e6 {
			t.Errorf("%s is told without what only a full sample has: %+v", name, c.Stats.Memory)
		}
	}
	if err := <-less; err != nil {
		t.Error(err)
	}
}

// TestReadersThatHangHoldUpNobodyElse: what none of them came to is read by the
// next round.
func TestReadersThatHangHoldUpNobodyElse(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "stuck")
	f.add(t, "well")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f.hang(t, "podstuck/stuck-main/memory.stat")
	s.round(Usage)
	find(t, s.round(Usage), KindContainer, "well")
}
