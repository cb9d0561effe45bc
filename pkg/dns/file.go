package dns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxFile bounds what is read of the host's file.
const maxFile = 10 << 20

// mergeOptions puts each of more in the place of the option of its name, or at
// the end.
func mergeOptions(options, more []string) []string {
	nameOf := func(option string) string { name, _, _ := strings.Cut(option, ":"); return name }
	out := slices.Clone(options)
	at := map[string]int{}
	for i, o := range out {
		at[nameOf(o)] = i
	}
	for _, o := range more {
		if i, known := at[nameOf(o)]; known {
			out[i] = o
			continue
		}
		at[nameOf(o)] = len(out)
		out = append(out, o)
	}
	return out
}

// parse reads the lines of a resolv.conf: servers add up, the last search line
// counts, of options of one name the last.
func parse(file []byte) (*runtimeapi.DNSConfig, error) {
	c := &runtimeapi.DNSConfig{}
	var options []string
	for line := range strings.Lines(string(file)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if len(words) < 2 {
				return nil, errors.New("a line \"nameserver\" names no address")
			}
			c.Servers = append(c.Servers, words[1])
		case "search":
			c.Searches = nil
			for _, path := range words[1:] {
				if path != "." {
					c.Searches = append(c.Searches, strings.TrimSuffix(path, "."))
				}
			}
		case "options":
			options = append(options, words[1:]...)
		}
	}
	c.Options = mergeOptions(nil, options)
	return c, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, err
}

// Check says what is wrong with the host's file for pods, nil if nothing is
// (behaviour row 1.8-7).
func (s Settings) Check() error {
	if s.ResolvConf == "" {
		return nil
	}
	data, err := readFile(s.ResolvConf)
	if err != nil {
		return fmt.Errorf("resolvConf: %w", err)
	}
	host, err := parse(data)
	if err != nil {
		return fmt.Errorf("resolvConf %s: %w", s.ResolvConf, err)
	}
	most := maxSearches
	if s.ClusterDomain != "" {
		most -= 3 // those of the cluster come before
	}
	if n := len(host.Searches); n > most {
		return fmt.Errorf("resolvConf %s: its search line names %d domains, pods can have %d of them", s.ResolvConf, n, most)
	}
	for _, path := range host.Searches {
		if len(path) > maxSearchPath {
			return fmt.Errorf("resolvConf %s: search path %.20s... is longer than %d characters", s.ResolvConf, path, maxSearchPath)
		}
	}
	if n := len(strings.Join(host.Searches, " ")); n > maxSearchChars {
		return fmt.Errorf("resolvConf %s: its search line has %d characters, pods can have %d", s.ResolvConf, n, maxSearchChars)
	}
	return nil
}
