package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// webSockets is the gate of the streams that are translated here for the runtime.
const webSockets = "ExtendWebSocketsToKubelet"

// addStreams are the paths by which people look into containers.
func (s *Server) addStreams(mux *http.ServeMux) {
	const one, uid, container = "/{namespace}/{pod}", "/{uid}", "/{container}"
	mux.HandleFunc("GET /containerLogs"+one+container, s.containerLogs)
	for _, of := range []string{one, one + uid} {
		mux.HandleFunc("POST /run"+of+container, s.run)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			mux.HandleFunc(method+" /exec"+of+container, s.exec)
			mux.HandleFunc(method+" /attach"+of+container, s.attach)
			mux.HandleFunc(method+" /portForward"+of, s.portForward)
		}
	}
}

// pod is the one that the request names. Of two of the same name it is the one
// that is still wanted. A UID has to be the pod's; of a static pod it is not
// looked at, as clients know that of its image at the apiserver.
func (s *Server) pod(r *http.Request) (pod.Pod, bool) {
	var found []pod.Pod
	for _, p := range s.options.Pods.Pods() {
		uid := types.UID(r.PathValue("uid"))
		if p.Spec.Namespace == r.PathValue("namespace") && p.Spec.Name == r.PathValue("pod") &&
			(uid == "" || uid == p.UID() || pod.IsStatic(p.Spec)) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return pod.Pod{}, false
	}
	wanted := func(p pod.Pod) bool { return p.Stop == nil || !p.Stop.Unwanted }
	p := found[max(0, slices.IndexFunc(found, wanted))]
	trace.Of(r.Context(), p.Spec)
	return p, true
}

// running is the instance of a container that runs, or nil.
func running(p pod.Pod, container string) *pod.Container {
	if k := p.Containers[container].Known; k != nil && k.State == pod.Running {
		return k
	}
	return nil
}

// over is closed when it is true of the pod, when nothing is left of the pod, or
// when ctx ends.
func (s *Server) over(ctx context.Context, uid types.UID, is func(pod.Pod) bool) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.options.Pods.Await(ctx, uid, is)
	}()
	return done
}

// streamsOf are the streams that a request asks for.
func streamsOf(q url.Values) (cri.Streams, error) {
	on := func(name string) bool { return q.Get(name) == "1" }
	s := cri.Streams{Stdin: on(v1.ExecStdinParam), Stdout: on(v1.ExecStdoutParam), Stderr: on(v1.ExecStderrParam), TTY: on(v1.ExecTTYParam)}
	s.Stderr = s.Stderr && !s.TTY // a terminal has one output
	if !s.Stdin && !s.Stdout && !s.Stderr {
		return s, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return s, nil
}

// run runs a command and answers with what it printed (behaviour row 1.20-8).
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	p, ok := s.pod(r)
	if !ok {
		refuse(w, r, http.StatusNotFound, "pod does not exist")
		return
	}
	c := running(p, r.PathValue("container"))
	if c == nil {
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("container not found (%q)", r.PathValue("container")))
		return
	}
	command := strings.Split(r.FormValue("cmd"), " ")
	exit, output, err := s.options.Runtime.Exec(r.Context(), c.ID, command, 0)
	switch {
	case err != nil:
		refuse(w, r, http.StatusInternalServerError, err.Error())
	case exit != 0:
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("command '%s' exited with %d: %s", strings.Join(command, " "), exit, output))
	default:
		w.Header().Set("Content-Type", "application/json") // as the kubelet says of any output
		_, _ = w.Write([]byte(output))
	}
}

// exec runs a command with its streams (behaviour row 1.20-9).
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(p pod.Pod, c *pod.Container, streams *cri.Streams) (string, error) {
		return s.options.Runtime.ExecURL(r.Context(), c.ID, r.URL.Query()[v1.ExecCommandParam], *streams)
	})
}

// attach connects to a container's own streams (behaviour row 1.20-9).
func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(p pod.Pod, c *pod.Container, streams *cri.Streams) (string, error) {
		if spec := pod.FindContainer(p.Spec, c.Name); spec != nil {
			streams.TTY = spec.TTY // whatever the client thinks
			streams.Stderr = streams.Stderr && !spec.TTY
		}
		return s.options.Runtime.AttachURL(r.Context(), c.ID, *streams)
	})
}

// command proxies the streams of a command to where the runtime says.
func (s *Server) command(w http.ResponseWriter, r *http.Request, where func(pod.Pod, *pod.Container, *cri.Streams) (string, error)) {
	streams, err := streamsOf(r.URL.Query())
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	p, ok := s.pod(r)
	if !ok {
		refuse(w, r, http.StatusNotFound, "pod does not exist")
		return
	}
	c := running(p, r.PathValue("container"))
	if c == nil {
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("container not found (%q)", r.PathValue("container")))
		return
	}
	if !upgrades(w, r) {
		return
	}
	address, err := where(p, c, &streams)
	if err != nil {
		_ = streaming.WriteError(err, w) // if this fails nobody is left to tell
		return
	}
	s.proxy(w, r, stream{address: address, uid: p.UID(), waits: s.waits, over: pod.Over(c.Name, c.ID),
		handler: func(to *url.URL, session *session) http.Handler {
			if s.options.Gate(webSockets) && wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
				return translator.NewStreamTranslatorHandler(to, session.transport(), 0,
					translator.Options{Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr, Tty: streams.TTY})
			}
			return through(to, session)
		}})
}

// portForward carries connections to a pod's ports (behaviour row 1.20-10).
func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	tunnelled := s.options.Gate(webSockets) && wsstream.IsWebSocketRequestWithTunnelingProtocol(r)
	options := &portforward.V4Options{}
	if !tunnelled {
		var err error
		if options, err = portforward.NewV4Options(r); err != nil {
			refuse(w, r, http.StatusBadRequest, err.Error())
			return
		}
	}
	p, ok := s.pod(r)
	if !ok {
		refuse(w, r, http.StatusNotFound, "pod does not exist")
		return
	}
	sandbox := ready(p)
	if sandbox == "" {
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("pod not found (%q)", p.Spec.Name+"_"+p.Spec.Namespace))
		return
	}
	if !upgrades(w, r) {
		return
	}
	address, err := s.options.Runtime.PortForwardURL(r.Context(), sandbox, options.Ports)
	if err != nil {
		_ = streaming.WriteError(err, w) // if this fails nobody is left to tell
		return
	}
	waits := s.waits
	waits.last = min(waits.last, lastBytes) // the runtime keeps the session: there is no end to wait for
	s.proxy(w, r, stream{address: address, uid: p.UID(), waits: waits, over: func(p pod.Pod) bool { return ready(p) != sandbox },
		handler: func(to *url.URL, session *session) http.Handler {
			if !tunnelled {
				return through(to, session)
			}
			return translator.NewTunnelingHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				through(to, session).ServeHTTP(tunnel{w, session}, r)
			}))
		}})
}

// ready is the sandbox of a pod that is up, or empty.
func ready(p pod.Pod) string {
	if len(p.View.Sandboxes) == 0 || !p.View.Sandboxes[0].Ready {
		return ""
	}
	return p.View.Sandboxes[0].ID
}

// upgrades says whether the request asks for an upgrade, and refuses it if not.
// What else it says is forwarded to the runtime; a body would hold that up.
func upgrades(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case !httpstream.IsUpgradeRequest(r):
		refuse(w, r, http.StatusBadRequest, "Upgrade request required")
	case r.ContentLength != 0:
		refuse(w, r, http.StatusBadRequest, "a request for an upgrade has no body")
	default:
		return true
	}
	return false
}

// stream is an upgraded request and what it is about.
type stream struct {
	address string // the runtime's
	uid     types.UID
	over    func(pod.Pod) bool // says that what it is about has ended
	waits   waits
	handler func(to *url.URL, session *session) http.Handler
}

// proxy connects the client with the runtime's streaming server until one of
// them ends (behaviour row 1.20-21).
func (s *Server) proxy(w http.ResponseWriter, r *http.Request, st stream) {
	to, err := url.Parse(st.address)
	if err != nil {
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("the runtime's streaming URL: %v", err))
		return
	}
	// The handler's connections, its goroutines and those here end with the session.
	var wg sync.WaitGroup
	defer wg.Wait()
	session := newSession(r.Context(), st.waits, s.log)
	defer session.end()
	over := s.over(session.ctx, st.uid, st.over)
	wg.Go(func() { session.watch(over) })
	wg.Go(func() { <-over })

	r = r.Clone(session.ctx)
	st.handler(to, session).ServeHTTP(hijacker{w, session}, r)
}

// through passes the upgraded connection on as it is.
func through(to *url.URL, session *session) http.Handler {
	return proxy.NewUpgradeAwareHandler(to, session.transport(), false, true, responder{})
}

// responder answers when the runtime cannot be reached.
type responder struct{}

// Error is proxy.ErrorResponder's.
func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	refuse(w, r, http.StatusInternalServerError, err.Error())
}
