package e2e

import (
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestContainerd16 is the oldest runtime that is supported. It has no events:
// what happens in it is found by looking at it.
func TestContainerd16(t *testing.T) {
	b := newBed(t, lab.Containerd16)
	b.start()
	b.share(map[string]func(*bed){
		"Runs":                    runs,
		"ChangedFileReplacesPod":  changedFileReplacesPod,
		"Crashes":                 func(b *bed) { crashRestarts(b) },
		"InitsAndSidecarsInOrder": initsAndSidecarsInOrder,
		"OnFailureJobSucceeds":    onFailureJobSucceeds,
		"KillAfterGrace":          killAfterGrace,
		"TerminationMessage":      terminationMessage,
		"LogsAreNumbered":         logsAreNumbered,
		"Hooks":                   hooks,
		"ResizeCPU":               resizeCPU,
		"ResizeMemory":            resizeMemory,
		"ResizeBelowUsage":        resizeBelowUsage,
	})
}
