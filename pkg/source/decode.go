package source

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/manifest"
	"github.com/nodeagent/nodeagent/pkg/objects"
)

// maxManifest is the size in bytes of the largest file or body that is read
// (behaviour row 1.1-1).
const maxManifest = 10 << 20

// decode turns the text of one origin into pods of this node. A document that
// can't be used costs only itself.
func (p place) decode(data []byte) contents {
	var c contents
	docs, errs := documents(data)
	for _, doc := range docs {
		p.document(doc, &c)
	}
	if len(docs) == 0 && len(errs) == 0 {
		errs = []error{errNothing}
	}
	for _, err := range errs {
		c.add(Problem{Origin: p.origin, Message: err.Error()})
	}
	return c
}

// documents gives the JSON of every document that isn't blank, and an error for
// each that can't be read.
func documents(data []byte) (docs [][]byte, errs []error) {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		if err := checkElements(trimmed); err != nil {
			return nil, []error{err}
		}
		return [][]byte{trimmed}, nil
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, errs
		}
		if err != nil {
			return docs, append(errs, fmt.Errorf("document %d: %w", n, err))
		}
		if n > maxDocuments {
			return docs, append(errs, fmt.Errorf("has more than %d documents", maxDocuments))
		}
		asJSON, err := toJSON(doc)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("document %d: %w", n, err))
		case !bytes.Equal(asJSON, []byte("null")):
			docs = append(docs, asJSON)
		}
	}
}

var (
	// lineOf finds where in a document the YAML ends to be valid.
	lineOf = regexp.MustCompile(`line \d+`)
	// secretive is found in a document that may be a Secret.
	secretive = regexp.MustCompile(`kind["']?\s*:\s*["']?Secret|stringData`)
)

// notYAML says what is wrong with a document; where it may hold a secret, only
// in which line: the parser's words quote what they are about.
func notYAML(doc []byte, err error) error {
	says := strings.Join(strings.Fields(err.Error()), " ")
	if secretive.Match(doc) {
		says = strings.TrimSpace(lineOf.FindString(says) + " (what is not shown, as it may hold a secret)")
	}
	return fmt.Errorf("not valid YAML: %s", says)
}

// toJSON converts one YAML document within bounds, refusing keys that are given
// twice.
func toJSON(doc []byte) ([]byte, error) {
	if err := checkSize(doc); err != nil {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, notYAML(doc, err)
	}
	return asJSON, nil
}

// document takes in one Pod, PodList or List.
func (p place) document(doc []byte, c *contents) {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(doc, &kind); err != nil {
		p.refuse(c, "", &field.Error{Field: "", Detail: "not an object of Kubernetes: " + err.Error()})
		return
	}
	switch {
	case kind.APIVersion == "" || kind.Kind == "":
		p.refuse(c, "", &field.Error{Field: "apiVersion, kind", Detail: `both must be given, as in "apiVersion: v1" and "kind: Pod"`})
	case kind.APIVersion == "v1" && kind.Kind == "Pod":
		p.pod(doc, "", c)
	case kind.APIVersion == "v1" && (kind.Kind == "PodList" || kind.Kind == "List"):
		p.list(doc, kind.Kind, c)
	case p.isObject(kind):
		p.object(doc, kind, "", c)
	default:
		p.otherKind(doc, kind, "kind", c)
	}
}

// otherKind refuses what is no pod. A kind that belongs beside pods keeps none
// of them; any other may be a pod in disguise, say with an error in its kind.
func (p place) otherKind(doc []byte, kind metav1.TypeMeta, path string, c *contents) {
	c.add(Problem{Origin: p.origin, Pod: nameIn(doc), Field: path,
		Message: fmt.Sprintf("%q of %q is not taken from here: only Pod, PodList and List of v1, and without an apiserver ConfigMap, Secret and RuntimeClass", kind.Kind, kind.APIVersion),
		beside:  kind.APIVersion == "v1" && (kind.Kind == objects.ConfigMap || kind.Kind == objects.Secret)})
}

// list takes in the pods of a PodList, or of a List that may hold other things.
func (p place) list(doc []byte, kind string, c *contents) {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if !p.strictly(doc, &list, "", "", c) {
		return
	}
	for i, item := range list.Items {
		path := fmt.Sprintf("items[%d]", i)
		var meta metav1.TypeMeta
		if err := json.Unmarshal(item, &meta); err != nil {
			p.refuse(c, "", &field.Error{Field: path, Detail: "not an object of Kubernetes: " + err.Error()})
			continue
		}
		if kind == "PodList" && meta == (metav1.TypeMeta{}) || meta.APIVersion == "v1" && meta.Kind == "Pod" {
			p.pod(item, path+".", c)
			continue
		}
		if p.isObject(meta) {
			p.object(item, meta, path+".", c)
			continue
		}
		p.otherKind(item, meta, path+".kind", c)
	}
}

// pod decodes one pod, makes it this node's, applies defaults and validates.
func (p place) pod(doc []byte, prefix string, c *contents) {
	pod := &v1.Pod{}
	if !p.strictly(doc, pod, nameIn(doc), prefix, c) {
		return
	}
	if pod.Name == "" {
		p.refuse(c, "", &field.Error{Field: prefix + "metadata.name", Detail: "a pod must have a name"})
		return
	}
	if err := p.identify(pod); err != nil {
		p.refuse(c, nameIn(doc), &field.Error{Field: prefix, Detail: err.Error()})
		return
	}
	manifest.Default(pod)
	name := pod.Namespace + "/" + pod.Name
	errs := manifest.Validate(pod, p.joined)
	// Some come in the order of a map, and the same problems must be equal.
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Error(), b.Error()) })
	for _, err := range errs {
		c.add(Problem{Origin: p.origin, Pod: name, Field: prefix + err.Field,
			Reason: FailedValidation, Message: err.ErrorBody()})
	}
	if len(errs) == 0 {
		c.pods = append(c.pods, Desired{Pod: pod, Origin: p.origin})
	}
}

// strictly decodes into v, and says false after having noted each unknown,
// duplicate or wrongly typed field. Names of fields are matched with their case,
// as an apiserver does.
func (p place) strictly(doc []byte, v any, name, prefix string, c *contents) bool {
	strict, err := kjson.UnmarshalStrict(doc, v)
	if err != nil {
		path := locate(doc, func(doc []byte) error {
			_, err := kjson.UnmarshalStrict(doc, reflect.New(reflect.TypeOf(v).Elem()).Interface())
			return err
		})
		p.refuse(c, name, &field.Error{Field: prefix + path, Detail: strings.TrimPrefix(err.Error(), "json: ")})
		return false
	}
	for _, err := range strict {
		path := ""
		if at, ok := err.(kjson.FieldError); ok { //nolint:errorlint // it is what the decoder lists, unwrapped
			path = at.FieldPath()
		}
		p.refuse(c, name, &field.Error{Field: prefix + path, Detail: err.Error()})
	}
	return len(strict) == 0
}

func (p place) refuse(c *contents, name string, err *field.Error) {
	c.add(Problem{Origin: p.origin, Pod: name, Field: err.Field, Message: err.Detail})
}

// nameIn says how an object that may be broken calls itself, for messages.
func nameIn(doc []byte) string {
	var named struct {
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(doc, &named); err != nil || named.Metadata.Name == "" {
		return "" // the problem at hand is reported without the name
	}
	if named.Metadata.Namespace == "" {
		return metav1.NamespaceDefault + "/" + named.Metadata.Name
	}
	return named.Metadata.Namespace + "/" + named.Metadata.Name
}
