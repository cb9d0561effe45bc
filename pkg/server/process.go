package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/apiserver/pkg/server/statusz"
	"k8s.io/component-base/compatibility"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// addProcess serves what people ask of the program itself (behaviour row 1.20-16).
func (s *Server) addProcess(mux *http.ServeMux) {
	k := s.options.Config
	if *k.EnableProfilingHandler {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		if k.EnableContentionProfiling {
			runtime.SetBlockProfileRate(1)
		}
	} else {
		mux.HandleFunc("/debug/pprof/", disabled("profiling endpoint is disabled."))
	}
	if *k.EnableDebugFlagsHandler {
		mux.HandleFunc("/debug/flags/v", s.setVerbosity)
	} else {
		mux.HandleFunc("/debug/flags/v", disabled("flags endpoint is disabled."))
	}
}

// setVerbosity sets how much is logged, as --v does, until the agent starts anew.
func (s *Server) setVerbosity(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		http.Error(w, "unsupported http method", http.StatusNotAcceptable)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "error reading request body: "+err.Error(), http.StatusBadRequest)
		return
	}
	text := strings.TrimSpace(string(body))
	v, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		http.Error(w, fmt.Sprintf("verbosity %q is no number", text), http.StatusBadRequest)
		return
	}
	level := config.LogLevel(uint32(v))
	s.options.Process.Level.Set(level)
	s.log.Info("log level is set", "verbosity", v, "level", level)
	fmt.Fprintf(w, "successfully set klog.logging.verbosity to %s\n", text)
}

// configz is the configuration as it applies, without what is secret in it
// (behaviour row 1.20-12).
func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	k := *s.options.Config
	k.StaticPodURLHeader = config.Masked(k.StaticPodURLHeader)
	reply(w, map[string]any{"kubeletconfig": k})
}

type flags map[string]string

func (f flags) GetFlagz() map[string]string { return f }

// addZPages serves /flagz and /statusz, in the formats of all components.
func (s *Server) addZPages(mux *http.ServeMux) {
	const component = "kubelet"
	if s.options.Gate("ComponentFlagz") {
		flagz.Install(mux, component, flags(s.options.Process.Flags))
	}
	if s.options.Gate("ComponentStatusz") {
		v := compatibility.NewEffectiveVersionFromString(config.KubernetesVersion, "", "")
		statusz.Install(mux, component, statusz.NewRegistry(v, statusz.WithListedPaths(listed)))
	}
}

// listed are the paths that /statusz names.
var listed = []string{"/configz", "/debug", "/flagz", "/healthz", "/logs", "/metrics", "/pods", "/runningpods", "/statusz", "/stats"}
