package volumes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/record"
)

// The range of user IDs of a pod's own user namespace stands in the pod's
// folder, in the kubelet's format, so that each finds what the other granted
// (behaviour row 1.9-9).
const usersFile = "userns"

type usersContent struct {
	UIDs []usersMapping `json:"uidMappings"`
	GIDs []usersMapping `json:"gidMappings"`
}

type usersMapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

// KeepUsers writes the pod's range, whole or not at all. It is on disk when
// KeepUsers returns.
func (v *Volumes) KeepUsers(uid types.UID, ids pod.IDs) error {
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("write the range of user IDs of pod: %w", err)
	}
	m := []usersMapping{{HostID: ids.First, Length: ids.Length}}
	content, err := json.Marshal(usersContent{UIDs: m, GIDs: m})
	if err != nil {
		return fmt.Errorf("write the range of user IDs of pod %s: %w", uid, err)
	}
	dir := filepath.Join(v.pods, string(uid))
	if old, err := os.ReadFile(filepath.Join(dir, usersFile)); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("write the range of user IDs of pod %s: %w", uid, err)
	}
	if err := record.Replace(dir, usersFile, content); err != nil {
		return fmt.Errorf("write the range of user IDs of pod %s: %w", uid, err)
	}
	return nil
}

// DropUsers removes what KeepUsers wrote; what is gone is no error.
func (v *Volumes) DropUsers(uid types.UID) error {
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("remove the range of user IDs of pod: %w", err)
	}
	err := os.Remove(filepath.Join(v.pods, string(uid), usersFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the range of user IDs of pod %s: %w", uid, err)
	}
	return nil
}

// Users are the ranges that pods have, as an earlier process or a kubelet wrote
// them. The error names those that cannot be read; the others are returned.
func (v *Volumes) Users() (map[types.UID]pod.IDs, error) {
	uids, err := v.PodDirs()
	if err != nil {
		return nil, err
	}
	out := map[types.UID]pod.IDs{}
	var errs []error
	for _, uid := range uids {
		path := filepath.Join(v.pods, string(uid), usersFile)
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			out[uid], err = parseUsers(content)
		}
		if err != nil {
			delete(out, uid)
			errs = append(errs, fmt.Errorf("read %s: %w", path, err))
		}
	}
	return out, errors.Join(errs...)
}

// parseUsers takes what the kubelet writes: one range, the same for users and
// groups, that shows as 0 and up.
func parseUsers(content []byte) (pod.IDs, error) {
	var c usersContent
	if err := json.Unmarshal(content, &c); err != nil {
		return pod.IDs{}, err
	}
	if len(c.UIDs) != 1 || len(c.GIDs) != 1 || c.UIDs[0] != c.GIDs[0] {
		return pod.IDs{}, errors.New("want one mapping, the same of uids and gids")
	}
	m := c.UIDs[0]
	switch {
	case m.ContainerID != 0:
		return pod.IDs{}, fmt.Errorf("the mapping begins at containerId %d, want 0", m.ContainerID)
	case m.HostID == 0 || m.Length == 0 || uint64(m.HostID)+uint64(m.Length) > 1<<32:
		return pod.IDs{}, fmt.Errorf("no range of a pod: hostId %d, length %d", m.HostID, m.Length)
	}
	return pod.IDs{First: m.HostID, Length: m.Length}, nil
}
