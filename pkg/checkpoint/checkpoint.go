// Package checkpoint keeps the files in which the kubelet notes what pods were
// granted and given, allocated_pods_state and actuated_pods_state, so that each
// can take pods over from the other with the resources that they have (behaviour
// row 1.3-35). A grant is in the file before it is in the pod's record and before
// it is acted upon; where the two differ, the file was written later.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/dump"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The files' names in the agent's root.
const (
	Allocated = "allocated_pods_state"
	Actuated  = "actuated_pods_state"
)

// ErrCorrupt says that a file is no checkpoint, or was altered.
var ErrCorrupt = errors.New("not a whole checkpoint")

// Pods are the resources of pods by UID.
type Pods map[types.UID]pod.Resources

// entry is a pod in the file.
type entry struct {
	ContainerResources map[string]v1.ResourceRequirements
	PodLevelResources  *v1.ResourceRequirements
}

type contents struct {
	Entries map[types.UID]entry `json:"entries,omitempty"`
}

// file is the outer form: the contents as text, and their checksum.
type file struct {
	Data     string `json:"data"`
	Checksum uint64 `json:"checksum"`
}

func checksum(data string) uint64 {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%v", dump.ForHash(data)) // a hash takes all writes
	return uint64(h.Sum32())
}

// Encode is the file for the pods; alike pods give alike bytes.
func Encode(pods Pods) ([]byte, error) {
	c := contents{Entries: map[types.UID]entry{}}
	for uid, r := range pods {
		c.Entries[uid] = entry{ContainerResources: r.Containers, PodLevelResources: r.Pod}
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return json.Marshal(file{Data: string(data), Checksum: checksum(string(data))})
}

// Decode is the inverse of Encode.
func Decode(text []byte) (Pods, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if sum := checksum(f.Data); sum != f.Checksum {
		return nil, fmt.Errorf("%w: its checksum is %d, it says %d", ErrCorrupt, sum, f.Checksum)
	}
	var c contents
	if err := json.Unmarshal([]byte(f.Data), &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	pods := Pods{}
	for uid, e := range c.Entries {
		pods[uid] = pod.Resources{Containers: e.ContainerResources, Pod: e.PodLevelResources}
	}
	return pods, nil
}

// maxSize is far above what a full node's pods need.
const maxSize = 64 << 20

// Read returns the pods of a file in the root; none if there is no file. One
// that cannot be read is set aside as <name>.corrupt, and the error says so: the
// kubelet would not start with it.
func Read(root, name string) (Pods, error) {
	path := filepath.Join(root, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	var text []byte
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		err = fmt.Errorf("%w: %s of %d bytes", ErrCorrupt, info.Mode(), info.Size())
	} else {
		text, err = os.ReadFile(path)
	}
	var pods Pods
	if err == nil {
		pods, err = Decode(text)
	}
	if err == nil {
		return pods, nil
	}
	aside := path + ".corrupt"
	if moved := os.Rename(path, aside); moved != nil {
		return nil, fmt.Errorf("read checkpoint: %w; it could not be set aside: %w", err, moved)
	}
	return nil, fmt.Errorf("read checkpoint: %w; it is now %s", err, aside)
}

// Files are the two files in a root. One caller at a time.
type Files struct {
	root string
	last map[string]string
}

// New writes nothing yet.
func New(root string) *Files { return &Files{root: root, last: map[string]string{}} }

// Write replaces what changed of the two files; when it returns nil they have
// reached the disk.
func (f *Files) Write(allocated, actuated map[types.UID]pod.Resources) error {
	return errors.Join(f.write(Allocated, allocated), f.write(Actuated, actuated))
}

func (f *Files) write(name string, pods Pods) error {
	text, err := Encode(pods)
	if err == nil && f.last[name] != string(text) {
		err = replace(f.root, name, text)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint %s: %w", name, err)
	}
	f.last[name] = string(text)
	return nil
}

// replace puts all of the text at the name, or nothing. A temporary file that a
// kill left behind is written over.
func replace(root, name string, text []byte) error {
	temporary := filepath.Join(root, "."+name+".tmp")
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(root, name)); err != nil {
		return err
	}
	d, err := os.Open(root)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
