package node

import (
	"strings"
	"testing"
)

func TestSubIDs(t *testing.T) {
	for text, want := range map[string]string{
		"0: kubelet 65536 7208960\n":               "",
		"0: kubelet 65536 65536":                   "enough for 1 pods, maxPods is 110",
		"0: kubelet 65537 7208960":                 "must be multiples of 65536",
		"0: kubelet 65536 7208961":                 "must be multiples of 65536",
		"0: kubelet 0 7208960":                     "must be multiples of 65536",
		"0: kubelet 65536 65536\n1: kubelet 1 1\n": "want one range",
		"Error fetching ranges":                    "want one range",
		"0: kubelet 65536 99999999999":             "want one range",
	} {
		u, err := parseSubIDs(text, 65536, 110)
		if want == "" && (err != nil || u != (Users{65536, 7208960})) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v; want %q", text, u, err, want)
		}
	}
}
