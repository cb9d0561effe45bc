// Package manifest is what a pod's manifest must be: the defaults that an
// apiserver would have filled in, and the checks it would have made, so that a
// pod from a file or a URL is as good as one from an apiserver. All of it is
// pure functions over v1.Pod.
package manifest

import (
	"strings"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"
)

// Default fills in what an apiserver of 1.36 fills in when a pod is created
// (behaviour rows 1.1-8, 1.6-1, 1.10-1). It alters the pod in place; a second
// time changes nothing.
func Default(pod *v1.Pod) {
	spec := &pod.Spec
	defaultSpec(spec)
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for _, list := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			defaultContainer(&list[i])
			defaultRequests(&list[i].Resources)
			if spec.HostNetwork {
				defaultHostPorts(list[i].Ports)
			}
		}
	}
	for i := range spec.EphemeralContainers {
		defaultContainer((*v1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	if spec.Resources != nil {
		defaultPodResources(pod)
		roundUp(spec.Resources.Limits)
		roundUp(spec.Resources.Requests)
	}
	roundUp(spec.Overhead)
}

func defaultSpec(spec *v1.PodSpec) {
	setIfZero(&spec.RestartPolicy, v1.RestartPolicyAlways)
	setIfZero(&spec.DNSPolicy, v1.DNSClusterFirst)
	setIfZero(&spec.SchedulerName, v1.DefaultSchedulerName)
	setIfNil(&spec.TerminationGracePeriodSeconds, int64(v1.DefaultTerminationGracePeriodSeconds))
	if *spec.TerminationGracePeriodSeconds < 0 {
		spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	}
	setIfNil(&spec.EnableServiceLinks, v1.DefaultEnableServiceLinks)
	setIfNil(&spec.SecurityContext, v1.PodSecurityContext{})
	// The old name of the field is an alias; the new one wins.
	setIfZero(&spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
}

func defaultContainer(c *v1.Container) {
	setIfZero(&c.ImagePullPolicy, pullPolicy(c.Image))
	setIfZero(&c.TerminationMessagePath, v1.TerminationMessagePathDefault)
	setIfZero(&c.TerminationMessagePolicy, v1.TerminationMessageReadFile)
	for i := range c.Ports {
		setIfZero(&c.Ports[i].Protocol, v1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				setIfNil(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for _, probe := range []*v1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		defaultProbe(probe)
	}
	if c.Lifecycle != nil {
		for _, hook := range []*v1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				defaultHTTPGet(hook.HTTPGet)
			}
		}
	}
}

func defaultProbe(p *v1.Probe) {
	if p == nil {
		return
	}
	setIfZero(&p.TimeoutSeconds, 1)
	setIfZero(&p.PeriodSeconds, 10)
	setIfZero(&p.SuccessThreshold, 1)
	setIfZero(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		setIfNil(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(get *v1.HTTPGetAction) {
	if get != nil {
		setIfZero(&get.Path, "/")
		setIfZero(&get.Scheme, v1.URISchemeHTTP)
	}
}

func defaultFieldRef(ref *v1.ObjectFieldSelector) {
	if ref != nil {
		setIfZero(&ref.APIVersion, "v1")
	}
}

// pullPolicy is Always for an image whose tag is, or is taken to be, latest.
func pullPolicy(image string) v1.PullPolicy {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return v1.PullIfNotPresent // the image is refused where it is to be pulled
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok && tagged.Tag() == "latest" {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

func defaultHostPorts(ports []v1.ContainerPort) {
	for i := range ports {
		setIfZero(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

// defaultRequests makes a limit the request where none is given.
func defaultRequests(r *v1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = v1.ResourceList{}
	}
	addMissing(r.Requests, r.Limits)
}

// defaultPodResources fills resources of the pod as a whole where some are
// given: limits of huge pages are the containers' sum; requests are those of the
// containers, for what can be overcommitted, or else the pod's limits.
func defaultPodResources(pod *v1.Pod) {
	r := pod.Spec.Resources
	if len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	sum := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	for name, quantity := range sum {
		_, limited := r.Limits[name]
		_, requested := r.Requests[name]
		if isHugePage(name) && resourcehelper.IsSupportedPodLevelResource(name) && !limited && !requested {
			if r.Limits == nil {
				r.Limits = v1.ResourceList{}
			}
			r.Limits[name] = quantity.DeepCopy()
		}
	}
	if len(r.Limits) == 0 {
		return
	}
	requests := v1.ResourceList{}
	sum = resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	for name, quantity := range sum {
		if resourcehelper.IsSupportedPodLevelResource(name) && mayOvercommit(name) {
			requests[name] = quantity
		}
	}
	for name, quantity := range r.Limits {
		if resourcehelper.IsSupportedPodLevelResource(name) {
			addMissing(requests, v1.ResourceList{name: quantity})
		}
	}
	if r.Requests == nil && len(requests) > 0 {
		r.Requests = v1.ResourceList{}
	}
	addMissing(r.Requests, requests)
}

// addMissing copies into list what it lacks.
func addMissing(list, from v1.ResourceList) {
	for name, quantity := range from {
		if _, ok := list[name]; !ok {
			list[name] = quantity.DeepCopy()
		}
	}
}

// roundUp drops what is finer than a thousandth.
func roundUp(list v1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(resource.Milli)
		list[name] = quantity
	}
}

func isHugePage(name v1.ResourceName) bool {
	return strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
}

// mayOvercommit says whether limits may exceed requests: for the node's own
// resources except huge pages.
func mayOvercommit(name v1.ResourceName) bool {
	return isNative(name) && !isHugePage(name)
}

func isNative(name v1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix)
}

func setIfZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func setIfNil[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
