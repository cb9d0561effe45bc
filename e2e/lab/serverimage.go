package lab

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ServerImage is busybox with the program of folder server, which it runs; what
// it serves is said there. A lab has it after AddServerImage.
const ServerImage = "nodeagent.test/server:1"

//go:embed server/*.go
var serverSource embed.FS

// AddServerImage puts ServerImage into the lab's runtime. It is larger than all
// else there, so only those that need it pay for it.
func (l *Lab) AddServerImage() error {
	images, err := buildServer()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return images.Import(ctx, l.Runtime.Programs, l.Runtime.Socket())
}

func buildServer() (Images, error) {
	sources, err := busybox()
	if err != nil {
		return Images{}, fmt.Errorf("build images: %w", err)
	}
	files, err := busyboxFiles(sources)
	if err != nil {
		return Images{}, fmt.Errorf("build images: %w", err)
	}
	entries, err := serverSource.ReadDir("server")
	if err != nil {
		return Images{}, err
	}
	for _, e := range entries {
		source, err := serverSource.ReadFile("server/" + e.Name())
		if err != nil {
			return Images{}, err
		}
		sources = append(sources, source...)
	}
	return cached("server", sources, map[string]func() (v1.Image, error){
		ServerImage: func() (v1.Image, error) { return serverImage(files) },
	})
}

func serverImage(files []File) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "server-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "server")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "github.com/nodeagent/nodeagent/e2e/lab/server")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build server: %w: %s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	files = append(files, File{Name: "bin/server", Mode: 0o755, Data: data})
	return NewImage(v1.Config{Entrypoint: []string{"/bin/server"}, Env: []string{"PATH=/bin"}}, files)
}
