package node

import (
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"strings"
)

// Users are the user IDs that pods' own user namespaces may have.
type Users struct{ First, Total uint64 }

// kubeletUser is he whose subordinate IDs pods get, if the machine knows him.
const kubeletUser = "kubelet"

// PodUsers are the IDs that getsubids grants the user kubelet. Without that user
// or that program they are all but the first perPod, which are the machine's own.
// perPod is how many a pod gets, maxPods how many pods must find room (behaviour
// row 1.9-9).
func PodUsers(perPod uint32, maxPods int) (Users, error) {
	all := Users{First: uint64(perPod), Total: 1<<32 - uint64(perPod)}
	var unknown user.UnknownUserError
	if _, err := user.Lookup(kubeletUser); errors.As(err, &unknown) {
		return all, nil
	} else if err != nil {
		return Users{}, fmt.Errorf("look for user %s: %w", kubeletUser, err)
	}
	program, err := exec.LookPath("getsubids")
	if errors.Is(err, exec.ErrNotFound) {
		return all, nil
	}
	if err != nil {
		return Users{}, fmt.Errorf("look for getsubids: %w", err)
	}
	uids, err := exec.Command(program, kubeletUser).Output()
	if err != nil {
		return Users{}, fmt.Errorf("ask getsubids for the user IDs of %s: %w", kubeletUser, err)
	}
	gids, err := exec.Command(program, "-g", kubeletUser).Output()
	if err != nil {
		return Users{}, fmt.Errorf("ask getsubids for the group IDs of %s: %w", kubeletUser, err)
	}
	if string(uids) != string(gids) {
		return Users{}, fmt.Errorf("the subordinate user and group IDs of %s differ: make /etc/subuid and /etc/subgid the same", kubeletUser)
	}
	return parseSubIDs(string(uids), perPod, maxPods)
}

// parseSubIDs reads the one line of getsubids, as in "0: kubelet 65536 7208960".
func parseSubIDs(text string, perPod uint32, maxPods int) (Users, error) {
	text = strings.TrimSpace(text)
	var n int
	var name string
	var first, total uint32
	if _, err := fmt.Sscanf(text, "%d: %s %d %d", &n, &name, &first, &total); err != nil || strings.Contains(text, "\n") {
		return Users{}, fmt.Errorf("getsubids says %q of %s: want one range", text, kubeletUser)
	}
	length := uint64(perPod)
	switch u := (Users{uint64(first), uint64(total)}); {
	case u.First < length || u.First%length != 0 || u.Total%length != 0:
		return u, fmt.Errorf("the subordinate IDs of %s are %d from %d on: both must be multiples of %d", kubeletUser, u.Total, u.First, length)
	case u.Total/length < uint64(maxPods):
		return u, fmt.Errorf("the subordinate IDs of %s are enough for %d pods, maxPods is %d", kubeletUser, u.Total/length, maxPods)
	default:
		return u, nil
	}
}
