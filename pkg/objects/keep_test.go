package objects

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/record"
)

// keeping is one process of an agent that keeps objects in a folder.
type keeping struct {
	*Store
	t    *testing.T
	dir  string
	log  strings.Builder
	stop func()
}

// keepIn starts one, in a bubble of synctest.
func keepIn(t *testing.T, dir string, secrets bool) *keeping {
	t.Helper()
	files, err := record.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &keeping{Store: &Store{Remote: true}, t: t, dir: dir}
	k := NewKeeper(s.Store, files, secrets, slog.New(slog.NewTextHandler(&s.log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = k.Run(ctx) // it only ends with ctx
	}()
	s.stop = func() { cancel(); <-ended }
	return s
}

// files are the names of what is on disk.
func (s *keeping) files() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// inode is that of the object's file: another one each time it is written.
func (s *keeping) inode(k Key) uint64 {
	s.t.Helper()
	info, err := os.Stat(filepath.Join(s.dir, fileName(k)+".json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

var (
	mapKey    = Key{ConfigMap, "ns", "c"}
	noKey     = Key{ConfigMap, "ns", "no"}
	secretKey = Key{Secret, "ns", "s"}
	classKey  = Key{Kind: RuntimeClass, Name: "r"}
	allKey    = Key{Kind: Service, Namespace: "ns"}
	ownKey    = Key{Service, "default", "kubernetes"}
)

func service(ns, name string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
}

// answers are one of each kind, one that is not there, and none of a kind.
func answers() map[Key][]Object {
	return map[Key][]Object{
		mapKey:    {configMap("c", "a")},
		noKey:     nil,
		secretKey: {&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Data: map[string][]byte{"k": []byte("hidden")}}},
		classKey:  {&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Handler: "h"}},
		allKey:    {service("ns", "one"), service("ns", "two")},
		ownKey:    {service("default", "kubernetes")},
	}
}

// says is what the store knows, in words.
func (s *keeping) says() string {
	c, errMap := s.ConfigMap("ns", "c")
	_, errNo := s.ConfigMap("ns", "no")
	_, errSecret := s.Secret("ns", "s")
	r, errClass := s.RuntimeClass("r")
	services, errServices := s.Services(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}})
	if errMap != nil || errClass != nil || errServices != nil || !apierrors.IsNotFound(errNo) {
		return fmt.Sprint(errMap, errNo, errSecret, errClass, errServices)
	}
	return fmt.Sprintf("%s %s %d services, secret: %v", c.Data["key"], r.Handler, len(services), errSecret)
}

// TestKeptAnswers: the next process has them until the apiserver says more;
// Secrets only where that is set.
func TestKeptAnswers(t *testing.T) {
	const unread = "Secret ns/s has not been read from the apiserver yet"
	for _, secrets := range []bool{false, true} {
		t.Run(fmt.Sprintf("secrets=%v", secrets), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "objects")
			want := "a h 3 services, secret: " + unread
			if secrets {
				want = "a h 3 services, secret: <nil>"
			}
			synctest.Test(t, func(t *testing.T) {
				s := keepIn(t, dir, secrets)
				for k, found := range answers() {
					s.Ask(k).Answer(found)
				}
				if files := s.files(); len(files) > 0 {
					t.Errorf("written at once, when pods start: %v", files)
				}
				time.Sleep(keepPause)
				synctest.Wait()
				for _, name := range s.files() {
					if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
						t.Errorf("%s: %v, %v", name, info.Mode(), err)
					}
				}
				if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("folder: %v, %v", info.Mode(), err)
				}
				s.stop()

				s = keepIn(t, dir, secrets)
				if got := s.says(); got != want {
					t.Errorf("the next process: %s, want %s", got, want)
				}
				q := s.Ask(mapKey)
				if s.Answered(mapKey) || s.says() != want {
					t.Errorf("while it is asked for: answered %v, %s", s.Answered(mapKey), s.says())
				}
				vol := v1.Volume{VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}}}
				p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}
				if !s.Stale(p, &vol) {
					t.Error("an old answer is not stale")
				}
				q.Answer(nil)
				if _, err := s.ConfigMap("ns", "c"); !apierrors.IsNotFound(err) || s.Stale(p, &vol) {
					t.Errorf("the new answer does not count: %v, stale %v", err, s.Stale(p, &vol))
				}
				s.stop()
			})
		})
	}
}

// TestKeeperWritesOnlyNews: an answer that says the same again costs no write, and
// what no pod refers to any more goes.
func TestKeeperWritesOnlyNews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	synctest.Test(t, func(t *testing.T) {
		settle := func() { time.Sleep(keepPause); synctest.Wait() }
		s := keepIn(t, dir, true)
		questions := map[Key]*Question{}
		for k, found := range answers() {
			questions[k] = s.Ask(k)
			questions[k].Answer(found)
		}
		settle()
		before := s.inode(mapKey)
		questions[mapKey].Answer([]Object{configMap("c", "a")})
		settle()
		if s.inode(mapKey) != before {
			t.Error("written again, though nothing changed")
		}
		s.stop()

		s = keepIn(t, dir, true)
		for _, k := range []Key{mapKey, noKey, secretKey} { // no pod refers to the others any more
			questions[k] = s.Ask(k)
		}
		questions[mapKey].Answer([]Object{configMap("c", "a")})
		settle()
		if s.inode(mapKey) != before || len(s.files()) != 6 {
			t.Errorf("the first answer, which is as that before: written %v, files %v", s.inode(mapKey) != before, s.files())
		}
		s.Settle()
		settle()
		want := []string{fileName(mapKey) + ".json", fileName(noKey) + ".json", fileName(secretKey) + ".json"}
		slices.Sort(want)
		if got := s.files(); !slices.Equal(got, want) {
			t.Errorf("left once all is asked for: %v, want %v", got, want)
		}
		if _, err := s.RuntimeClass("r"); err == nil {
			t.Error("what nobody asked for counts")
		}
		if _, err := s.Secret("ns", "s"); err != nil {
			t.Errorf("not answered yet: %v", err)
		}
		questions[mapKey].Answer([]Object{configMap("c", "b")})
		questions[secretKey].Close()
		settle()
		if got := s.files(); s.inode(mapKey) == before || len(got) != 2 {
			t.Errorf("a change is written: %v; files %v", s.inode(mapKey) != before, got)
		}
		s.stop()
	})
}

// TestSecretsLeaveTheDisk: when they are not to be kept any more, and when they
// cannot be read.
func TestSecretsLeaveTheDisk(t *testing.T) {
	for name, break1 := range map[string]bool{"setting withdrawn": false, "unreadable": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "objects")
			synctest.Test(t, func(t *testing.T) {
				s := keepIn(t, dir, true)
				for k, found := range answers() {
					s.Ask(k).Answer(found)
				}
				s.stop() // what is left is written now
				for _, k := range []Key{secretKey, mapKey} {
					path := filepath.Join(dir, fileName(k)+".json")
					content, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if break1 {
						content[len(content)-3]++
						if err := os.WriteFile(path, content, 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
				s = keepIn(t, dir, break1)
				s.stop()
				asides := 0
				for _, name := range s.files() {
					if strings.HasPrefix(name, Secret) {
						t.Errorf("%s is still there", name)
					}
					if strings.Contains(name, ".corrupt-") {
						asides++
					}
				}
				if break1 && (asides != 1 || !strings.Contains(s.log.String(), "set aside") && !strings.Contains(s.log.String(), "could not be read")) {
					t.Errorf("%d set aside, log: %s", asides, s.log.String())
				}
			})
		})
	}
}

// TestKeeperTriesAgain: a disk that refuses is told of once.
func TestKeeperTriesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	synctest.Test(t, func(t *testing.T) {
		s := keepIn(t, dir, false)
		inTheWay := filepath.Join(dir, fileName(mapKey)+".json")
		if err := os.Mkdir(inTheWay, 0o700); err != nil {
			t.Fatal(err)
		}
		s.Ask(mapKey).Answer([]Object{configMap("c", "a")})
		s.Ask(classKey).Answer(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(s.log.String(), "keep ConfigMap ns/c"); n != 1 {
			t.Errorf("told %d times: %s", n, s.log.String())
		}
		if s.inode(classKey) == 0 {
			t.Error("the others are not written")
		}
		if err := os.Remove(inTheWay); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keepRetry)
		synctest.Wait()
		if info, err := os.Stat(inTheWay); err != nil || !info.Mode().IsRegular() {
			t.Errorf("not tried again: %v", err)
		}
		s.stop()
	})
}
