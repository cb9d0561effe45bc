package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/logs"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// splitStreams is the gate of logs of stdout or stderr alone.
const splitStreams = "PodLogsQuerySplitStreams"

// containerLogs shows what a container printed (behaviour row 1.20-11).
func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	o, err := logOptions(r.URL.Query())
	if err != nil {
		refuse(w, r, http.StatusBadRequest, `{"message": "Unable to decode query."}`)
		return
	}
	if err := logs.Check(o); err != nil {
		refuse(w, r, http.StatusUnprocessableEntity, `{"message": "Invalid request."}`)
		return
	}
	name := r.PathValue("container")
	p, ok := s.pod(r)
	switch {
	case !ok:
		refuse(w, r, http.StatusNotFound, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")))
		return
	case pod.FindContainer(p.Spec, name) == nil:
		refuse(w, r, http.StatusNotFound, fmt.Sprintf("container %q not found in pod %q", name, p.Spec.Name))
		return
	case o.Stream != nil && *o.Stream != v1.LogStreamAll && !s.options.Gate(splitStreams):
		refuse(w, r, http.StatusBadRequest, fmt.Sprintf("unable to return the given log stream: %q. Please enable %s feature gate in kubelet", *o.Stream, splitStreams))
		return
	}
	c, err := pod.LogOf(p, s.options.Pods.Node(), time.Now(), name, o.Previous)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	s.show(w, r, p, c, o)
}

// show writes the log of an instance.
func (s *Server) show(w http.ResponseWriter, r *http.Request, p pod.Pod, c *pod.Container, o v1.PodLogOptions) {
	path, err := s.options.Runtime.LogFile(p.Spec, c.Name, c.Attempt)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	log := logs.Log{Path: path}
	if o.Follow && c.State == pod.Running {
		over := s.over(ctx, p.UID(), pod.Over(c.Name, c.ID))
		defer func() { <-over }() // after cancel
		log.Ended = over
	}
	defer cancel()
	out := &flusher{to: w, flush: http.NewResponseController(w)}
	err = logs.Read(ctx, log, o, out, out)
	switch {
	case err == nil || out.failed: // the client has it all, or is gone
	case !out.began && errors.Is(err, fs.ErrNotExist):
		refuse(w, r, http.StatusNotFound, err.Error())
	case !out.began:
		refuse(w, r, http.StatusBadRequest, err.Error())
	default:
		if ctx.Err() == nil {
			s.log.Warn("a log was shown in part only", "pod", p.Spec.Namespace+"/"+p.Spec.Name, "container", c.Name, "error", err)
		}
		panic(http.ErrAbortHandler) // so that the client knows that it does not have all
	}
}

// flusher has everything sent at once: who follows waits for it.
type flusher struct {
	to            http.ResponseWriter
	flush         *http.ResponseController
	began, failed bool
}

func (f *flusher) Write(data []byte) (n int, err error) {
	if !f.began {
		f.began = true
		f.to.Header().Set("Content-Type", "text/plain; charset=utf-8")
		f.to.Header().Set("X-Content-Type-Options", "nosniff")
	}
	if n, err = f.to.Write(data); err == nil {
		err = f.flush.Flush()
	}
	f.failed = f.failed || err != nil
	return n, err
}

// logOptions reads v1.PodLogOptions as API machinery does, and the older tail.
func logOptions(q url.Values) (o v1.PodLogOptions, err error) {
	switch tail := q.Get("tail"); tail {
	case "":
	case "all":
		q.Del("tailLines")
	default:
		q.Set("tailLines", tail)
	}
	var errs []error
	for name, to := range map[string]*bool{"follow": &o.Follow, "previous": &o.Previous, "timestamps": &o.Timestamps} {
		in := q[name]
		errs = append(errs, runtime.Convert_Slice_string_To_bool(&in, to, nil))
	}
	for name, to := range map[string]**int64{"sinceSeconds": &o.SinceSeconds, "tailLines": &o.TailLines, "limitBytes": &o.LimitBytes} {
		in := q[name]
		errs = append(errs, runtime.Convert_Slice_string_To_Pointer_int64(&in, to, nil))
	}
	if since := q["sinceTime"]; len(since) > 0 {
		errs = append(errs, metav1.Convert_Slice_string_To_Pointer_v1_Time(&since, &o.SinceTime, nil))
	}
	if q.Has("stream") {
		o.Stream = ptr.To(q.Get("stream"))
	}
	return o, errors.Join(errs...)
}
