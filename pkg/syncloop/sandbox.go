package syncloop

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// sandbox is what is asked of the runtime for a new sandbox, and what people are
// to know of it.
func (l *Loop) sandbox(p pod.Pod, act pod.Action) (cri.SandboxRequest, []pod.Note, error) {
	req := cri.SandboxRequest{Attempt: act.Attempt, Users: p.Verdict.Users}
	var err error
	if req.Handler, err = l.handler(p.Spec); err != nil {
		return req, nil, err
	}
	var notes []pod.Note
	req.DNS, notes, err = l.DNS.Pod(p.Spec)
	return req, unsaid(p, notes), err
}

// handler is the runtime's handler that the pod's RuntimeClass names, "" for
// the default. Its error passes when the class appears.
func (l *Loop) handler(p *v1.Pod) (string, error) {
	name := p.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class, err := l.Objects.RuntimeClass(*name)
	if err != nil {
		return "", fmt.Errorf("spec.runtimeClassName: %w", err)
	}
	return class.Handler, nil
}

// unsaid are the notes that the pod does not have yet: a sandbox that is tried
// again has nothing new to tell.
func unsaid(p pod.Pod, notes []pod.Note) []pod.Note {
	return slices.DeleteFunc(notes, func(n pod.Note) bool {
		return slices.ContainsFunc(p.Notes, func(old pod.Note) bool { return old.Reason == n.Reason && old.Message == n.Message })
	})
}
