package source

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// What the search for the field at fault may cost.
const (
	maxLocate  = 64 << 10 // bytes of the document
	maxDecodes = 500
)

// locate finds the field that a document can't be decoded for, as decoders of
// single values don't name it: the deepest one without which decode succeeds.
// It gives "" when there is none, or the document is too large to search.
func locate(doc []byte, decode func([]byte) error) string {
	var root any
	if len(doc) > maxLocate || json.Unmarshal(doc, &root) != nil {
		return ""
	}
	decodes := 0
	// heals says whether the document as it stands now can be decoded.
	heals := func() bool {
		decodes++
		text, err := json.Marshal(root)
		return decodes <= maxDecodes && err == nil && decode(text) == nil
	}
	path := ""
	for node := root; node != nil; {
		step, child := culprit(node, heals)
		if step == "" {
			break
		}
		if path == "" && step[0] == '.' {
			step = step[1:]
		}
		path += step
		node = child
	}
	return path
}

// culprit finds the child of a map or list that can be left out to heal the
// document.
func culprit(node any, heals func() bool) (step string, child any) {
	switch node := node.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			child := node[key]
			node[key] = nil
			healed := heals()
			node[key] = child
			if healed {
				return "." + key, child
			}
		}
	case []any:
		for i, child := range node {
			node[i] = nil
			healed := heals()
			node[i] = child
			if healed {
				return fmt.Sprintf("[%d]", i), child
			}
		}
	}
	return "", nil
}
