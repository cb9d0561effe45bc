package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

//go:embed pause/main.go
var pauseSource []byte

// Images are some of the lab's own images, in one tarball in the cache.
type Images struct {
	Tarball string
	names   []string
}

// BuildImages makes PauseImage and BusyboxImage from local programs, or finds
// them in the cache. It needs the go command and hack/install's busybox.
func BuildImages() (Images, error) {
	shell, err := busybox()
	if err != nil {
		return Images{}, fmt.Errorf("build images: %w", err)
	}
	return cached("lab", slices.Concat(pauseSource, shell), map[string]func() (v1.Image, error){
		PauseImage:   pauseImage,
		BusyboxImage: func() (v1.Image, error) { return busyboxImage(shell) },
	})
}

// cached builds the images, unless the cache has those of the same sources.
func cached(kind string, sources []byte, builders map[string]func() (v1.Image, error)) (Images, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "layout 1 %s %s\n", runtime.Version(), runtime.GOARCH)
	sum.Write(sources)
	dir := filepath.Join(cacheDir(), "images")
	images := Images{filepath.Join(dir, fmt.Sprintf("%s-%x.tar", kind, sum.Sum(nil)[:8])), slices.Sorted(maps.Keys(builders))}
	if _, err := os.Stat(images.Tarball); err == nil {
		return images, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Images{}, fmt.Errorf("build images: %w", err)
	}
	if err := writeTarball(images.Tarball, builders); err != nil {
		return Images{}, fmt.Errorf("build images: %w", err)
	}
	return images, nil
}

// writeTarball writes beside the final name and renames, for runs in parallel.
func writeTarball(path string, builders map[string]func() (v1.Image, error)) error {
	images := map[name.Tag]v1.Image{}
	for ref, build := range builders {
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		if images[tag], err = build(); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), "tmp.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "images.tar")
	if err := tarball.MultiWriteToFile(file, images); err != nil {
		return err
	}
	return os.Rename(file, path)
}

// busybox reads the static busybox: hack/install's, else the system's.
func busybox() ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(cacheDir(), "debian-busybox-static/bin/busybox"))
	if errors.Is(err, os.ErrNotExist) {
		data, err = os.ReadFile("/bin/busybox")
	}
	if err != nil {
		return nil, fmt.Errorf("find busybox: %w; run hack/install runtime", err)
	}
	return data, nil
}

func pauseImage() (v1.Image, error) {
	dir, err := os.MkdirTemp("", "pause-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "pause")
	if err := os.WriteFile(source, pauseSource, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off", "GO111MODULE=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build pause: %w: %s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	return NewImage(v1.Config{Entrypoint: []string{"/pause"}}, []File{{Name: "pause", Mode: 0o755, Data: data}})
}

func busyboxImage(shell []byte) (v1.Image, error) {
	files, err := busyboxFiles(shell)
	if err != nil {
		return nil, err
	}
	return NewImage(v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}, files)
}

func busyboxFiles(shell []byte) ([]File, error) {
	applets, err := appletsOf(shell)
	if err != nil {
		return nil, err
	}
	files := []File{
		{Name: "bin/", Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "bin/busybox", Mode: 0o755, Data: shell},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
	}
	for _, a := range applets {
		files = append(files, File{Name: "bin/" + a, Mode: 0o777, Link: "/bin/busybox"})
	}
	return files, nil
}

func appletsOf(shell []byte) ([]string, error) {
	dir, err := os.MkdirTemp("", "busybox-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "busybox")
	if err := os.WriteFile(path, shell, 0o755); err != nil {
		return nil, err
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	var applets []string
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" {
			applets = append(applets, a)
		}
	}
	return applets, nil
}

// File is an entry of an image's layer: a folder if Name ends in a slash, a
// symbolic link if Link is set, else a regular file.
type File struct {
	Name string
	Mode int64
	Data []byte
	Link string
}

// NewImage makes an image of one layer for this machine's architecture.
func NewImage(config v1.Config, files []File) (v1.Image, error) {
	layer, err := layerOf(files)
	if err != nil {
		return nil, fmt.Errorf("make image layer: %w", err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("make image layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	image, err = mutate.ConfigFile(image, withConfig(image, config))
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return image, nil
}

func withConfig(image v1.Image, config v1.Config) *v1.ConfigFile {
	f, err := image.ConfigFile()
	if err != nil {
		panic(err) // an image in memory has one
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", runtime.GOARCH, config
	return f
}

func layerOf(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), Linkname: f.Link, Typeflag: tar.TypeReg}
		switch {
		case f.Link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// Import loads the images into the runtime at a socket, and returns when CRI
// shows them.
func (i Images) Import(ctx context.Context, p Programs, socket string) error {
	if out, err := p.CtrCommand(ctx, socket, "images", "import", i.Tarball).CombinedOutput(); err != nil {
		return fmt.Errorf("import images: %w: %s", err, out)
	}
	c, err := DialCRI(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	err = poll(ctx, func() error {
		for _, ref := range i.names {
			if ok, err := c.HasImage(ctx, ref); err != nil || !ok {
				return fmt.Errorf("image %s not in the runtime yet (%v)", ref, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("import images: %w", err)
	}
	return nil
}
