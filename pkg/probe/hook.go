package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Hook is a lifecycle hook of a running instance.
type Hook struct {
	*v1.LifecycleHandler
	Container   *v1.Container
	ContainerID string
	Host        string // the pod's address, where an httpGet goes by default
}

// Run runs a hook, for as long as ctx allows, and says what people are to know
// of it (behaviour rows 1.5-3 to 1.5-6, T6).
func (h *Handlers) Run(ctx context.Context, k Hook) (told []pod.Note, err error) {
	told, err = h.run(ctx, k)
	if err != nil && len(err.Error()) > maxOutput {
		err = errors.New(brief(err.Error())) // it quotes what the container answered
	}
	return told, err
}

func (h *Handlers) run(ctx context.Context, k Hook) (told []pod.Note, err error) {
	switch {
	case k.Exec != nil:
		code, output, err := h.runtime.Exec(ctx, k.ContainerID, k.Exec.Command, 0)
		if err == nil && code != 0 {
			err = fmt.Errorf("hook ended with exit code %d: %.512s", code, output)
		}
		return nil, err
	case k.HTTPGet != nil:
		return h.get(ctx, k)
	case k.Sleep != nil:
		return nil, sleep(ctx, time.Duration(k.Sleep.Seconds)*time.Second)
	case k.TCPSocket != nil:
		return nil, errors.New("invalid handler: a hook may not be a tcpSocket")
	}
	return nil, errors.New("invalid handler: the hook says nothing to do")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.New("container terminated before sleep hook finished")
	case <-t.C:
		return nil
	}
}

// get runs an httpGet hook. Whatever the answer is, that there is one is a
// success. HTTPS to a server that doesn't speak it is tried again without, and
// without the credentials.
func (h *Handlers) get(ctx context.Context, k Hook) ([]pod.Note, error) {
	req, err := request(k.HTTPGet, k.Container, k.Host, "kube-lifecycle/"+h.release)
	if err != nil {
		return nil, err
	}
	req = req.WithContext(ctx)
	err = h.fetch(req)
	if !errors.Is(err, http.ErrSchemeMismatch) {
		return nil, err
	}
	req.URL.Scheme = "http"
	req.Header.Del("Authorization")
	if h.fetch(req) != nil {
		return nil, err
	}
	return []pod.Note{{Warning: true, Reason: "LifecycleHTTPFallback",
		Message: fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host)}}, nil
}

func (h *Handlers) fetch(req *http.Request) error {
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxBody) // nobody asked for it
	return nil
}
