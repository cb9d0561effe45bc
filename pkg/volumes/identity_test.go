package volumes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// papers are an identity that tests hand out.
type papers struct {
	token, bundle, key, chain string
	renew                     time.Time
	err                       error
	forgotten                 []types.UID
}

// given is nil for what there is none of.
func given(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

func (i *papers) Token(context.Context, *v1.Pod, *v1.ServiceAccountTokenProjection) ([]byte, time.Time, error) {
	return given(i.token), i.renew, i.err
}

func (i *papers) TrustBundle(context.Context, *v1.Pod, *v1.ClusterTrustBundleProjection) ([]byte, error) {
	return given(i.bundle), i.err
}

func (i *papers) Certificate(_ context.Context, p *v1.Pod, volume string, index int, _ *v1.PodCertificateProjection) ([]byte, []byte, time.Time, error) {
	return given(i.key), given(i.chain), i.renew.Add(time.Hour), i.err
}

func (i *papers) Forget(uid types.UID) { i.forgotten = append(i.forgotten, uid) }

func noon(minutes int) time.Time {
	return time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
}

// access is what every pod of an apiserver mounts.
func access() v1.Volume {
	return projected("access",
		v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "it"}, Items: []v1.KeyToPath{{Key: "a", Path: "ca.crt"}}}})
}

// nodeOf is a fresh agent root whose volumes have the identity.
func nodeOf(t *testing.T, i Identity) *Volumes {
	t.Helper()
	v := node(t)
	again, err := New(filepath.Dir(v.pods), 64<<20, resolver(), i)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestTokenVolume(t *testing.T) {
	i := &papers{token: "one", renew: noon(48)}
	v, p := nodeOf(t, i), newPod(access())
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	paths, renew, err := v.Mount(t.Context(), p)
	if err != nil || !renew.Equal(noon(48)) {
		t.Fatalf("renew at %v, %v", renew, err)
	}
	path := paths["access"]
	if d := cmp.Diff(map[string]string{"token": "-rw-r----- one", "ca.crt": "-rw-r----- a v1"}, read(t, path)); d != "" {
		t.Error(d)
	}
	i.token, i.renew = "two", noon(96)
	if _, renew, err = v.Mount(t.Context(), p); err != nil || !renew.Equal(noon(96)) {
		t.Errorf("renew at %v, %v", renew, err)
	}
	wantContent(t, path+"/token", "two")
	if err := v.Unmount(t.Context(), uid); err != nil || len(i.forgotten) != 1 || i.forgotten[0] != uid {
		t.Errorf("forgotten: %v, %v", i.forgotten, err)
	}
}

// A token that can't be renewed stays, and so does what a volume shows that was
// mounted before the agent started; a pod that has none waits.
func TestTokenIsNotToBeHad(t *testing.T) {
	down := errors.New("apiserver does not answer")
	i := &papers{err: down}
	v, p := nodeOf(t, i), newPod(access(), configMap("config"))
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	const words = `volume "access" of pod default/web: spec.volumes[0].projected: sources[0]: serviceAccountToken: apiserver does not answer`
	refused := func(usable bool) map[string]string {
		t.Helper()
		paths, _, err := v.Mount(t.Context(), p)
		if err == nil || !strings.Contains(err.Error(), words) || (paths != nil) != usable {
			t.Fatalf("%v, %v", paths, err)
		}
		return paths
	}
	refused(false)
	i.token, i.err = "one", nil
	path := mustMount(t, v, p)["access"]
	// The older token still holds: all else is brought up to date.
	i.err = down
	if d := cmp.Diff(map[string]string{"access": path, "config": filepath.Join(filepath.Dir(filepath.Dir(path)), "kubernetes.io~configmap/config")}, refused(true)); d != "" {
		t.Error(d)
	}
	wantContent(t, path+"/token", "one")
	// A new process has none at all.
	i.token = ""
	v = nodeOfSame(t, v, i)
	refused(true)
	wantContent(t, path+"/token", "one")
	// After a reboot there is nothing to go on with.
	unmountAll(t, v.pods)
	refused(false)
}

// nodeOfSame is the volumes of the next process on the same root.
func nodeOfSame(t *testing.T, v *Volumes, i Identity) *Volumes {
	t.Helper()
	next, err := New(filepath.Dir(v.pods), 64<<20, resolver(), i)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// Who may read a token follows from whom the containers run as.
func TestIdentityFilesArePrivate(t *testing.T) {
	type users struct {
		pod, group *int64
		containers []*int64
	}
	id := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		users
		mode string
		uid  uint32
		gid  uint32
	}{
		"nobody is named":              {users{nil, nil, []*int64{nil}}, "-rw-r-----", 0, 0},
		"the pod's user":               {users{id(7), nil, []*int64{nil, nil}}, "-rw-------", 7, 0},
		"one user in all containers":   {users{nil, nil, []*int64{id(7), id(7)}}, "-rw-------", 7, 0},
		"a container's over the pod's": {users{id(8), nil, []*int64{id(7), id(7)}}, "-rw-------", 7, 0},
		"different users":              {users{id(8), nil, []*int64{id(7), nil}}, "-rw-r-----", 0, 0},
		"one container names none":     {users{nil, nil, []*int64{id(7), nil}}, "-rw-r-----", 0, 0},
		"fsGroup":                      {users{nil, id(9), []*int64{nil}}, "-rw-r-----", 0, 9},
		"fsGroup and one user":         {users{id(7), id(9), []*int64{nil}}, "-rw-r-----", 7, 9},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(projected("id",
				v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
				v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Path: "ca"}},
				v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{CredentialBundlePath: "all", KeyPath: "key", CertificateChainPath: "chain"}}))
			p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: c.pod, FSGroup: c.group}
			mounts := p.Spec.Containers[0].VolumeMounts
			p.Spec.Containers = nil
			for _, user := range c.containers {
				p.Spec.Containers = append(p.Spec.Containers, v1.Container{SecurityContext: &v1.SecurityContext{RunAsUser: user}, VolumeMounts: mounts})
			}
			path := mustMount(t, nodeOf(t, &papers{token: "t", bundle: "b", key: "k", chain: "c"}), p)["id"]
			want := map[string]string{}
			for name, text := range map[string]string{"token": "t", "ca": "b", "all": "kc", "key": "k", "chain": "c"} {
				want[name] = c.mode + " " + text
				var st unix.Stat_t
				if err := unix.Stat(filepath.Join(path, name), &st); err != nil || st.Uid != c.uid || st.Gid != c.gid {
					t.Errorf("%s is of %d:%d, %v; want %d:%d", name, st.Uid, st.Gid, err, c.uid, c.gid)
				}
			}
			if d := cmp.Diff(want, read(t, path)); d != "" {
				t.Error(d)
			}
		})
	}
}

// The volume that is to be renewed first says when.
func TestEarliestRenewalCounts(t *testing.T) {
	i := &papers{token: "t", key: "k", chain: "c", renew: noon(10)}
	v := nodeOf(t, i)
	cert := projected("cert", v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{KeyPath: "key"}})
	for want, p := range map[time.Time]*v1.Pod{
		noon(10): newPod(cert, access(), configMap("config")),
		noon(70): newPod(cert),
		{}:       newPod(configMap("config")),
	} {
		if err := v.Prepare(p); err != nil {
			t.Fatal(err)
		}
		if _, renew, err := v.Mount(t.Context(), p); err != nil || !renew.Equal(want) {
			t.Errorf("%d volumes: renew at %v, %v; want %v", len(p.Spec.Volumes), renew, err, want)
		}
	}
}

// A file that changes hands is written anew.
func TestOwnerOfTokenFollowsThePod(t *testing.T) {
	v, p := nodeOf(t, &papers{token: "t"}), newPod(access())
	path := mustMount(t, v, p)["access"]
	before, _ := os.Readlink(filepath.Join(path, dataLink))
	p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: new(int64(7))}
	mustMount(t, v, p)
	if after, _ := os.Readlink(filepath.Join(path, dataLink)); after == before {
		t.Error("the token still belongs to whom it did")
	}
	if d := cmp.Diff("-rw------- t", read(t, path)["token"]); d != "" {
		t.Error(d)
	}
}
