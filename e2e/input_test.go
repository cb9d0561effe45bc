package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestBadFiles drops files that can't be used. Each gives one error that names
// the file, and the field where there is one; a pod that runs goes on.
func TestBadFiles(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("good", sleeper("good"))
	good := b.ready("good")
	was := b.instances(string(good.UID))["main"]
	files := map[string]func(*bed){
		"BrokenYAML":     bad("yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n", "not valid YAML"),
		"UnknownField":   bad("field", podOf("field", "containers: [{name: a, image: BUSYBOX, imagePolicy: Never}]"), "imagePolicy"),
		"WrongType":      bad("type", podOf("type", "terminationGracePeriodSeconds: soon\ncontainers: [{name: a, image: BUSYBOX}]"), "spec.terminationGracePeriodSeconds"),
		"InvalidName":    bad("name", podOf("Not_A_Name", "containers: [{name: a, image: BUSYBOX}]"), "metadata.name"),
		"NoContainers":   bad("empty", podOf("empty", "containers: []"), "spec.containers"),
		"OtherKind":      bad("kind", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n", "kind"),
		"EmptyFile":      bad("void", "", "is empty"),
		"TooLarge":       bad("large", "# "+strings.Repeat("x", 10<<20), "more than 10 MiB"),
		"Secret":         bad("secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: 'not base64'}\n", "Secret default/s: data.key"),
		"ConfigMapKey":   bad("configmap", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {'a/b': c}\n", "ConfigMap default/c: data[a/b]: Invalid value"),
		"ServiceAccount": bad("account", podOf("account", "serviceAccountName: x\ncontainers: [{name: a, image: BUSYBOX}]"), "spec.serviceAccountName"),
		"SymlinkLoop":    symlinkLoop,
		"FolderInFolder": folderInFolder,
		"TwoPodsOneName": twoPodsOneName,
		"EditorFiles":    editorFiles,
		"HalfWritten":    halfWritten,
		"MissingImage":   missingImage,
		"BadImageName":   badImageName,
	}
	t.Run("Each", func(t *testing.T) {
		(&bed{b.Lab, b.Agent, t}).share(files)
	})
	b.ready("good")
	if now := b.instances(string(good.UID))["main"]; now != was {
		t.Errorf("the good pod's instance %s became %s", was, now)
	}
}

// bad drops a file and waits for its problem, told once in the log, and shown
// until the file goes.
func bad(name, content, want string) func(*bed) {
	return func(b *bed) {
		b.must(b.WritePod(name+".yaml", []byte(content)))
		b.problem(filepath.Join(b.Manifests, name+".yaml"), want)
		b.remove(name)
		b.eventually("the problem is gone", 30*time.Second, func() error {
			if strings.Contains(b.say("pods"), filepath.Join(b.Manifests, name+".yaml")) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
}

// problem waits until `nodeagent pods` shows one line of the origin that has
// the text, and looks for it, once, in the log.
func (b *bed) problem(origin, want string) {
	b.t.Helper()
	b.eventually("a problem of "+origin, 30*time.Second, func() error {
		_, problems, _ := strings.Cut(b.say("pods"), "Not taken:")
		n := 0
		for line := range strings.Lines(problems) {
			if strings.Contains(line, origin+":") {
				if n++; !strings.Contains(line, want) {
					return fmt.Errorf("it is %q, want %q", line, want)
				}
			}
		}
		if n != 1 {
			return fmt.Errorf("%d lines of it in %q", n, problems)
		}
		return nil
	})
	told := 0
	for line := range strings.Lines(b.agentLog()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, origin+" ") {
			told++
		}
	}
	if told != 1 {
		b.t.Errorf("the log tells it %d times, want once", told)
	}
}

func symlinkLoop(b *bed) {
	one, two := filepath.Join(b.Manifests, "one.yaml"), filepath.Join(b.Manifests, "two.yaml")
	b.must(os.Symlink(two, one))
	b.must(os.Symlink(one, two))
	b.problem(one, "symbolic links that lead to each other")
	b.problem(two, "symbolic links that lead to each other")
}

func folderInFolder(b *bed) {
	dir := filepath.Join(b.Manifests, "dir.yaml")
	b.must(os.Mkdir(dir, 0o755))
	b.problem(dir, "a folder: only files directly in the manifest folder are read")
}

func twoPodsOneName(b *bed) {
	b.apply("twin", sleeper("twin"))
	p := b.ready("twin")
	b.apply("twin-two", sleeper("twin", "  - {name: more, image: x}"))
	b.problem(filepath.Join(b.Manifests, "twin-two.yaml"), "metadata.name: duplicate pod name")
	if now := b.ready("twin"); now.UID != p.UID {
		b.t.Errorf("pod %s became %s", p.UID, now.UID)
	}
}

// editorFiles are ignored; when one becomes the real file it counts.
func editorFiles(b *bed) {
	for _, name := range []string{"ed.yaml~", "ed.yaml.bak", ".ed.yaml.swp", ".ed.yaml", "#ed.yaml#", "4913"} {
		b.must(os.WriteFile(filepath.Join(b.Manifests, name), []byte(sleeper("edited")), 0o644))
	}
	b.must(os.WriteFile(filepath.Join(b.Manifests, "ed-mark.yaml"), []byte(sleeper("edmark")), 0o644))
	b.ready("edmark") // the folder was looked at since
	if p := b.pod("edited"); p != nil {
		b.t.Fatalf("taken from %s", p.Origin)
	}
	b.must(os.Rename(filepath.Join(b.Manifests, "ed.yaml.bak"), filepath.Join(b.Manifests, "ed.yaml")))
	b.ready("edited")
}

// halfWritten: a file that is being written is not taken for what it is going
// to be, nor does it cost anything when it is complete.
func halfWritten(b *bed) {
	whole := sleeper("half")
	f, err := os.Create(filepath.Join(b.Manifests, "half.yaml"))
	b.must(err)
	_, err = f.WriteString(whole[:len(whole)/2])
	b.must(err)
	b.apply("halfmark", sleeper("halfmark"))
	b.ready("halfmark")
	_, err = f.WriteString(whole[len(whole)/2:])
	b.must(err)
	b.must(f.Close())
	b.ready("half")
	b.eventually("no problem is left", 30*time.Second, func() error {
		if strings.Contains(b.say("pods"), "half.yaml") {
			return fmt.Errorf("there is one")
		}
		return nil
	})
}

func missingImage(b *bed) {
	b.apply("noimage", podOf("noimage", "containers: [{name: a, image: 'nodeagent.test/none:1', imagePullPolicy: Never}]"))
	b.await("noimage", "a", "waits for its image", waitsFor("ErrImageNeverPull"))
	if !strings.Contains(b.say("pods"), "ErrImageNeverPull") {
		b.t.Error("`nodeagent pods` doesn't show it")
	}
}

func badImageName(b *bed) {
	b.apply("badimage", podOf("badimage", "containers: [{name: a, image: 'lab/UPPER:1'}]"))
	b.await("badimage", "a", "has a bad image", waitsFor("InvalidImageName"))
}

// TestThousandFiles drops a thousand files at once, of which half are broken.
func TestThousandFiles(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"maxPods": 3}
	b.start()
	for i := range 1000 {
		text := podOf(fmt.Sprintf("many%03d", i), "restartPolicy: Never\ncontainers: [{name: a, image: none, imagePullPolicy: Never}]")
		if i%2 == 0 {
			text = text[:len(text)-5] // without its closing bracket
		}
		b.must(os.WriteFile(filepath.Join(b.Manifests, fmt.Sprintf("many%03d.yaml", i)), []byte(text), 0o644))
	}
	b.eventually("all files are taken in", 60*time.Second, func() error {
		r, err := b.report()
		if err == nil && (len(r.Pods) != 500 || len(r.Problems) != 500) {
			err = fmt.Errorf("%d pods, %d problems", len(r.Pods), len(r.Problems))
		}
		return err
	})
	b.must(b.healthy())
	for i := range 1000 {
		b.must(os.Remove(filepath.Join(b.Manifests, fmt.Sprintf("many%03d.yaml", i))))
	}
	b.eventually("all are gone", 60*time.Second, func() error {
		r, err := b.report()
		if err == nil && len(r.Pods)+len(r.Problems) != 0 {
			err = fmt.Errorf("%d pods, %d problems", len(r.Pods), len(r.Problems))
		}
		return err
	})
	b.apply("last", sleeper("last"))
	b.ready("last")
}

// TestBrokenFileKeepsItsPod breaks the file of a pod that runs, before and
// after a restart of the agent: the pod goes on, until its file is gone.
func TestBrokenFileKeepsItsPod(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("kept", sleeper("kept"))
	p := b.ready("kept")
	was := b.instances(string(p.UID))["main"]
	file := filepath.Join(b.Manifests, "kept.yaml")
	b.must(b.WritePod("kept.yaml", []byte("kind: Pod\nnonsense")))
	b.problem(file, "not valid YAML")
	b.must(b.Agent.Kill())
	b.must(os.Truncate(b.LogFile(), 0))
	b.start()
	b.problem(file, "not valid YAML")
	b.apply("mark", sleeper("mark"))
	b.ready("mark")
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Fatalf("instance %s became %q", was, now)
	}
	// Without its record, which knows the file, the runtime still knows the source.
	b.must(b.Agent.Kill())
	b.must(os.Remove(filepath.Join(b.Root, "nodeagent/pods", string(p.UID)+".json")))
	b.start()
	b.apply("mark2", sleeper("mark2"))
	b.ready("mark2")
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Fatalf("without its record: instance %s became %q", was, now)
	}
	b.apply("kept", sleeper("kept"))
	if now := b.ready("kept"); now.UID != p.UID || b.instances(string(p.UID))["main"] != was {
		t.Errorf("mended, pod %s became %s", p.UID, now.UID)
	}
	b.remove("kept")
	b.gone("kept", string(p.UID))
}
