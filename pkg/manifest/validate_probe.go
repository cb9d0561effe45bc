package manifest

import (
	"fmt"
	"reflect"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what a probe or hook does: one of these.
type handler struct {
	Exec      *v1.ExecAction
	HTTPGet   *v1.HTTPGetAction
	TCPSocket *v1.TCPSocketAction
	GRPC      *v1.GRPCAction
	Sleep     *v1.SleepAction
}

func validateHooksAndProbes(c *v1.Container, grace *int64, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Lifecycle != nil {
		at := path.Child("lifecycle")
		for name, hook := range map[string]*v1.LifecycleHandler{"postStart": c.Lifecycle.PostStart, "preStop": c.Lifecycle.PreStop} {
			if hook != nil {
				h := handler{Exec: hook.Exec, HTTPGet: hook.HTTPGet, TCPSocket: hook.TCPSocket, Sleep: hook.Sleep}
				errs = append(errs, h.validate(grace, at.Child(name))...)
			}
		}
	}
	errs = append(errs, validateProbe(c.LivenessProbe, path.Child("livenessProbe"))...)
	errs = append(errs, validateProbe(c.StartupProbe, path.Child("startupProbe"))...)
	errs = append(errs, validateProbe(c.ReadinessProbe, path.Child("readinessProbe"))...)
	if p := c.LivenessProbe; p != nil && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(path.Child("livenessProbe", "successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	if p := c.StartupProbe; p != nil && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(path.Child("startupProbe", "successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	if p := c.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("readinessProbe", "terminationGracePeriodSeconds"), "may not be set: a readiness probe ends no container"))
	}
	return errs
}

// refuseHooksAndProbes is for init containers, which end by themselves.
func refuseHooksAndProbes(c *v1.Container, path *field.Path) field.ErrorList {
	const why = "may be set on an init container only with restartPolicy Always"
	var errs field.ErrorList
	if c.Lifecycle != nil {
		errs = append(errs, field.Forbidden(path.Child("lifecycle"), why))
	}
	if c.LivenessProbe != nil {
		errs = append(errs, field.Forbidden(path.Child("livenessProbe"), why))
	}
	if c.ReadinessProbe != nil {
		errs = append(errs, field.Forbidden(path.Child("readinessProbe"), why))
	}
	if c.StartupProbe != nil {
		errs = append(errs, field.Forbidden(path.Child("startupProbe"), why))
	}
	return errs
}

func validateProbe(p *v1.Probe, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	h := handler{Exec: p.Exec, HTTPGet: p.HTTPGet, TCPSocket: p.TCPSocket, GRPC: p.GRPC}
	errs := h.validate(nil, path)
	errs = append(errs, notNegative(path.Child("initialDelaySeconds"), &p.InitialDelaySeconds)...)
	errs = append(errs, notNegative(path.Child("timeoutSeconds"), &p.TimeoutSeconds)...)
	errs = append(errs, notNegative(path.Child("periodSeconds"), &p.PeriodSeconds)...)
	errs = append(errs, notNegative(path.Child("successThreshold"), &p.SuccessThreshold)...)
	errs = append(errs, notNegative(path.Child("failureThreshold"), &p.FailureThreshold)...)
	if g := p.TerminationGracePeriodSeconds; g != nil && *g < 1 {
		errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *g, "must be 1 or more"))
	}
	return errs
}

// validate checks that the handler is exactly one, and sound. grace bounds a
// sleep, in seconds.
func (h handler) validate(grace *int64, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch countSet(&h) {
	case 1:
	case 0:
		errs = append(errs, field.Required(path, "must say what to do: exec, httpGet, tcpSocket, grpc or sleep"))
	default:
		errs = append(errs, field.Forbidden(path, "may not have more than one handler"))
	}
	if h.Exec != nil && len(h.Exec.Command) == 0 {
		errs = append(errs, field.Required(path.Child("exec", "command"), ""))
	}
	if h.HTTPGet != nil {
		at := path.Child("httpGet")
		errs = append(errs, validatePort(h.HTTPGet.Port, at.Child("port"))...)
		errs = append(errs, oneOf(at.Child("scheme"), h.HTTPGet.Scheme, v1.URISchemeHTTP, v1.URISchemeHTTPS)...)
		for i, header := range h.HTTPGet.HTTPHeaders {
			errs = append(errs, checkName(at.Child("httpHeaders").Index(i).Child("name"), header.Name, validation.IsHTTPHeaderName)...)
		}
	}
	if h.TCPSocket != nil {
		errs = append(errs, validatePort(h.TCPSocket.Port, path.Child("tcpSocket", "port"))...)
	}
	if h.GRPC != nil {
		errs = append(errs, validatePort(intstr.FromInt32(h.GRPC.Port), path.Child("grpc", "port"))...)
	}
	if h.Sleep != nil && grace != nil && (h.Sleep.Seconds < 0 || h.Sleep.Seconds > *grace) {
		errs = append(errs, field.Invalid(path.Child("sleep", "seconds"), h.Sleep.Seconds,
			fmt.Sprintf("must be between 0 and terminationGracePeriodSeconds (%d)", *grace)))
	}
	return errs
}

func validatePort(port intstr.IntOrString, path *field.Path) field.ErrorList {
	if port.Type == intstr.String {
		return checkName(path, port.StrVal, validation.IsValidPortName)
	}
	var errs field.ErrorList
	for _, msg := range validation.IsValidPortNum(port.IntValue()) {
		errs = append(errs, field.Invalid(path, port.IntVal, msg))
	}
	return errs
}

// countSet counts the pointers of a struct that aren't nil: how many of its
// alternatives were chosen.
func countSet(alternatives any) int {
	v := reflect.ValueOf(alternatives).Elem()
	n := 0
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			n++
		}
	}
	return n
}
