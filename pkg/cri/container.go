package cri

import (
	"errors"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// CreateRequest is what the pod's value and its surroundings add to the spec.
type CreateRequest struct {
	Container string // name in the spec, of a container of any kind
	SandboxID string
	Attempt   uint32
	// ImageRef is what Pull returned.
	ImageRef string
	// Mounts are the host folders of the pod's volumes by their names.
	Mounts map[string]string
	// SubPaths are the host paths of those mounts that have a subPath, by their
	// index in the container's volumeMounts.
	SubPaths map[int]string
	PodIPs   []string
	Env      []env.Var
	// Handler and Users are those of the sandbox.
	Handler string
	Users   pod.IDs
}

// Parts is what Create finds out for ContainerConfig.
type Parts struct {
	Request CreateRequest
	User    ImageUser
	// TargetID is the container whose processes an ephemeral one sees.
	TargetID string
}

// ContainerConfig is the container as the kubelet would ask for it (behaviour
// rows 1.5-17, 1.7, 1.9, 1.11-4), without its mounts: to make them needs more
// than the spec.
func ContainerConfig(p *v1.Pod, parts Parts, m Machine, o PodOptions) (*runtimeapi.ContainerConfig, error) {
	req := parts.Request
	c, err := containerNamed(p, req.Container)
	if err != nil {
		return nil, err
	}
	security, err := containerSecurity(p, c, parts, m, o)
	if err != nil {
		return nil, err
	}
	if parts.TargetID != "" && security.NamespaceOptions.Pid == runtimeapi.NamespaceMode_CONTAINER {
		security.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		security.NamespaceOptions.TargetId = parts.TargetID
	}
	annotations, err := containerAnnotations(p, c, req.Attempt)
	if err != nil {
		return nil, err
	}
	signal, err := stopSignal(c)
	if err != nil {
		return nil, err
	}
	values := env.Values(req.Env)
	command, err := env.Expand(c.Command, values)
	if err != nil {
		return nil, err
	}
	args, err := env.Expand(c.Args, values)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: req.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: req.ImageRef, UserSpecifiedImage: c.Image},
		Command:     command,
		Args:        args,
		WorkingDir:  c.WorkingDir,
		Labels:      containerLabels(p, c),
		Annotations: annotations,
		Envs:        variables(req.Env),
		LogPath:     fmt.Sprintf("%s/%d.log", c.Name, req.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  signal,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       containerResources(p, c, m, o),
			SecurityContext: security,
		},
	}, nil
}

func variables(vars []env.Var) []*runtimeapi.KeyValue {
	var out []*runtimeapi.KeyValue
	for _, v := range vars {
		out = append(out, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return out
}

// stopSignal is lifecycle.stopSignal by CRI's number for it, which spells
// SIGRTMIN+1 as SIGRTMINPLUS1.
func stopSignal(c *v1.Container) (runtimeapi.Signal, error) {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_RUNTIME_DEFAULT, nil
	}
	name := string(*c.Lifecycle.StopSignal)
	n, ok := runtimeapi.Signal_value[strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(name)]
	if !ok {
		return 0, fmt.Errorf("lifecycle.stopSignal: unknown signal %q", name)
	}
	return runtimeapi.Signal(n), nil
}

// propagation is how mounts made later cross between host and container.
func propagation(mode *v1.MountPropagationMode) (runtimeapi.MountPropagation, error) {
	if mode == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	}
	switch *mode {
	case v1.MountPropagationNone:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case v1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case v1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	}
	return 0, fmt.Errorf("unknown mountPropagation %q", *mode)
}

// recursiveReadOnly says whether all that is mounted below is read-only too.
func recursiveReadOnly(vm v1.VolumeMount, supported bool) (bool, error) {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !vm.ReadOnly {
		return false, errors.New("recursiveReadOnly needs readOnly")
	}
	if vm.MountPropagation != nil && *vm.MountPropagation != v1.MountPropagationNone {
		return false, fmt.Errorf("recursiveReadOnly is not compatible with mountPropagation %s", *vm.MountPropagation)
	}
	switch *vm.RecursiveReadOnly {
	case v1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case v1.RecursiveReadOnlyEnabled:
		if !supported {
			return false, errors.New("recursiveReadOnly is not supported by the runtime")
		}
		return true, nil
	}
	return false, fmt.Errorf("unknown recursiveReadOnly %q", *vm.RecursiveReadOnly)
}
