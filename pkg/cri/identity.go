package cri

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Labels and annotations by which any agent recognises a pod in the runtime
// (behaviour row 1.5-17). They are the kubelet's, so that each can take over
// from the other.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	annotationHash          = "io.kubernetes.container.hash"
	annotationRestarts      = "io.kubernetes.container.restartCount"
	annotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop       = "io.kubernetes.container.preStopHandler"
	annotationPorts         = "io.kubernetes.container.ports"
	annotationDeletionGrace = "io.kubernetes.pod.deletionGracePeriod"
	annotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
)

// Hash identifies what a container is made from, in the form of annotation
// io.kubernetes.container.hash (behaviour row T2). Only name and image count.
func Hash(c *v1.Container) string {
	picked, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%v", dump.ForHash(picked)) // a hash takes all writes
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

func sandboxLabels(p *v1.Pod) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, p.Labels)
	labels[LabelPodName] = p.Name
	labels[LabelPodNamespace] = p.Namespace
	labels[LabelPodUID] = string(p.UID)
	return labels
}

func containerLabels(p *v1.Pod, c *v1.Container) map[string]string {
	return map[string]string{
		LabelPodName:       p.Name,
		LabelPodNamespace:  p.Namespace,
		LabelPodUID:        string(p.UID),
		LabelContainerName: c.Name,
	}
}

func containerAnnotations(p *v1.Pod, c *v1.Container, attempt uint32) (map[string]string, error) {
	a := map[string]string{
		annotationHash:          Hash(c),
		annotationRestarts:      strconv.FormatUint(uint64(attempt), 10),
		annotationMessagePath:   c.TerminationMessagePath,
		annotationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	if s := p.DeletionGracePeriodSeconds; s != nil {
		a[annotationDeletionGrace] = strconv.FormatInt(*s, 10)
	}
	if s := p.Spec.TerminationGracePeriodSeconds; s != nil {
		a[annotationGrace] = strconv.FormatInt(*s, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		raw, err := json.Marshal(c.Lifecycle.PreStop)
		if err != nil {
			return nil, fmt.Errorf("encode lifecycle.preStop: %w", err)
		}
		a[annotationPreStop] = string(raw)
	}
	if len(c.Ports) > 0 {
		raw, err := json.Marshal(c.Ports)
		if err != nil {
			return nil, fmt.Errorf("encode ports: %w", err)
		}
		a[annotationPorts] = string(raw)
	}
	return a, nil
}

// containerNamed finds a container of any kind. An ephemeral one has all the
// fields of the others that matter here.
func containerNamed(p *v1.Pod, name string) (*v1.Container, error) {
	for c := range pod.Containers(p) {
		if c.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no container %q", p.Namespace, p.Name, name)
}
