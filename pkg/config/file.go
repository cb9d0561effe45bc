package config

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	apiVersion = "kubelet.config.k8s.io/v1beta1"
	kind       = "KubeletConfiguration"
	dropInExt  = ".conf"
)

// pathFields may be relative in the file of --config; they count from its folder.
var pathFields = []string{
	"staticPodPath", "authentication.x509.clientCAFile", "tlsCertFile",
	"tlsPrivateKeyFile", "resolvConf", "volumePluginDir", "podLogsDir",
}

// layers is what the files and the defaults say, before the flags.
type layers struct {
	kubelet *kubeletv1beta1.KubeletConfiguration
	// untouched is what kubelet would be had the operator set nothing.
	untouched *kubeletv1beta1.KubeletConfiguration
}

// loadFiles reads the config file and the drop-in folder, each optional, and
// fills in the defaults. The defaults come last, so that a drop-in may set null
// to return to one.
func loadFiles(file, dir string) (layers, error) {
	tree, untouched := map[string]any{}, &kubeletv1beta1.KubeletConfiguration{}
	if file != "" {
		var err error
		if tree, err = readFile(file); err != nil {
			return layers{}, err
		}
		if err := resolvePaths(tree, filepath.Dir(file)); err != nil {
			return layers{}, fmt.Errorf("resolve paths in config file %s: %w", file, err)
		}
		addEvictionDefaults(tree)
		untouched.EvictionHard = maps.Clone(evictionHardDefaults)
	}
	if dir != "" {
		if err := mergeDropIns(tree, dir); err != nil {
			return layers{}, err
		}
	}
	k, err := decodeTree(tree)
	if err != nil {
		return layers{}, fmt.Errorf("decode the configuration merged from %s and %s: %w", file, dir, err)
	}
	setDefaults(k)
	setDefaults(untouched)
	return layers{kubelet: k, untouched: untouched}, nil
}

func readFile(name string) (map[string]any, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read config file: %w", err)
	}
	tree, err := decodeFile(data)
	if err != nil {
		return nil, fmt.Errorf("decode config file %s: %w", name, err)
	}
	return tree, nil
}

// mergeDropIns merges the *.conf files under dir into tree, in lexical order of
// their paths, as JSON merge patches.
func mergeDropIns(tree map[string]any, dir string) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("open --config-dir: %w", err)
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != dropInExt {
			return err
		}
		patch, err := readFile(path)
		if err != nil {
			return err
		}
		mergePatch(tree, patch)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read --config-dir %s: %w", dir, err)
	}
	return nil
}

// mergePatch applies patch to tree by the rules of RFC 7386.
func mergePatch(tree, patch map[string]any) {
	for key, value := range patch {
		if value == nil {
			delete(tree, key)
			continue
		}
		sub, ok := value.(map[string]any)
		if !ok {
			tree[key] = value
			continue
		}
		old, ok := tree[key].(map[string]any)
		if !ok {
			old = map[string]any{}
			tree[key] = old
		}
		mergePatch(old, sub)
	}
}

// decodeFile reads one KubeletConfiguration, YAML or JSON, strictly: unknown and
// repeated fields are errors, as a setting that is not understood is not
// honoured. (The kubelet only logs a line about them.) It returns the fields as
// they were written, checked for their types.
func decodeFile(data []byte) (map[string]any, error) {
	doc, err := onlyDocument(data)
	if err != nil {
		return nil, err
	}
	text, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &tree); err != nil {
		return nil, fmt.Errorf("it must hold the fields of a %s: %w", kind, err)
	}
	if tree["apiVersion"] != apiVersion || tree["kind"] != kind {
		return nil, fmt.Errorf("apiVersion is %v and kind is %v, must be %s and %s",
			tree["apiVersion"], tree["kind"], apiVersion, kind)
	}
	if _, err := decodeTree(tree); err != nil {
		return nil, err
	}
	return tree, nil
}

// onlyDocument returns the one YAML document in data that says anything. A
// second one would be ignored silently, so it is refused.
func onlyDocument(data []byte) ([]byte, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var found []byte
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var content any
		if err := yaml.Unmarshal(doc, &content); err == nil && content == nil {
			continue // comments only
		}
		if found != nil {
			return nil, errors.New("it holds more than one YAML document; use one, or --config-dir")
		}
		found = bytes.Clone(doc)
	}
	if found == nil {
		return nil, errors.New("it is empty")
	}
	return found, nil
}

// decodeTree decodes each field by itself, so that every error names its field
// and all of them are reported at once.
func decodeTree(tree map[string]any) (*kubeletv1beta1.KubeletConfiguration, error) {
	k := &kubeletv1beta1.KubeletConfiguration{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		text, err := json.Marshal(map[string]any{name: tree[name]})
		if err != nil {
			errs = append(errs, fmt.Errorf("field %s: %w", name, err))
			continue
		}
		strict, err := kjson.UnmarshalStrict(text, k)
		if err != nil {
			errs = append(errs, fmt.Errorf("field %s: %w", name, err))
		}
		errs = append(errs, strict...)
	}
	return k, errors.Join(errs...)
}

func resolvePaths(tree map[string]any, dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, field := range pathFields {
		keys := strings.Split(field, ".")
		path, ok, err := unstructured.NestedString(tree, keys...)
		if err != nil || !ok || path == "" || filepath.IsAbs(path) {
			continue // null and absent stay as they are; types were checked
		}
		if err := unstructured.SetNestedField(tree, filepath.Join(abs, path), keys...); err != nil {
			return err
		}
	}
	return nil
}

func addEvictionDefaults(tree map[string]any) {
	hard, ok := tree["evictionHard"].(map[string]any)
	if !ok {
		hard = map[string]any{}
		tree["evictionHard"] = hard
	} else if tree["mergeDefaultEvictionSettings"] != true {
		return
	}
	for signal, threshold := range evictionHardDefaults {
		if _, said := hard[signal]; !said {
			hard[signal] = threshold
		}
	}
}
