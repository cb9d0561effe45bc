package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// checkpoint has the runtime write a running container's state into an archive
// below the agent's folder (behaviour row 1.20-14).
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	namespace, name, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	p, ok := s.pod(r)
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	if !hasContainer(p.Spec, container) {
		http.Error(w, fmt.Sprintf("container %v does not exist", container), http.StatusNotFound)
		return
	}
	var timeout time.Duration // the runtime's own
	if given := r.URL.Query()["timeout"]; len(given) > 0 {
		seconds, err := strconv.ParseInt(given[len(given)-1], 10, 32)
		if err != nil || seconds < 0 {
			http.Error(w, "cannot parse value of timeout parameter", http.StatusNotFound)
			return
		}
		timeout = time.Duration(seconds) * time.Second
	}
	archive, err := s.writeCheckpoint(r, p, container, timeout)
	switch {
	case errors.Is(err, cri.ErrNoCheckpoints):
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed (%v)", namespace, name, container, err), http.StatusNotFound)
	case err != nil:
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed (%v)", namespace, name, container, err), http.StatusInternalServerError)
	default:
		reply(w, map[string][]string{"items": {archive}})
	}
}

func (s *Server) writeCheckpoint(r *http.Request, p pod.Pod, container string, timeout time.Duration) (archive string, err error) {
	instance := running(p, container)
	if instance == nil {
		return "", fmt.Errorf("container %s does not run", container)
	}
	dir := filepath.Join(s.options.Process.Root, "checkpoints")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the folder of checkpoints: %w", err)
	}
	archive = filepath.Join(dir, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", p.Spec.Name, p.Spec.Namespace, container, time.Now().Format(time.RFC3339)))
	return archive, s.options.Runtime.Checkpoint(r.Context(), instance.ID, archive, timeout)
}

func hasContainer(p *v1.Pod, name string) bool {
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			if c.Name == name {
				return true
			}
		}
	}
	for _, c := range p.Spec.EphemeralContainers {
		if c.Name == name {
			return true
		}
	}
	return false
}
