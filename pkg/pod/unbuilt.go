package pod

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// Unbuilt is what the pod asks for that this agent does not have yet, as people
// are told of it. Such a pod is not refused but waits: an agent that has it may
// take its place.
func Unbuilt(p *v1.Pod) (missing []Note) {
	var used map[string]bool
	for i, vol := range p.Spec.Volumes {
		kind := unbuiltKind(vol.VolumeSource)
		if kind == "" {
			continue
		}
		if used == nil {
			used = UsedVolumes(p)
		}
		if used[vol.Name] {
			missing = append(missing, Note{Warning: true, Reason: "FailedMount", Message: fmt.Sprintf(
				"MountVolume.SetUp failed for volume %q : spec.volumes[%d].%s: this kind of volume is not built yet", vol.Name, i, kind)})
		}
	}
	for i, claim := range p.Spec.ResourceClaims {
		missing = append(missing, unprepared(fmt.Sprintf("spec.resourceClaims[%d] %q", i, claim.Name)))
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		missing = append(missing, unprepared(fmt.Sprintf("status.extendedResourceClaimStatus %q", s.ResourceClaimName)))
	}
	return missing
}

func unprepared(claim string) Note {
	return Note{Warning: true, Reason: "FailedPrepareDynamicResources",
		Message: "Failed to prepare dynamic resources: " + claim + ": resource claims are not built yet"}
}

// unbuiltKind is the name of the field that says what kind of volume it is, ""
// if the kind is built. A volume of no kind is an emptyDir.
func unbuiltKind(v v1.VolumeSource) string {
	v.EmptyDir, v.HostPath, v.ConfigMap, v.Secret, v.DownwardAPI, v.Projected, v.Image = nil, nil, nil, nil, nil, nil, nil
	if v == (v1.VolumeSource{}) {
		return ""
	}
	fields := map[string]json.RawMessage{}
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil || len(fields) == 0 {
		return "unknown"
	}
	return slices.Min(slices.Collect(maps.Keys(fields)))
}

// UsedVolumes are the names of volumes that a container mounts or maps.
func UsedVolumes(p *v1.Pod) map[string]bool {
	names := map[string]bool{}
	for c := range Containers(p) {
		for _, m := range c.VolumeMounts {
			names[m.Name] = true
		}
		for _, d := range c.VolumeDevices {
			names[d.Name] = true
		}
	}
	return names
}

// lacks says whether the pod waits for something that is not built.
func (l *planner) lacks() bool {
	missing := Unbuilt(l.Spec)
	for _, n := range missing {
		l.wait("%s", n.Message)
	}
	return len(missing) > 0
}
