package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// standardResources are the names without a domain that a container may ask
// for, beside huge pages.
var standardResources = sets.New(v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage)

func validateResources(r *v1.ResourceRequirements, path *field.Path) field.ErrorList {
	errs := validateQuantities(r.Limits, path.Child("limits"))
	own := maps.Clone(r.Requests) // without those that a limit was the default for
	maps.DeleteFunc(own, func(name v1.ResourceName, request resource.Quantity) bool {
		limit, ok := r.Limits[name]
		return ok && limit.Cmp(request) == 0
	})
	errs = append(errs, validateQuantities(own, path.Child("requests"))...)
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		request, at := r.Requests[name], path.Child("requests").Key(string(name))
		limit, limited := r.Limits[name]
		switch {
		case !limited && !mayOvercommit(name):
			errs = append(errs, field.Required(path.Child("limits").Key(string(name)), "must be set: requests of this resource equal the limit"))
		case !limited:
		case !mayOvercommit(name) && request.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(at, request.String(), fmt.Sprintf("must be equal to the limit of %s", limit.String())))
		case request.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(at, request.String(), fmt.Sprintf("must be at most the limit of %s", limit.String())))
		}
	}
	if has(r, isHugePage) && !has(r, func(n v1.ResourceName) bool { return n == v1.ResourceCPU || n == v1.ResourceMemory }) {
		errs = append(errs, field.Forbidden(path, "huge pages require cpu or memory"))
	}
	return errs
}

func has(r *v1.ResourceRequirements, is func(v1.ResourceName) bool) bool {
	for _, list := range []v1.ResourceList{r.Limits, r.Requests} {
		for name := range list {
			if is(name) {
				return true
			}
		}
	}
	return false
}

func validateQuantities(list v1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		quantity, at := list[name], path.Key(string(name))
		if quantity.Sign() < 0 {
			errs = append(errs, field.Invalid(at, quantity.String(), "must be 0 or more"))
		}
		if !strings.Contains(string(name), "/") {
			if !standardResources.Has(name) && !isHugePage(name) {
				errs = append(errs, field.Invalid(at, name, "must be cpu, memory, ephemeral-storage, hugepages-<size> or a name with a domain"))
			}
			continue
		}
		for _, msg := range validation.IsQualifiedName(string(name)) {
			errs = append(errs, field.Invalid(at, name, msg))
		}
		if quantity.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(at, quantity.String(), "must be an integer"))
		}
	}
	return errs
}

// validatePodResources checks the resources of the pod as a whole, also against
// those of its containers.
func validatePodResources(spec *v1.PodSpec, path *field.Path) field.ErrorList {
	r := spec.Resources
	if r == nil {
		return nil
	}
	errs := validateResources(r, path)
	for _, list := range []v1.ResourceList{r.Limits, r.Requests} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if !resourcehelper.IsSupportedPodLevelResource(name) {
				errs = append(errs, field.NotSupported(path, name, sets.List(resourcehelper.SupportedPodLevelResources())))
			}
		}
	}
	pod := &v1.Pod{Spec: *spec}
	sum := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		total := sum[name]
		if request, ok := r.Requests[name]; ok && request.Cmp(total) < 0 {
			errs = append(errs, field.Invalid(path.Child("requests").Key(string(name)), request.String(),
				fmt.Sprintf("must be at least what the containers request together, %s", total.String())))
		}
	}
	for i := range spec.Containers {
		for _, name := range slices.Sorted(maps.Keys(spec.Containers[i].Resources.Limits)) {
			limit := spec.Containers[i].Resources.Limits[name]
			if whole, ok := r.Limits[name]; ok && limit.Cmp(whole) > 0 {
				errs = append(errs, field.Invalid(field.NewPath("spec", "containers").Index(i).Child("resources", "limits").Key(string(name)),
					limit.String(), fmt.Sprintf("must be at most the pod's limit of %s", whole.String())))
			}
		}
	}
	return errs
}
