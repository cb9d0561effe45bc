package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// AddProgramImage puts an image into the lab's runtime that is busybox with a
// static program of this machine, which it runs, and returns its name.
func (l *Lab) AddProgramImage(program string) (string, error) {
	name := "nodeagent.test/" + filepath.Base(program) + ":1"
	shell, err := busybox()
	if err != nil {
		return "", fmt.Errorf("image of %s: %w", program, err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("image of %s: %w; run hack/install test", program, err)
	}
	sum := sha256.Sum256(data)
	images, err := cached(filepath.Base(program), slices.Concat(sum[:], shell), map[string]func() (v1.Image, error){
		name: func() (v1.Image, error) {
			files, err := busyboxFiles(shell)
			if err != nil {
				return nil, err
			}
			path := "bin/" + filepath.Base(program)
			files = append(files, File{Name: path, Mode: 0o755, Data: data})
			return NewImage(v1.Config{Entrypoint: []string{"/" + path}, Env: []string{"PATH=/bin"}}, files)
		},
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return name, images.Import(ctx, l.Runtime.Programs, l.Runtime.Socket())
}
