package ledger

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func withUsers(uid types.UID) Claim {
	return ClaimOf(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: v1.PodSpec{HostUsers: new(false)}})
}

// A pod that asks for user IDs of its own has a range that no other has, from
// its admission to its end.
func TestUsers(t *testing.T) {
	had := pod.IDs{First: 2 * 65536, Length: 65536} // by pod old, from before
	l := Ledger{Users: Users{First: 65536, Length: 65536, Count: 3, Held: map[types.UID]pod.IDs{"old": had}}}
	admit := func(uid types.UID, want uint32) {
		t.Helper()
		var v pod.Verdict
		l, v = Admit(l, withUsers(uid))
		if v.State != pod.Granted || v.Users != (pod.IDs{First: want, Length: 65536}) {
			t.Errorf("%s: %+v, want IDs from %d on", uid, v, want)
		}
	}
	admit("a", 65536)
	admit("b", 3*65536) // the second is taken
	admit("a", 65536)   // asked again
	if _, v := Admit(l, withUsers("c")); v.State != pod.Refused || v.Reason != "UnexpectedAdmissionError" {
		t.Errorf("no range is left: %+v", v)
	}
	admit("old", had.First)
	l, _ = Release(l, withUsers("a"))
	admit("c", 65536)
	// Of an orphan only the UID may be known.
	l, _ = Release(l, Claim{UID: "old"})
	admit("d", had.First)
	if _, v := Admit(l, ClaimOf(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "plain"}})); v.Users != (pod.IDs{}) {
		t.Errorf("a pod that asks for none has %v", v.Users)
	}
}

// A range of another length, from before a change of configuration, counts.
func TestUsersOfAnotherLength(t *testing.T) {
	l := Ledger{Users: Users{First: 131072, Length: 131072, Count: 2, Held: map[types.UID]pod.IDs{"old": {First: 131072 + 65536, Length: 65536}}}}
	_, v := Admit(l, withUsers("a"))
	if v.Users != (pod.IDs{First: 262144, Length: 131072}) {
		t.Errorf("got %+v", v)
	}
}

func TestHost(t *testing.T) {
	strict := v1.SupplementalGroupsPolicyStrict
	merge := v1.SupplementalGroupsPolicyMerge
	profile := func(kind v1.AppArmorProfileType) *v1.AppArmorProfile { return &v1.AppArmorProfile{Type: kind} }
	for _, c := range []struct {
		name   string
		change func(*v1.Pod)
		host   Host
		reason string
	}{
		{"nothing asked", func(*v1.Pod) {}, Host{}, ""},
		{"strict", func(p *v1.Pod) { p.Spec.SecurityContext.SupplementalGroupsPolicy = &strict }, Host{}, "SupplementalGroupsPolicyNotSupported"},
		{"strict, and it can", func(p *v1.Pod) { p.Spec.SecurityContext.SupplementalGroupsPolicy = &strict }, Host{StrictGroups: true}, ""},
		{"merge", func(p *v1.Pod) { p.Spec.SecurityContext.SupplementalGroupsPolicy = &merge }, Host{}, ""},
		{"pod's profile", func(p *v1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = profile(v1.AppArmorProfileTypeRuntimeDefault)
		}, Host{}, "AppArmor"},
		{"pod's profile, and it can", func(p *v1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = profile(v1.AppArmorProfileTypeRuntimeDefault)
		}, Host{AppArmor: true}, ""},
		{"unconfined", func(p *v1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = profile(v1.AppArmorProfileTypeUnconfined)
		}, Host{}, ""},
		{"an init container's profile", func(p *v1.Pod) {
			p.Spec.InitContainers = []v1.Container{{Name: "i", SecurityContext: &v1.SecurityContext{AppArmorProfile: profile(v1.AppArmorProfileTypeLocalhost)}}}
		}, Host{}, "AppArmor"},
		{"annotation", func(p *v1.Pod) {
			p.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/main": "runtime/default"}
		}, Host{}, "AppArmor"},
		{"annotation unconfined", func(p *v1.Pod) {
			p.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}
		}, Host{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{}}}
			c.change(p)
			if _, v := Admit(Ledger{Host: c.host}, ClaimOf(p)); v.Reason != c.reason {
				t.Errorf("got %+v, want %q", v, c.reason)
			}
			// One that has its grant keeps it.
			l := Enter(Ledger{Host: c.host}, ClaimOf(p))
			if _, v := Admit(l, ClaimOf(p)); v.State != pod.Granted {
				t.Errorf("a pod that runs: %+v", v)
			}
		})
	}
}
