// Package images asks plugins for the credentials by which images are pulled:
// programs that know a cloud's registry, and the configuration that names them.
package images

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	kubeletv1 "k8s.io/kubelet/config/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"sigs.k8s.io/yaml"
)

// The versions of the configuration and of what plugins are asked. They differ
// in nothing that is read here.
var (
	configVersions = []string{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"}
	pluginVersions = []string{credentialproviderv1.SchemeGroupVersion.String(), "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"}
)

// Read reads the configuration of plugins, a file or all .json, .yaml and .yml
// files of a folder in the order of their names, and finds the programs in dir
// (behaviour row 1.10-10). An error names file and field.
func Read(path, dir string, log *slog.Logger) ([]*Plugin, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of image credential plugins (--image-credential-provider-config): %w", err)
	}
	var plugins []*Plugin
	for _, file := range files {
		config, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("image credential plugins: %s: %w", file, err)
		}
		for i, p := range config.Providers {
			err := check(p)
			if slices.ContainsFunc(plugins, func(other *Plugin) bool { return other.config.Name == p.Name }) {
				err = errors.Join(err, fmt.Errorf("name: there are two plugins named %q", p.Name))
			}
			if err != nil {
				return nil, fmt.Errorf("image credential plugins: %s: providers[%d].%w", file, i, err)
			}
			program, err := exec.LookPath(filepath.Join(dir, p.Name))
			if err != nil {
				return nil, fmt.Errorf("image credential plugins: %s: providers[%d].name: no program %s in --image-credential-provider-bin-dir: %w", file, i, p.Name, err)
			}
			plugins = append(plugins, newPlugin(p, program, log))
		}
	}
	if len(plugins) == 0 {
		return nil, fmt.Errorf("image credential plugins: %s: providers: there are none", path)
	}
	return plugins, nil
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no .json, .yaml or .yml file is in the folder", path)
	}
	return files, nil
}

func readFile(path string) (*kubeletv1.CredentialProviderConfig, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &kubeletv1.CredentialProviderConfig{}
	if err := yaml.UnmarshalStrict(raw, config); err != nil {
		return nil, err
	}
	if config.Kind != "CredentialProviderConfig" || !slices.Contains(configVersions, config.APIVersion) {
		return nil, fmt.Errorf("kind %q of apiVersion %q; write CredentialProviderConfig of %s", config.Kind, config.APIVersion, configVersions[0])
	}
	return config, nil
}

// check finds the first field that is wrong.
func check(p kubeletv1.CredentialProvider) error {
	switch {
	case p.Name == "" || p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ "):
		return fmt.Errorf("name: %q is no name of a program", p.Name)
	case !slices.Contains(pluginVersions, p.APIVersion):
		return fmt.Errorf("apiVersion: %q is none of %s", p.APIVersion, strings.Join(pluginVersions, ", "))
	case len(p.MatchImages) == 0:
		return errors.New("matchImages: name the images that the plugin is for")
	case p.DefaultCacheDuration == nil:
		return errors.New("defaultCacheDuration: is missing; 0s means not to keep credentials")
	case p.DefaultCacheDuration.Duration < 0:
		return fmt.Errorf("defaultCacheDuration: %s is less than nothing", p.DefaultCacheDuration.Duration)
	case p.TokenAttributes != nil:
		return errors.New("tokenAttributes: is not built yet, plugins get no token of a pod's service account; leave it out if the plugin can do without")
	}
	for i, image := range p.MatchImages {
		if err := checkPattern(image); err != nil {
			return fmt.Errorf("matchImages[%d]: %w", i, err)
		}
	}
	return nil
}
