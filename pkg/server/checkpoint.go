package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// checkpoint has the runtime write a running container's state into an archive
// below the agent's folder (behaviour row 1.20-14).
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	container := r.PathValue("container")
	p, ok := s.pod(r)
	if !ok {
		refuse(w, r, http.StatusNotFound, "pod does not exist")
		return
	}
	if pod.FindContainer(p.Spec, container) == nil {
		refuse(w, r, http.StatusNotFound, fmt.Sprintf("container %v does not exist", container))
		return
	}
	var timeout time.Duration // the runtime's own
	if given := r.URL.Query()["timeout"]; len(given) > 0 {
		seconds, err := strconv.ParseInt(given[len(given)-1], 10, 32)
		if err != nil || seconds < 0 {
			refuse(w, r, http.StatusNotFound, "cannot parse value of timeout parameter")
			return
		}
		timeout = time.Duration(seconds) * time.Second
	}
	archive, err := s.writeCheckpoint(r, p, container, timeout)
	if err == nil {
		reply(w, map[string][]string{"items": {archive}})
		return
	}
	code := http.StatusInternalServerError
	if errors.Is(err, cri.ErrNoCheckpoints) {
		code = http.StatusNotFound
	}
	refuse(w, r, code, fmt.Sprintf("checkpointing of %s/%s/%s failed (%v)", p.Spec.Namespace, p.Spec.Name, container, err))
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
