package cri

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// ImageUser is the user that an image names, by number or by name.
type ImageUser struct {
	UID  int64
	Name string // set when the image names its user, UID then means nothing
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// containerSecurity is the container's security context: its own settings
// before the pod's (behaviour rows 1.9-1 to 1.9-13).
func containerSecurity(p *v1.Pod, c *v1.Container, parts Parts, m Machine, o PodOptions) (*runtimeapi.LinuxContainerSecurityContext, error) {
	psc, csc := orEmpty(p.Spec.SecurityContext), orEmpty(c.SecurityContext)
	if err := verifyNonRoot(psc, csc, parts.User); err != nil {
		return nil, fmt.Errorf("%w (pod: \"%s_%s(%s)\", container: %s)", err, p.Name, p.Namespace, p.UID, c.Name)
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:     ptr.Deref(csc.Privileged, false),
		ReadonlyRootfs: ptr.Deref(csc.ReadOnlyRootFilesystem, false),
		NoNewPrivs:     csc.AllowPrivilegeEscalation != nil && !*csc.AllowPrivilegeEscalation,
		RunAsUser:      int64Value(cmp.Or(csc.RunAsUser, psc.RunAsUser)),
		RunAsGroup:     int64Value(cmp.Or(csc.RunAsGroup, psc.RunAsGroup)),
		SelinuxOptions: selinuxOptions(cmp.Or(csc.SELinuxOptions, psc.SELinuxOptions)),
		Capabilities:   capabilities(csc.Capabilities),
		MaskedPaths:    []string{},
		ReadonlyPaths:  []string{},
	}
	if out.RunAsUser == nil {
		if parts.User.Name != "" {
			out.RunAsUsername = parts.User.Name
		} else {
			out.RunAsUser = &runtimeapi.Int64Value{Value: parts.User.UID}
		}
	}
	if csc.ProcMount == nil || *csc.ProcMount != v1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = m.MaskedPaths, readonlyPaths
	}
	var err error
	if out.Seccomp, err = seccomp(cmp.Or(csc.SeccompProfile, psc.SeccompProfile), o); err != nil {
		return nil, err
	}
	//lint:ignore SA1019 old runtimes read the old field
	if out.Apparmor, out.ApparmorProfile, err = apparmor(appArmorProfile(p, c)); err != nil {
		return nil, err
	}
	if out.NamespaceOptions, err = namespaces(p, parts.Request.Users); err != nil {
		return nil, err
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy, err = groups(psc)
	return out, err
}

// verifyNonRoot enforces runAsNonRoot (behaviour row 1.9-2).
func verifyNonRoot(psc *v1.PodSecurityContext, csc *v1.SecurityContext, user ImageUser) error {
	if !ptr.Deref(cmp.Or(csc.RunAsNonRoot, psc.RunAsNonRoot), false) {
		return nil
	}
	if uid := cmp.Or(csc.RunAsUser, psc.RunAsUser); uid != nil {
		if *uid == 0 {
			return errors.New("container's runAsUser breaks non-root policy")
		}
		return nil
	}
	switch {
	case user.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", user.Name)
	case user.UID == 0:
		return errors.New("container has runAsNonRoot and image will run as root")
	case user.UID < 0 || user.UID > math.MaxInt32:
		return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d)", user.UID)
	}
	return nil
}

func seccomp(profile *v1.SeccompProfile, o PodOptions) (*runtimeapi.SecurityProfile, error) {
	switch {
	case profile == nil && o.SeccompDefault, profile != nil && profile.Type == v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case profile == nil || profile.Type != v1.SeccompProfileTypeLocalhost:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case profile.LocalhostProfile == nil || *profile.LocalhostProfile == "":
		return nil, errors.New("seccompProfile: type Localhost needs localhostProfile")
	}
	return &runtimeapi.SecurityProfile{
		ProfileType:  runtimeapi.SecurityProfile_Localhost,
		LocalhostRef: filepath.Join(o.RootDir, "seccomp", *profile.LocalhostProfile),
	}, nil
}

// appArmorProfile is the container's own, else that of the old annotation,
// which static pods may still carry alone, else the pod's.
func appArmorProfile(p *v1.Pod, c *v1.Container) *v1.AppArmorProfile {
	if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
		return c.SecurityContext.AppArmorProfile
	}
	const localhost = v1.DeprecatedAppArmorBetaProfileNamePrefix
	old := p.Annotations[v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
	switch {
	case old == v1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}
	case old == v1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeUnconfined}
	case len(old) > len(localhost) && old[:len(localhost)] == localhost:
		name := old[len(localhost):]
		return &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	}
	return orEmpty(p.Spec.SecurityContext).AppArmorProfile
}

// apparmor is the profile in the form of today and in that of old runtimes.
func apparmor(profile *v1.AppArmorProfile) (*runtimeapi.SecurityProfile, string, error) {
	if profile == nil {
		return nil, "", nil
	}
	switch profile.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, v1.DeprecatedAppArmorBetaProfileRuntimeDefault, nil
	case v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, v1.DeprecatedAppArmorBetaProfileNameUnconfined, nil
	case v1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil {
			return nil, "", errors.New("appArmorProfile: type Localhost needs localhostProfile")
		}
		name := *profile.LocalhostProfile
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}, v1.DeprecatedAppArmorBetaProfileNamePrefix + name, nil
	}
	return nil, "", fmt.Errorf("appArmorProfile: unknown type %q", profile.Type)
}

// namespaces says which namespaces the pod shares with the node (behaviour rows
// 1.9-8, 1.9-9).
func namespaces(p *v1.Pod, users pod.IDs) (*runtimeapi.NamespaceOption, error) {
	n := &runtimeapi.NamespaceOption{
		Network:       runtimeapi.NamespaceMode_POD,
		Ipc:           runtimeapi.NamespaceMode_POD,
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE},
	}
	if p.Spec.HostNetwork {
		n.Network = runtimeapi.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		n.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case p.Spec.HostPID:
		n.Pid = runtimeapi.NamespaceMode_NODE
	case ptr.Deref(p.Spec.ShareProcessNamespace, false):
		n.Pid = runtimeapi.NamespaceMode_POD
	}
	if !pod.OwnUsers(p) {
		return n, nil
	}
	if users == (pod.IDs{}) {
		return nil, errors.New("spec.hostUsers false: the pod was not granted a range of user IDs")
	}
	n.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: mapping(users), Gids: mapping(users)}
	return n, nil
}

// mapping shows the IDs from 0 on; nil for none.
func mapping(users pod.IDs) []*runtimeapi.IDMapping {
	if users == (pod.IDs{}) {
		return nil
	}
	return []*runtimeapi.IDMapping{{HostId: users.First, ContainerId: 0, Length: users.Length}}
}

func groups(psc *v1.PodSecurityContext) ([]int64, runtimeapi.SupplementalGroupsPolicy, error) {
	var out []int64
	if psc.FSGroup != nil {
		out = append(out, *psc.FSGroup)
	}
	out = append(out, psc.SupplementalGroups...)
	if psc.SupplementalGroupsPolicy == nil {
		return out, 0, nil
	}
	policy, ok := runtimeapi.SupplementalGroupsPolicy_value[string(*psc.SupplementalGroupsPolicy)]
	if !ok {
		return nil, 0, fmt.Errorf("unsupported supplementalGroupsPolicy %q", *psc.SupplementalGroupsPolicy)
	}
	return out, runtimeapi.SupplementalGroupsPolicy(policy), nil
}

func selinuxOptions(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func capabilities(c *v1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	out := &runtimeapi.Capability{AddCapabilities: []string{}, DropCapabilities: []string{}}
	for _, name := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, string(name))
	}
	for _, name := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, string(name))
	}
	return out
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

// orEmpty spares its callers the case of an absent struct.
func orEmpty[T any](v *T) *T {
	if v == nil {
		return new(T)
	}
	return v
}
