package source

import (
	"bytes"
	"errors"
	"fmt"

	yamlv3 "go.yaml.in/yaml/v3"
)

// What a document may cost in memory: a pod has some hundred elements, and no
// folder of pods comes near these.
const (
	maxDocuments = 10_000   // of one file or body
	maxElements  = 500_000  // of one document, roughly lines and commas
	maxExpanded  = 64 << 20 // bytes of one document with all its aliases written out
)

// checkSize refuses a YAML document that would take much more memory than its
// length, before anything expands it: very many tiny elements, or aliases of
// aliases.
func checkSize(doc []byte) error {
	if err := checkElements(doc); err != nil {
		return err
	}
	if !bytes.ContainsRune(doc, '*') || !bytes.ContainsRune(doc, '&') {
		return nil // without anchor or alias
	}
	var root yamlv3.Node // aliases stay references in it
	if err := yamlv3.Unmarshal(doc, &root); err != nil {
		return notYAML(doc, err)
	}
	w := weigher{known: map[*yamlv3.Node]int{}}
	_, err := w.weigh(&root)
	return err
}

func checkElements(doc []byte) error {
	if n := bytes.Count(doc, []byte("\n")) + bytes.Count(doc, []byte(",")); n > maxElements {
		return fmt.Errorf("has about %d elements, more than %d", n, maxElements)
	}
	return nil
}

// weigher sums up what a tree weighs in bytes when its aliases are written out.
type weigher struct {
	known map[*yamlv3.Node]int // anchored nodes that are summed up; -1 while under way
}

func (w weigher) weigh(n *yamlv3.Node) (int, error) {
	if n.Kind == yamlv3.AliasNode {
		return w.weigh(n.Alias)
	}
	if sum, ok := w.known[n]; ok {
		if sum < 0 {
			return 0, errors.New("has an alias to a value within itself")
		}
		return sum, nil
	}
	if n.Anchor != "" {
		w.known[n] = -1
	}
	const element = 16
	sum := element + len(n.Value)
	for _, child := range n.Content {
		weight, err := w.weigh(child)
		if err != nil {
			return 0, err
		}
		if sum += weight; sum > maxExpanded {
			return 0, fmt.Errorf("has more than %d MiB when its aliases are written out", maxExpanded>>20)
		}
	}
	if n.Anchor != "" {
		w.known[n] = sum
	}
	return sum, nil
}
