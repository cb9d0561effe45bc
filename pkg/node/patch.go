package node

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// patch is what makes the one Node the other, in status, labels and
// annotations. It names the UID, so that it cannot reach another Node of that
// name, and only what changed: fields of a newer apiserver survive.
func patch(from, to *v1.Node) ([]byte, error) {
	from, to = from.DeepCopy(), to.DeepCopy()
	to.Spec = from.Spec
	// The API says that addresses are merged by type, but there may be two of one
	// type: they are replaced as a whole.
	var replaced []any
	if !equality.Semantic.DeepEqual(from.Status.Addresses, to.Status.Addresses) {
		replaced = append(replaced, map[string]any{"$patch": "replace"})
		for _, a := range to.Status.Addresses {
			replaced = append(replaced, a)
		}
	}
	to.Status.Addresses = from.Status.Addresses
	before, err := json.Marshal(from)
	if err != nil {
		return nil, fmt.Errorf("encode node %s as it was seen: %w", from.Name, err)
	}
	after, err := json.Marshal(to)
	if err != nil {
		return nil, fmt.Errorf("encode node %s: %w", to.Name, err)
	}
	two, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compare node %s with what was seen: %w", to.Name, err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(two, &out); err != nil {
		return nil, fmt.Errorf("read the patch of node %s: %w", to.Name, err)
	}
	within(out, "metadata")["uid"] = from.UID
	if replaced != nil {
		within(out, "status")["addresses"] = replaced
	}
	return json.Marshal(out)
}

// within is the object of that name in m, made if there is none.
func within(m map[string]any, name string) map[string]any {
	inner, ok := m[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		m[name] = inner
	}
	return inner
}
