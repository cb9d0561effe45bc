package volumes

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/objects"
)

// resolver knows a ConfigMap and a Secret named "it".
func resolver() env.Resolver {
	store := &objects.Store{}
	store.Replace("test", []objects.Object{settings("v1"), keys("v1")})
	return env.Resolver{Objects: store, Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}}
}

func settings(version string) *v1.ConfigMap {
	return &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "it"},
		Data:       map[string]string{"a": "a " + version, "b": "b " + version},
		BinaryData: map[string][]byte{"raw": {0, 255}},
	}
}

func keys(version string) *v1.Secret {
	return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "it"}, Data: map[string][]byte{"key": []byte("key " + version), "a": []byte("secret a")}}
}

func configMap(name string, items ...v1.KeyToPath) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
		LocalObjectReference: v1.LocalObjectReference{Name: "it"}, Items: items, DefaultMode: new(int32(0o644))}}}
}

func secret(name string, items ...v1.KeyToPath) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "it", Items: items, DefaultMode: new(int32(0o400))}}}
}

func downward(name string, items ...v1.DownwardAPIVolumeFile) v1.Volume {
	if items == nil {
		items = []v1.DownwardAPIVolumeFile{field("name", "metadata.name"), field("labels", "metadata.labels")}
	}
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: items, DefaultMode: new(int32(0o644))}}}
}

func field(path, from string) v1.DownwardAPIVolumeFile {
	return v1.DownwardAPIVolumeFile{Path: path, FieldRef: &v1.ObjectFieldSelector{FieldPath: from}}
}

func projected(name string, sources ...v1.VolumeProjection) v1.Volume {
	if sources == nil {
		it := v1.LocalObjectReference{Name: "it"}
		sources = []v1.VolumeProjection{
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: it}},
			{Secret: &v1.SecretProjection{LocalObjectReference: it, Items: []v1.KeyToPath{{Key: "key", Path: "deep/key"}}}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{field("pod/name", "metadata.name")}}},
		}
	}
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: sources, DefaultMode: new(int32(0o640))}}}
}

// texts are the files of a payload with their modes, for people.
func texts(p payload) map[string]string {
	out := map[string]string{}
	for name, f := range p {
		out[name] = f.mode.String() + " " + string(f.data)
	}
	return out
}

func TestPayload(t *testing.T) {
	p := newPod()
	p.Labels = map[string]string{"b": "say \"hi\"\n", "a": "1"}
	p.Annotations = map[string]string{"x": "y"}
	p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("1500m"), v1.ResourceMemory: resource.MustParse("3Mi")}
	missing := v1.LocalObjectReference{Name: "missing"}
	source := func(s ...v1.VolumeProjection) v1.Volume { return projected("v", s...) }
	with := func(v v1.Volume, change func(*v1.Volume)) v1.Volume { change(&v); return v }
	use := func(name, resource string, divisor string) v1.DownwardAPIVolumeFile {
		return v1.DownwardAPIVolumeFile{Path: name, ResourceFieldRef: &v1.ResourceFieldSelector{ContainerName: "main", Resource: resource, Divisor: k8sQuantity(divisor)}}
	}
	const rw, r = "-rw-r--r-- ", "-r-------- "
	for _, c := range []struct {
		name string
		vol  v1.Volume
		want map[string]string
		err  string
	}{
		{"all keys", configMap("v"), map[string]string{"a": rw + "a v1", "b": rw + "b v1", "raw": rw + "\x00\xff"}, ""},
		{"items", configMap("v", v1.KeyToPath{Key: "a", Path: "x/y"}, v1.KeyToPath{Key: "raw", Path: "z", Mode: new(int32(0o755))}),
			map[string]string{"x/y": rw + "a v1", "z": "-rwxr-xr-x \x00\xff"}, ""},
		{"no mode", with(configMap("v", v1.KeyToPath{Key: "a", Path: "a"}), func(v *v1.Volume) { v.ConfigMap.DefaultMode = nil }), map[string]string{"a": rw + "a v1"}, ""},
		{"missing key", configMap("v", v1.KeyToPath{Key: "no", Path: "x"}), nil, `configMap "it": references non-existent config key: no`},
		{"missing key of secret", secret("v", v1.KeyToPath{Key: "no", Path: "x"}), nil, `secret "it": references non-existent secret key: no`},
		{"missing optional key", with(configMap("v", v1.KeyToPath{Key: "no", Path: "x"}, v1.KeyToPath{Key: "a", Path: "a"}), func(v *v1.Volume) { v.ConfigMap.Optional = new(true) }),
			map[string]string{"a": rw + "a v1"}, ""},
		{"missing", with(configMap("v"), func(v *v1.Volume) { v.ConfigMap.Name = "missing" }), nil, `configmap "missing" not found`},
		{"missing secret", with(secret("v"), func(v *v1.Volume) { v.Secret.SecretName = "missing" }), nil, `secret "missing" not found`},
		{"missing optional", with(configMap("v"), func(v *v1.Volume) { v.ConfigMap.Name, v.ConfigMap.Optional = "missing", new(true) }), map[string]string{}, ""},
		{"missing optional secret", with(secret("v", v1.KeyToPath{Key: "no", Path: "x"}), func(v *v1.Volume) { v.Secret.SecretName, v.Secret.Optional = "missing", new(true) }), map[string]string{}, ""},
		{"secret", secret("v"), map[string]string{"key": r + "key v1", "a": r + "secret a"}, ""},
		{"path out", configMap("v", v1.KeyToPath{Key: "a", Path: "../x"}), nil, "must not contain '..'"},
		{"path absolute", configMap("v", v1.KeyToPath{Key: "a", Path: "/x"}), nil, "must be relative"},
		{"path of ours", configMap("v", v1.KeyToPath{Key: "a", Path: "..data"}), nil, "must not start with '..'"},
		{"file and folder", configMap("v", v1.KeyToPath{Key: "a", Path: "x"}, v1.KeyToPath{Key: "b", Path: "x/y"}), nil, `path "x/y": "x" is a file, and cannot be a folder too`},
		{"the pod", downward("v", field("labels", "metadata.labels"), field("one", "metadata.annotations['x']"), field("id", "metadata.uid"), use("cpu", "requests.cpu", ""), use("mem", "requests.memory", "1Mi")),
			map[string]string{"labels": rw + "a=\"1\"\nb=\"say \\\"hi\\\"\\n\"", "one": rw + "y", "id": rw + string(uid), "cpu": rw + "2", "mem": rw + "3"}, ""},
		{"no container", downward("v", v1.DownwardAPIVolumeFile{Path: "x", ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}), nil, "containerName is needed"},
		{"unknown field", downward("v", field("x", "spec.no")), nil, `file "x": fieldRef: unsupported fieldPath "spec.no"`},
		{"nothing", downward("v", v1.DownwardAPIVolumeFile{Path: "x"}), nil, "neither fieldRef nor resourceFieldRef"},
		{"projected", projected("v"), map[string]string{"a": "-rw-r----- a v1", "b": "-rw-r----- b v1", "raw": "-rw-r----- \x00\xff", "deep/key": "-rw-r----- key v1", "pod/name": "-rw-r----- web"}, ""},
		{"the later source counts", source(
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "it"}, Items: []v1.KeyToPath{{Key: "a", Path: "./x"}}}},
			v1.VolumeProjection{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "it"}, Items: []v1.KeyToPath{{Key: "a", Path: "x"}}}}),
			map[string]string{"x": "-rw-r----- secret a"}, ""},
		{"all errors", source(v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: missing}}, v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}}),
			nil, "sources[0]: configMap \"missing\": configmap \"missing\" not found\nsources[1]: serviceAccountToken: it needs an apiserver"},
		{"trust bundle", source(v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{}}), nil, "clusterTrustBundle: it needs an apiserver"},
		{"certificate", source(v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{}}), nil, "podCertificate: it needs an apiserver"},
		{"no source", source(v1.VolumeProjection{}), nil, "sources[0]: a source without a kind"},
	} {
		got, err := shower{Resolver: resolver()}.content(t.Context(), p, &c.vol)
		if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if d := cmp.Diff(c.want, texts(got.files)); c.want != nil && d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func k8sQuantity(s string) resource.Quantity {
	if s == "" {
		return resource.Quantity{}
	}
	return resource.MustParse(s)
}

// FuzzPayloadPaths: what is accepted stays in the volume and out of the way of
// the writer's own names.
func FuzzPayloadPaths(f *testing.F) {
	for _, s := range []string{"a", "a/b", "..", "a/../b", "..data/x", "/x", "./..x", "", ".", "a//b/", strings.Repeat("x", 256), "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p := payload{}
		if p.put(name, file{}) != nil {
			return
		}
		for clean := range p {
			top, _, _ := strings.Cut(clean, "/")
			if !filepath.IsLocal(clean) || strings.HasPrefix(top, "..") || top == "." || top == "" || filepath.Clean(clean) != clean {
				t.Errorf("%q is taken as %q", name, clean)
			}
		}
	})
}

// read is all that the folder shows to who reads through its links.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(string)
	walk = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			name := filepath.Join(rel, e.Name())
			info, err := os.Stat(filepath.Join(dir, name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				out[name] = "dangling"
			case err != nil:
				t.Fatal(err)
			case info.IsDir():
				walk(name)
			default:
				data, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				out[name] = info.Mode().String() + " " + string(data)
			}
		}
	}
	walk("")
	return out
}

func TestShownLayoutAndMedia(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	v := node(t)
	p := newPod(configMap("config"), secret("keys"), downward("info"), projected("all"))
	paths := mustMount(t, v, p)
	dir := filepath.Join(v.pods, string(uid), "volumes")
	if d := cmp.Diff(map[string]string{
		"config": filepath.Join(dir, "kubernetes.io~configmap/config"),
		"keys":   filepath.Join(dir, "kubernetes.io~secret/keys"),
		"info":   filepath.Join(dir, "kubernetes.io~downward-api/info"),
		"all":    filepath.Join(dir, "kubernetes.io~projected/all"),
	}, paths); d != "" {
		t.Error(d)
	}
	for name, path := range paths {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || (st.Type == unix.TMPFS_MAGIC) == (name == "config") {
			t.Errorf("%s is on file system %x, %v", name, st.Type, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		for _, sub := range []string{"..data", "..data/."} {
			if info, err := os.Lstat(path + "/" + sub); err != nil || info.IsDir() && info.Mode().Perm() != 0o755 {
				t.Errorf("%s/%s: %v, %v", name, sub, info, err)
			}
		}
	}
	if d := cmp.Diff(map[string]string{"key": "-r-------- key v1", "a": "-r-------- secret a"}, read(t, paths["keys"])); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"a": "-rw-r----- a v1", "b": "-rw-r----- b v1", "raw": "-rw-r----- \x00\xff", "deep/key": "-rw-r----- key v1", "pod/name": "-rw-r----- web"}, read(t, paths["all"])); d != "" {
		t.Error(d)
	}
	// A second time nothing is written.
	before := map[string]string{}
	for name, path := range paths {
		before[name], _ = os.Readlink(filepath.Join(path, dataLink))
	}
	mustMount(t, v, p)
	for name, path := range paths {
		if now, _ := os.Readlink(filepath.Join(path, dataLink)); now != before[name] || now == "" {
			t.Errorf("%s was written anew: %s, then %s", name, before[name], now)
		}
	}
}

// The fsGroup can read whatever the mode, and owns what it is given.
func TestShownWithFSGroup(t *testing.T) {
	v := node(t)
	p := newPod(configMap("config"), secret("keys"))
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(4711))}
	paths := mustMount(t, v, p)
	if d := cmp.Diff(map[string]string{"key": "-r--r----- key v1", "a": "-r--r----- secret a"}, read(t, paths["keys"])); d != "" {
		t.Error(d)
	}
	for _, path := range []string{paths["keys"], paths["keys"] + "/key", paths["config"] + "/..data/.", paths["config"] + "/a"} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Gid != 4711 {
			t.Errorf("%s: group %d, %v", path, st.Gid, err)
		}
	}
	first, _ := os.Readlink(paths["config"] + "/..data")
	p.Spec.SecurityContext.FSGroup = new(int64(4712))
	mustMount(t, v, p)
	var st unix.Stat_t
	if err := unix.Stat(paths["config"]+"/a", &st); err != nil || st.Gid != 4712 {
		t.Errorf("group %d, %v after a change of fsGroup", st.Gid, err)
	}
	if now, _ := os.Readlink(paths["config"] + "/..data"); now == first {
		t.Error("nothing was written for another group")
	}
}

// What other volumes are mounted on inside a read-only one is made before.
func TestNestedMountPoints(t *testing.T) {
	v := node(t)
	p := newPod(configMap("config"), disk("cache"))
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{
		{Name: "config", MountPath: "/etc/app/"}, {Name: "cache", MountPath: "/etc/app/x/cache"},
		{Name: "cache", MountPath: "/etc/app/x/cache/inner"}, {Name: "cache", MountPath: "/etc/application"},
	}
	p.Spec.InitContainers = []v1.Container{{Name: "init", VolumeMounts: []v1.VolumeMount{
		{Name: "config", MountPath: "/"}, {Name: "cache", MountPath: "/x/cache/inner"}, {Name: "cache", MountPath: "a"}}}}
	path := mustMount(t, v, p)["config"]
	for _, dir := range []string{"x/cache", "x/cache/inner", "a"} {
		info, err := os.Lstat(filepath.Join(path, dir))
		if dir == "a" { // a key has that name: the folder wins, as with the peer
			_, err = os.ReadDir(filepath.Join(path, dir))
		} else if err == nil && !info.IsDir() {
			err = errors.New("no folder")
		}
		if err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	wantGone(t, filepath.Join(path, "lication"))
	mustMount(t, v, p) // and they survive
	if _, err := os.Stat(filepath.Join(path, "x/cache/inner")); err != nil {
		t.Error(err)
	}
}

// A refresh that fails keeps what was shown.
func TestFailedRefreshKeepsContent(t *testing.T) {
	v := node(t)
	store := &objects.Store{}
	v.kinds["configMap"].(*shown).show = shower{Resolver: env.Resolver{Objects: store}}.content
	p := newPod(configMap("config", v1.KeyToPath{Key: "a", Path: "a"}))
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("without the object: %v", err)
	}
	wantGone(t, filepath.Join(v.pods, string(uid), "volumes/kubernetes.io~configmap/config"))
	store.Replace("test", []objects.Object{settings("v1")})
	path := mustMount(t, v, p)["config"]
	less := settings("v2")
	maps.DeleteFunc(less.Data, func(key, _ string) bool { return key == "a" })
	store.Replace("test", []objects.Object{less})
	if _, _, err := v.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), "references non-existent config key: a") {
		t.Errorf("without the key: %v", err)
	}
	wantContent(t, path+"/a", "a v1")
	store.Replace("test", []objects.Object{settings("v3")})
	mustMount(t, v, p)
	wantContent(t, path+"/a", "a v3")
}

// What an earlier process of the agent knew does not replace what is shown
// already, and is shown where nothing is.
func TestStaleContentReplacesNothing(t *testing.T) {
	v := node(t)
	store, stale := &objects.Store{}, false
	v.kinds["configMap"].(*shown).show = shower{Resolver: env.Resolver{Objects: store, Stale: func(*v1.Pod, *v1.Volume) bool { return stale }}}.content
	p := newPod(configMap("config", v1.KeyToPath{Key: "a", Path: "a"}))
	for _, step := range []struct {
		version string
		stale   bool
		want    string
	}{
		{"v1", true, "a v1"},
		{"v2", false, "a v2"},
		{"v1", true, "a v2"},
		{"v3", false, "a v3"},
	} {
		store.Replace("test", []objects.Object{settings(step.version)})
		stale = step.stale
		wantContent(t, mustMount(t, v, p)["config"]+"/a", step.want)
	}
}

func TestHugePages(t *testing.T) {
	v := node(t)
	vol := disk("huge")
	vol.EmptyDir.Medium = "HugePages"
	vol.EmptyDir.SizeLimit = new(resource.MustParse("3Mi"))
	p := newPod(vol)
	p.Spec.Containers[0].Resources.Limits = v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
	path := mustMount(t, v, p)["huge"]
	mustMount(t, v, p)
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.HUGETLBFS_MAGIC || st.Bsize != 2<<20 || st.Blocks != 2 {
		t.Errorf("type %x, %d pages of %d, %v; want 2 of 2 MiB", st.Type, st.Blocks, st.Bsize, err)
	}
	if err := v.Unmount(t.Context(), uid); err != nil {
		t.Error(err)
	}
	wantUnmounted(t, v.pods)
	p.Spec.Containers[0].Resources.Requests = v1.ResourceList{"hugepages-1Gi": resource.MustParse("1Gi")}
	for medium, want := range map[v1.StorageMedium]string{
		"HugePages": "huge pages of 2 sizes", "HugePages-32Mi": "no container requests hugepages-32Mi",
		"HugePages-x": "page size", "HugePagesX": "want HugePages",
	} {
		p.Spec.Volumes[0].EmptyDir.Medium = medium
		if _, _, err := v.Mount(t.Context(), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", medium, err, want)
		}
	}
}
