package manifest

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestValidateShownVolumes(t *testing.T) {
	for volume, want := range map[string]string{
		"configMap: {name: c, defaultMode: 256, items: [{key: a, path: b/c, mode: 511}]}": "",
		"configMap: {}":                                                                             "v.configMap.name",
		"configMap: {name: c, defaultMode: 512}":                                                    "v.configMap.defaultMode",
		"configMap: {name: c, items: [{path: a}]}":                                                  "v.configMap.items[0].key",
		"configMap: {name: c, items: [{key: a}]}":                                                   "v.configMap.items[0].path",
		"configMap: {name: c, items: [{key: a, path: /a}]}":                                         "v.configMap.items[0].path",
		"configMap: {name: c, items: [{key: a, path: a/../b}]}":                                     "v.configMap.items[0].path",
		"configMap: {name: c, items: [{key: a, path: ..data}]}":                                     "v.configMap.items[0].path",
		"configMap: {name: c, items: [{key: a, path: a, mode: -1}]}":                                "v.configMap.items[0].mode",
		"secret: {secretName: s, items: [{key: a, path: b}]}":                                       "",
		"secret: {items: [{key: a, path: b}]}":                                                      "v.secret.secretName",
		"secret: {secretName: s, items: [{key: a, path: ..}]}":                                      "v.secret.items[0].path",
		"downwardAPI: {items: [{path: ..a, fieldRef: {apiVersion: v1, fieldPath: metadata.name}}]}": "v.downwardAPI.items[0].path",
		"projected: {sources: [{secret: {}}]}":                                                      "v.projected.sources[0].secret.name",
		"projected: {sources: [{configMap: {items: []}}]}":                                          "v.projected.sources[0].configMap.name",
		"projected: {sources: [{configMap: {name: c}}, {secret: {name: s}}]}":                       "",
		"projected: {sources: [{configMap: {name: c}, secret: {name: s}}]}":                         "v.projected.sources[0]",
		"projected: {sources: [{configMap: {name: c, items: [{key: a, path: x}]}}, {secret: {name: s, items: [{key: a, path: x}]}}]}":                                       "v.projected.sources[1].secret.items[0].path",
		"projected: {sources: [{configMap: {name: c, items: [{key: a, path: x}, {key: b, path: x}]}}]}":                                                                     "v.projected.sources[0].configMap.items[1].path",
		"projected: {sources: [{secret: {name: s, items: [{key: a, path: x}]}}, {downwardAPI: {items: [{path: x, fieldRef: {apiVersion: v1, fieldPath: metadata.uid}}]}}]}": "v.projected.sources[1].downwardAPI.items[0].path",
	} {
		v := &v1.VolumeSource{}
		merge(t, "{"+volume+"}", v)
		errs := validateVolume(v, field.NewPath("v"))
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || errs[0].Field != want) {
			t.Errorf("%s: got %v, want one error at %q", volume, errs, want)
		}
	}
}
