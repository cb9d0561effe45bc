package source

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
)

// peerFixture is what the real kubelet made of a manifest.
type peerFixture struct {
	Manifest string   `json:"manifest"`
	NodeName string   `json:"nodeName"`
	File     peerRead `json:"file"`
	URL      peerRead `json:"url"`
}

type peerRead struct {
	Location string    `json:"location"`
	Pods     []*v1.Pod `json:"pods"`
	Error    string    `json:"error"`
}

// differences are where the agent departs from the kubelet on purpose.
var differences = map[string]string{
	"unknown-field": "refused, for a typing error must not be overlooked",
	"duplicate-key": "refused, for a typing error must not be overlooked",
	"two-documents": "all documents are taken",
	"pod-list/file": "lists are taken from files too",
}

// TestPeer compares pods with those that the real kubelet makes of the same
// manifests, field by field, apart from what is made of the UID.
func TestPeer(t *testing.T) {
	names, err := filepath.Glob("testdata/peer/*.json")
	if err != nil || len(names) < 20 {
		t.Fatalf("found %d fixtures: %v", len(names), err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".json")
		t.Run(base, func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var fixture peerFixture
			if err := json.Unmarshal(data, &fixture); err != nil {
				t.Fatal(err)
			}
			manifest, err := os.ReadFile(filepath.Join("testdata/peer", fixture.Manifest))
			if err != nil {
				t.Fatal(err)
			}
			t.Run("file", func(t *testing.T) {
				p := place{joined: true, source: FileName, origin: fixture.File.Location, node: fixture.NodeName}
				comparePeer(t, base+"/file", p.decode(manifest), fixture.File)
			})
			t.Run("http", func(t *testing.T) {
				p := place{joined: true, source: HTTPName, origin: fixture.URL.Location, node: fixture.NodeName}
				comparePeer(t, base+"/http", p.decode(manifest), fixture.URL)
			})
		})
	}
}

func comparePeer(t *testing.T, name string, got contents, want peerRead) {
	t.Helper()
	base, _, _ := strings.Cut(name, "/")
	if differences[name] != "" || differences[base] != "" {
		if (len(got.problems) == 0) == (want.Error == "") && len(got.pods) == len(want.Pods) {
			t.Errorf("no longer departs from the kubelet: %v", got.problems)
		}
		return
	}
	if (len(got.problems) > 0) != (want.Error != "") {
		t.Fatalf("problems %v, the kubelet's error %q", got.problems, want.Error)
	}
	if len(got.pods) != len(want.Pods) {
		t.Fatalf("got %d pods, want %d", len(got.pods), len(want.Pods))
	}
	for i, d := range got.pods {
		mine, theirs := d.Pod.DeepCopy(), want.Pods[i].DeepCopy()
		if mine.Annotations[annotationHash] != string(mine.UID) {
			t.Errorf("config.hash %q differs from the UID %q", mine.Annotations[annotationHash], mine.UID)
		}
		if len(theirs.UID) == 32 { // made, not given
			mine.UID, theirs.UID = "", ""
			delete(mine.Annotations, annotationHash)
			delete(theirs.Annotations, annotationHash)
		}
		// Text is compared, as absent and empty are one to everybody but Go.
		if diff := cmp.Diff(text(t, theirs), text(t, mine)); diff != "" {
			t.Errorf("pod differs from the kubelet's (-kubelet +agent):\n%s", diff)
		}
	}
	if want.Error != "" {
		t.Logf("kubelet: %s", want.Error)
		for _, p := range got.problems {
			t.Logf("agent:   %v", p)
		}
	}
}

func text(t *testing.T, pod *v1.Pod) string {
	t.Helper()
	data, err := json.MarshalIndent(pod, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
