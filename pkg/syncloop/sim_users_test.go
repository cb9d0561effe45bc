package syncloop

import (
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// users: a pod with a user namespace of its own acts with the range that stands
// on the disk, and no pod that still has a sandbox up has an ID of it.
func (k *checks) users(p *v1.Pod, ids pod.IDs) {
	disk := k.world.disk
	switch {
	case !pod.OwnUsers(p) && ids != (pod.IDs{}):
		k.world.violated("%s has user IDs %v, and did not ask for any", p.UID, ids)
	case pod.OwnUsers(p) && (ids == (pod.IDs{}) || disk.users[p.UID] != ids):
		k.world.violated("%s acts with user IDs %v, on disk are %v", p.UID, ids, disk.users[p.UID])
	}
	for _, s := range k.world.runtime.sandboxes {
		if other := s.pod.UID; s.Ready && other != p.UID && disk.users[other].Overlaps(ids) {
			k.world.violated("%s acts with user IDs %v, which %s has", p.UID, ids, other)
		}
	}
}
