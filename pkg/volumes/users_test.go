package volumes

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The file is the kubelet's to the byte, so that each reads what the other wrote.
func TestUsersFile(t *testing.T) {
	root := t.TempDir()
	v, err := New(root, 0, env.Resolver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids := pod.IDs{First: 131072, Length: 65536}
	for range 2 { // the second changes nothing
		if err := v.KeepUsers("a-1", ids); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(root, "pods/a-1/userns")
	const want = `{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}`
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("file: %s, %v", got, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside it: %v", entries)
	}
	if got, err := v.Users(); err != nil || len(got) != 1 || got["a-1"] != ids {
		t.Errorf("read back: %v, %v", got, err)
	}
	for range 2 {
		if err := v.DropUsers("a-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := v.Users(); err != nil || len(got) != 0 {
		t.Errorf("after the end: %v, %v", got, err)
	}
	if err := v.KeepUsers("../x", ids); err == nil {
		t.Error("a UID that leaves the folder is taken")
	}
}

func TestBadUsersFile(t *testing.T) {
	root := t.TempDir()
	v, err := New(root, 0, env.Resolver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.KeepUsers("good", pod.IDs{First: 65536, Length: 65536}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "pods/bad"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{
		"", "{", `{"uidMappings":[],"gidMappings":[]}`,
		`{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}`,
		`{"uidMappings":[{"hostId":65536,"containerId":1,"length":65536}],"gidMappings":[{"hostId":65536,"containerId":1,"length":65536}]}`,
		`{"uidMappings":[{"hostId":0,"containerId":0,"length":65536}],"gidMappings":[{"hostId":0,"containerId":0,"length":65536}]}`,
		`{"uidMappings":[{"hostId":4294967295,"containerId":0,"length":65536}],"gidMappings":[{"hostId":4294967295,"containerId":0,"length":65536}]}`,
	} {
		if err := os.WriteFile(filepath.Join(root, "pods/bad/userns"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := v.Users()
		if err == nil || len(got) != 1 || got["good"].First != 65536 {
			t.Errorf("%q: %v, %v; want an error, and the good one", content, got, err)
		}
	}
}
