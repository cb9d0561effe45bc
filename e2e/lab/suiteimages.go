package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// SuiteDir has Kubernetes' own suite (e2e.test), the program that runs it
// (ginkgo), and the programs of its images.
func SuiteDir() string {
	return filepath.Join(cacheDir(), "kubernetes-suite-"+versions()["KUBERNETES"])
}

// AddSuiteImages puts the images that the suite's node specs run into the lab's
// runtime, under the names that the suite gives them, and into a registry by the
// name of Kubernetes' own: a spec pulls what is there already. They are made from
// Kubernetes' programs and this machine's; nothing is downloaded.
func (l *Lab) AddSuiteImages() error {
	images, err := buildSuiteImages()
	if err != nil {
		return fmt.Errorf("build the suite's images: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := images.Import(ctx, l.Runtime.Programs, l.Runtime.Socket()); err != nil {
		return err
	}
	const host = "registry.k8s.io"
	registry, err := l.Registry(RegistryOptions{Alias: host})
	if err != nil {
		return err
	}
	for _, ref := range images.names {
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		image, err := tarball.ImageFromPath(images.Tarball, &tag)
		if err != nil {
			return fmt.Errorf("read image %s: %w", ref, err)
		}
		if _, err := registry.Push(ctx, strings.TrimPrefix(ref, host+"/"), image); err != nil {
			return err
		}
	}
	return nil
}

func buildSuiteImages() (Images, error) {
	list, err := exec.Command(filepath.Join(SuiteDir(), "e2e.test"), "--list-images").Output()
	if err != nil {
		return Images{}, fmt.Errorf("list them: %w; run hack/install conformance", err)
	}
	shell, err := suiteShell()
	if err != nil {
		return Images{}, err
	}
	// agnhost can be a server with a certificate.
	agnhost, err := suiteFiles("agnhost", "localhost.crt", "localhost.key")
	if err != nil {
		return Images{}, err
	}
	nnp, err := suiteFiles("nonewprivs")
	if err != nil {
		return Images{}, err
	}
	sources := slices.Concat([]byte("layout 2"), list, pauseSource)
	for _, f := range slices.Concat(shell, agnhost, nnp) {
		sources = append(sources, f.Data...)
	}
	builders := map[string]func() (v1.Image, error){}
	for ref := range strings.FieldsSeq(string(list)) {
		switch repository, _, _ := strings.Cut(ref, ":"); repository {
		case "registry.k8s.io/pause":
			builders[ref] = pauseImage
		case "registry.k8s.io/e2e-test-images/agnhost":
			builders[ref] = func() (v1.Image, error) { return agnhostImage(shell, agnhost) }
		case "registry.k8s.io/e2e-test-images/nonewprivs":
			builders[ref] = func() (v1.Image, error) { return nonewprivsImage(shell, nnp[0].Data) }
		case "registry.k8s.io/e2e-test-images/nonroot":
			builders[ref] = func() (v1.Image, error) { return NewImage(shellConfig("1234"), shell) }
		case "registry.k8s.io/e2e-test-images/busybox",
			// Of these the specs of a node use the shell and its tools only.
			"registry.k8s.io/e2e-test-images/glibc-dns-testing",
			"registry.k8s.io/e2e-test-images/ipc-utils",
			"registry.k8s.io/e2e-test-images/nginx":
			builders[ref] = func() (v1.Image, error) { return NewImage(shellConfig(""), shell) }
		}
	}
	return cached("suite", sources, builders)
}

func shellConfig(user string) v1.Config {
	return v1.Config{
		Cmd:  []string{"sh"},
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		User: user,
	}
}

// suiteShell is busybox with programs of this machine: curl; an nc that knows UDP;
// and bash for the sh that PATH leads to, because Debian's busybox drops variables
// whose names have a dash. A spec knows by heart what busybox's /bin/sh complains.
func suiteShell() ([]File, error) {
	static, err := busybox()
	if err != nil {
		return nil, err
	}
	files, err := busyboxFiles(static)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f File) bool {
		return slices.Contains([]string{"bin/nc", "etc/passwd", "etc/group"}, f.Name)
	})
	programs, err := localPrograms("bash", "curl", "nc")
	if err != nil {
		return nil, err
	}
	return append(append(files, programs...),
		File{Name: "usr/local/bin/sh", Mode: 0o777, Link: "/bin/bash"},
		// A spec finds that a user of the image brings the groups of the image.
		File{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n" +
			"user-defined-in-image:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		File{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nuser-defined-in-image:x:1000:\n" +
			"group-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n")},
	), nil
}

// localPrograms are programs of this machine as bin/NAME, and the libraries
// that they are linked with, where their loader looks for them.
func localPrograms(names ...string) ([]File, error) {
	var files []File
	libraries := map[string]bool{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w; run hack/install conformance", name, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: "bin/" + name, Mode: 0o755, Data: data})
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			return nil, fmt.Errorf("list libraries of %s: %w", path, err)
		}
		for word := range strings.FieldsSeq(string(out)) {
			if !filepath.IsAbs(word) || libraries[word] {
				continue
			}
			libraries[word] = true
			if data, err = os.ReadFile(word); err != nil {
				return nil, err
			}
			files = append(files, File{Name: word[1:], Mode: 0o755, Data: data})
		}
	}
	return files, nil
}

// suiteFiles are files of SuiteDir, to stand at an image's root.
func suiteFiles(names ...string) ([]File, error) {
	var files []File
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(SuiteDir(), name))
		if err != nil {
			return nil, fmt.Errorf("%w; run hack/install conformance", err)
		}
		files = append(files, File{Name: name, Mode: 0o755, Data: data})
	}
	return files, nil
}

// agnhostImage has bash for /bin/sh too: busybox's would run its own nc.
func agnhostImage(shell, agnhost []File) (v1.Image, error) {
	shell = slices.DeleteFunc(slices.Clone(shell), func(f File) bool { return f.Name == "bin/sh" })
	pause, err := pauseImage()
	if err != nil {
		return nil, err
	}
	served, err := registryFiles("var/registry/pause/", "testing", pause)
	if err != nil {
		return nil, err
	}
	config := shellConfig("")
	config.Entrypoint, config.Cmd = []string{"/agnhost"}, []string{"pause"}
	return NewImage(config, append(slices.Concat(shell, agnhost, served),
		File{Name: "bin/sh", Mode: 0o777, Link: "bash"},
		File{Name: "agnhost-2", Mode: 0o777, Link: "agnhost"},
		File{Name: "uploads/", Mode: 0o755},
	))
}

// registryFiles is an image as agnhost's registry serves it from its disk.
func registryFiles(dir, tag string, image v1.Image) ([]File, error) {
	digest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return nil, err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	configDigest, err := image.ConfigName()
	if err != nil {
		return nil, err
	}
	file := func(kind string, h v1.Hash, data []byte) File {
		return File{Name: dir + kind + "/" + h.Algorithm + "/" + h.Hex[:2] + "/" + h.Hex + "/data", Mode: 0o644, Data: data}
	}
	files := []File{
		{Name: dir + "manifests/" + tag, Mode: 0o644, Data: []byte(digest.String())},
		file("manifests", digest, manifest), file("blobs", configDigest, config),
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return nil, err
		}
		r, err := l.Compressed()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files = append(files, file("blobs", h, data))
	}
	return files, nil
}

func nonewprivsImage(shell []File, nnp []byte) (v1.Image, error) {
	config := shellConfig("")
	config.Cmd = []string{"nnp"}
	return NewImage(config, append(slices.Clone(shell), File{Name: "usr/local/bin/nnp", Mode: 0o6755, Data: nnp}))
}
