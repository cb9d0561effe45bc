package ledger

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features"
	nodefeatures "k8s.io/component-helpers/nodedeclaredfeatures/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Host is what the machine and the runtime can do for pods.
type Host struct {
	// Swap says that containers may use swap (memorySwap.swapBehavior).
	Swap     bool
	AppArmor bool
	// StrictGroups is the runtime's supplementalGroupsPolicy feature.
	StrictGroups bool
}

// Needs are what a pod asks of the Host.
type Needs struct {
	AppArmor, StrictGroups bool
	// Features are the names of declared features, sorted.
	Features []string
}

func needsOf(p *v1.Pod) Needs {
	sc := p.Spec.SecurityContext
	return Needs{
		AppArmor: wantsAppArmor(p),
		StrictGroups: sc != nil && sc.SupplementalGroupsPolicy != nil &&
			*sc.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict,
		Features: featuresOf(p),
	}
}

// featuresOf are the declared features without which no node can run the pod.
func featuresOf(p *v1.Pod) (names []string) {
	info := &nodefeatures.PodInfo{Spec: &p.Spec, Status: &p.Status}
	for _, f := range features.AllFeatures {
		if f.InferForScheduling(info) {
			names = append(names, f.Name())
		}
	}
	slices.Sort(names)
	return names
}

// wantsAppArmor says whether any profile but Unconfined is asked for, by the
// fields or by the annotations of old.
func wantsAppArmor(p *v1.Pod) bool {
	confines := func(profile *v1.AppArmorProfile) bool {
		return profile != nil && profile.Type != v1.AppArmorProfileTypeUnconfined
	}
	if sc := p.Spec.SecurityContext; sc != nil && confines(sc.AppArmorProfile) {
		return true
	}
	for _, sc := range pod.SecurityContexts(p) {
		if confines(sc.AppArmorProfile) {
			return true
		}
	}
	for key, value := range p.Annotations {
		if strings.HasPrefix(key, v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) && value != v1.DeprecatedAppArmorBetaProfileNameUnconfined {
			return true
		}
	}
	return false
}

// judgeGroups refuses a policy that the runtime would not follow (behaviour row
// 1.2-6).
func (l Ledger) judgeGroups(c Claim) pod.Verdict {
	if !c.Needs.StrictGroups || l.Host.StrictGroups {
		return pod.Verdict{}
	}
	return pod.Verdict{State: pod.Refused, Reason: "SupplementalGroupsPolicyNotSupported",
		Message: fmt.Sprintf("SupplementalGroupsPolicy=%s is not supported in this node", v1.SupplementalGroupsPolicyStrict)}
}

// judgeAppArmor refuses a profile that the kernel would not enforce (behaviour
// row 1.2-10).
func (l Ledger) judgeAppArmor(c Claim) pod.Verdict {
	if !c.Needs.AppArmor || l.Host.AppArmor {
		return pod.Verdict{}
	}
	return pod.Verdict{State: pod.Refused, Reason: "AppArmor", Message: "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
}
