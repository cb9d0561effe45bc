//go:build pprof

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// With the build tag pprof, the agent writes CPU and heap profiles, every
// minute, into the folder that NODEAGENT_PPROF names.
func init() {
	dir := os.Getenv("NODEAGENT_PPROF")
	if dir == "" {
		return
	}
	go func() {
		for {
			stamp := time.Now().Format("150405")
			cpu, err := os.Create(filepath.Join(dir, stamp+".cpu"))
			if err != nil {
				panic(err)
			}
			if err := pprof.StartCPUProfile(cpu); err != nil {
				panic(err)
			}
			time.Sleep(10 * time.Second)
			pprof.StopCPUProfile()
			_ = cpu.Close()
			runtime.GC()
			heap, err := os.Create(filepath.Join(dir, stamp+".heap"))
			if err != nil {
				panic(err)
			}
			_ = pprof.Lookup("heap").WriteTo(heap, 0)
			_ = heap.Close()
			allocs, err := os.Create(filepath.Join(dir, stamp+".allocs"))
			if err != nil {
				panic(err)
			}
			_ = pprof.Lookup("allocs").WriteTo(allocs, 0)
			_ = allocs.Close()
		}
	}()
}
