package cri

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

// dockerEntry is one registry's credentials in a docker config.
type dockerEntry struct {
	Username, Password string
}

// UnmarshalJSON reads user name and password, or both from auth, which is
// base64 of them and wins.
func (e *dockerEntry) UnmarshalJSON(raw []byte) error {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return errors.New("an entry is malformed") // the cause would show what is in it
	}
	e.Username, e.Password = in.Username, in.Password
	auth := strings.TrimSpace(in.Auth)
	if auth == "" {
		return nil
	}
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(auth, "="))
	if err != nil {
		return errors.New("an auth field is not base64")
	}
	var ok bool
	if e.Username, e.Password, ok = strings.Cut(string(decoded), ":"); !ok {
		return errors.New("an auth field is not base64 of username:password")
	}
	return nil
}

// decodeConfigJSON reads the form of ~/.docker/config.json.
func decodeConfigJSON(raw []byte) (map[string]dockerEntry, error) {
	var cfg struct {
		Auths map[string]dockerEntry `json:"auths"`
	}
	err := json.Unmarshal(raw, &cfg)
	return cfg.Auths, hideSyntax(err)
}

// decodeDockercfg reads the older form, .dockercfg: the auths alone.
func decodeDockercfg(raw []byte) (map[string]dockerEntry, error) {
	var cfg map[string]dockerEntry
	err := json.Unmarshal(raw, &cfg)
	return cfg, hideSyntax(err)
}

// hideSyntax keeps pieces of a file full of secrets out of errors.
func hideSyntax(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON (at byte %d)", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("unexpected %s (at byte %d)", kind.Value, kind.Offset)
	}
	return err
}

// credentials are those for the repository: of the pod's secrets, one after
// another, then the node's, then those of plugins, in each the most specific
// first (behaviour rows 1.10-8, 1.10-9, 1.10-10). The files are read at each
// pull: they are small, and a changed password is to count at once.
func (c *Client) credentials(ctx context.Context, repository string, secrets []*v1.Secret) ([]*runtimeapi.AuthConfig, error) {
	var out []*runtimeapi.AuthConfig
	for _, s := range secrets {
		cfg, err := secretConfig(s)
		if err != nil {
			return nil, fmt.Errorf("image pull secret %s/%s: %w", s.Namespace, s.Name, err)
		}
		out = append(out, lookup(cfg, repository)...)
	}
	out = append(out, lookup(nodeConfig(c.opts.Pods.RootDir), repository)...)
	for _, p := range c.opts.Images.Plugins {
		if slices.ContainsFunc(p.Images(), func(pattern string) bool { return matches(pattern, repository) }) {
			out = append(out, lookup(pluginConfig(p.Credentials(ctx, repository)), repository)...)
		}
	}
	return out, nil
}

func pluginConfig(auth map[string]credentialproviderv1.AuthConfig) map[string]dockerEntry {
	cfg := map[string]dockerEntry{}
	for pattern, a := range auth {
		cfg[pattern] = dockerEntry{Username: a.Username, Password: a.Password}
	}
	return cfg
}

// secretConfig is what a secret of either type of registry credentials holds;
// one of another type has none.
func secretConfig(s *v1.Secret) (map[string]dockerEntry, error) {
	switch s.Type {
	case v1.SecretTypeDockerConfigJson:
		return decodeConfigJSON(s.Data[v1.DockerConfigJsonKey])
	case v1.SecretTypeDockercfg:
		return decodeDockercfg(s.Data[v1.DockerConfigKey])
	}
	return nil, nil
}

// nodeConfig is the first config file that exists and can be read.
func nodeConfig(root string) map[string]dockerEntry {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/" // a unit without HOME
	}
	for _, dir := range []string{root, ".", filepath.Join(home, ".docker"), "/.docker"} {
		if cfg, ok := readConfig(filepath.Join(dir, "config.json"), decodeConfigJSON); ok {
			return cfg
		}
	}
	for _, dir := range []string{root, ".", home, "/"} {
		if cfg, ok := readConfig(filepath.Join(dir, ".dockercfg"), decodeDockercfg); ok {
			return cfg
		}
	}
	return nil
}

func readConfig(path string, decode func([]byte) (map[string]dockerEntry, error)) (map[string]dockerEntry, bool) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err == nil {
		var cfg map[string]dockerEntry
		if cfg, err = decode(raw); err == nil {
			return cfg, true
		}
	}
	slog.Warn("registry credentials not read: the next file is tried", "file", path, "error", err)
	return nil, false
}

// lookup finds the entries that match the repository. Keys are registry
// hosts, maybe with port and path; each part of a host may be a glob. Entries
// for Docker Hub serve when no other does.
func lookup(cfg map[string]dockerEntry, repository string) []*runtimeapi.AuthConfig {
	byKey := map[string][]dockerEntry{}
	var keys []string
	for location, entry := range cfg {
		key, err := registryKey(location)
		if err != nil {
			slog.Warn("registry credentials ignored", "error", err)
			continue
		}
		byKey[key] = append(byKey[key], entry)
		keys = append(keys, key)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	slices.Reverse(keys) // the longer of two that begin alike comes first
	var out []*runtimeapi.AuthConfig
	add := func(key string) {
		entries := byKey[key]
		slices.SortFunc(entries, func(a, b dockerEntry) int { return strings.Compare(a.Username, b.Username) })
		for _, e := range entries {
			out = append(out, &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password})
		}
	}
	for _, key := range keys {
		if matches(key, repository) {
			add(key)
		}
	}
	if host, _, _ := strings.Cut(repository, "/"); len(out) == 0 && (host == "docker.io" || host == "index.docker.io") {
		add("index.docker.io")
	}
	return out
}

// registryKey is host, port and path of a config's key. The paths /v1/ and
// /v2/ are docker's way to say the host alone.
func registryKey(location string) (string, error) {
	if !strings.HasPrefix(location, "https://") && !strings.HasPrefix(location, "http://") {
		location = "https://" + location
	}
	u, err := url.Parse(location)
	if err != nil {
		return "", errors.New("a registry's name is no URL")
	}
	p := u.Path
	if strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, "/v2/") {
		p = p[3:]
	}
	if p == "/" {
		p = ""
	}
	return u.Host + p, nil
}

func matches(key, repository string) bool {
	glob, err := url.Parse("https://" + key)
	if err != nil {
		return false
	}
	target, err := url.Parse("https://" + repository)
	if err != nil {
		return false
	}
	if glob.Port() != target.Port() || !strings.HasPrefix(target.Path, glob.Path) {
		return false
	}
	parts, want := strings.Split(glob.Hostname(), "."), strings.Split(target.Hostname(), ".")
	if len(parts) != len(want) {
		return false
	}
	for i := range parts {
		if ok, err := path.Match(parts[i], want[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
