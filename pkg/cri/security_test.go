package cri

import (
	"context"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What /proc shows is hidden unless the container asks for all of it.
func TestProcMount(t *testing.T) {
	m := Machine{MaskedPaths: maskedPaths}
	for mode, hidden := range map[v1.ProcMountType]bool{"": true, v1.DefaultProcMount: true, v1.UnmaskedProcMount: false} {
		k := &v1.Container{SecurityContext: &v1.SecurityContext{}}
		if mode != "" {
			k.SecurityContext.ProcMount = &mode
		}
		got, err := containerSecurity(web(), k, Parts{}, m, PodOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(got.MaskedPaths, "/proc/kcore") != hidden || slices.Contains(got.ReadonlyPaths, "/proc/sys") != hidden {
			t.Errorf("%q: hidden %v, read-only %v", mode, got.MaskedPaths, got.ReadonlyPaths)
		}
	}
}

func TestGroups(t *testing.T) {
	strict, unknown := v1.SupplementalGroupsPolicyStrict, v1.SupplementalGroupsPolicy("Loose")
	list, policy, err := groups(&v1.PodSecurityContext{FSGroup: new(int64(7)), SupplementalGroups: []int64{8, 9}, SupplementalGroupsPolicy: &strict})
	if err != nil || !slices.Equal(list, []int64{7, 8, 9}) || policy != runtimeapi.SupplementalGroupsPolicy_Strict {
		t.Errorf("groups %v, policy %v: %v", list, policy, err)
	}
	if _, _, err := groups(&v1.PodSecurityContext{SupplementalGroupsPolicy: &unknown}); err == nil {
		t.Error("an unknown policy is taken")
	}
}

// A debug container sees the processes of the one it is aimed at, if that runs.
func TestTarget(t *testing.T) {
	p := web()
	p.Spec.EphemeralContainers = []v1.EphemeralContainer{{TargetContainerName: "main", EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
	f := &fake{}
	c := serve(t, f)
	if _, err := c.target(t.Context(), p, "debug"); err == nil {
		t.Error("a target that does not run is no error")
	}
	f.containers = []*runtimeapi.ContainerStatus{{Id: "m1", Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		Labels: map[string]string{LabelPodUID: "u1", LabelContainerName: "main"}}}
	id, err := c.target(t.Context(), p, "debug")
	if id != "m1" || err != nil {
		t.Fatalf("target %q: %v", id, err)
	}
	for share, want := range map[bool]runtimeapi.NamespaceMode{false: runtimeapi.NamespaceMode_TARGET, true: runtimeapi.NamespaceMode_POD} {
		p.Spec.ShareProcessNamespace = &share
		cfg, err := ContainerConfig(p, Parts{Request: CreateRequest{Container: "debug"}, TargetID: id}, Machine{}, PodOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Linux.SecurityContext.NamespaceOptions; got.Pid != want || (got.TargetId == id) == share {
			t.Errorf("shared %v: %v", share, got)
		}
	}
}

// A hook's command reaches the container as written, with the time that is left.
func TestExec(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	code, out, err := c.Exec(ctx, "id", []string{"echo", "$(NAME)"}, 0)
	if code != 3 || out != "outerr" || err != nil {
		t.Errorf("code %d, output %q: %v", code, out, err)
	}
	if r := f.exec; !slices.Equal(r.Cmd, []string{"echo", "$(NAME)"}) || r.Timeout < 80 || r.Timeout > 90 {
		t.Errorf("asked for %v", r)
	}
	if _, _, err := c.Exec(ctx, "id", nil, 2*time.Second); err != nil || f.exec.Timeout != 2 {
		t.Errorf("with a limit of its own: %v, %v", f.exec, err)
	}
	if _, _, err := c.Exec(t.Context(), "id", nil, 0); err != nil || f.exec.Timeout != 0 {
		t.Errorf("without a limit: %v, %v", f.exec, err)
	}
}
