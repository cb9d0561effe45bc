package objects

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"

	"github.com/nodeagent/nodeagent/pkg/record"
)

const (
	// keepPause is how long answers are gathered before they are written: that a
	// pod starts comes first, and a burst of pods asks much at once.
	keepPause = time.Second
	// keepRetry is when what could not be written is tried again.
	keepRetry = 10 * time.Second
)

// Keeper keeps what an apiserver answered on disk, for as long as pods here refer
// to it, so that their containers start again though the apiserver is away when
// the agent begins anew. Secrets are kept only when it is told to.
type Keeper struct {
	store   *Store
	files   *record.Store
	secrets bool
	log     *slog.Logger

	// Owned by Run.
	onDisk map[Key][]Object
	due    map[Key]bool // to be looked at
	told   string       // the newest failure, told once
}

// kept is one file: an answer, which may be that there is no such object.
type kept struct {
	Key          Key                  `json:"key"`
	ConfigMap    *v1.ConfigMap        `json:"configMap,omitempty"`
	Secret       *v1.Secret           `json:"secret,omitempty"`
	RuntimeClass *nodev1.RuntimeClass `json:"runtimeClass,omitempty"`
	Services     []*v1.Service        `json:"services,omitempty"`
}

// NewKeeper gives the store the answers that an earlier process kept. Each counts
// until the apiserver gives a newer one. Of Secrets none stays on disk unless
// secrets is set; a file that cannot be read is set aside, or removed if it had one.
func NewKeeper(s *Store, files *record.Store, secrets bool, log *slog.Logger) *Keeper {
	k := &Keeper{store: s, files: files, secrets: secrets, log: log, onDisk: map[Key][]Object{}, due: map[Key]bool{}}
	read, asides := record.All[kept](files)
	for _, a := range asides {
		at := a.Path
		if strings.HasPrefix(a.Name, Secret+"-") {
			if err := os.Remove(a.Path); err != nil {
				log.Error("a Secret's file that cannot be read could not be removed", "path", a.Path, "error", err)
			} else {
				at = ""
			}
		}
		log.Warn("an object that was kept could not be read; the apiserver is asked for it", "record", a.Name, "kept", at, "error", a.Err)
	}
	old := map[Key][]Object{}
	for name, f := range read {
		if name != fileName(f.Key) || f.Key.Kind == Secret && !secrets {
			if err := files.Delete(name); err != nil {
				log.Error("an object that is not to be kept could not be removed", "record", name, "error", err)
			}
			continue
		}
		old[f.Key] = f.found()
		k.onDisk[f.Key] = old[f.Key]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old, s.news = old, map[Key]bool{}
	s.wake = make(chan struct{}, 1)
	return k
}

// Run writes what is new until ctx ends, and then what is left.
func (k *Keeper) Run(ctx context.Context) error {
	pause := time.NewTimer(time.Hour)
	pause.Stop()
	defer pause.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			k.write()
			return ctx.Err()
		case <-pause.C:
			if waiting = !k.write(); waiting {
				pause.Reset(keepRetry)
			}
		case <-k.store.wake:
			if !waiting {
				waiting = true
				pause.Reset(keepPause)
			}
		}
	}
}

// write brings the files up to date, and says whether it could.
func (k *Keeper) write() bool {
	k.store.mu.Lock()
	maps.Copy(k.due, k.store.news)
	clear(k.store.news)
	k.store.mu.Unlock()
	var failed error
	for _, key := range slices.SortedFunc(maps.Keys(k.due), compare) {
		if err := k.writeOne(key); err != nil {
			failed = err
			continue
		}
		delete(k.due, key)
	}
	switch {
	case failed == nil:
		k.told = ""
	case failed.Error() != k.told:
		k.told = failed.Error()
		k.log.Warn("what pods refer to is not on disk as it is now; tried again every 10 s", "error", failed)
	}
	return failed == nil
}

func (k *Keeper) writeOne(key Key) error {
	if key.Kind == Secret && !k.secrets {
		return nil
	}
	k.store.mu.RLock()
	q := k.store.questions[key]
	answered := q != nil && q.answered
	var found []Object
	if answered {
		found = q.found
	}
	k.store.mu.RUnlock()
	have, is := k.onDisk[key]
	switch {
	case q == nil && is:
		delete(k.onDisk, key)
		if err := k.files.Delete(fileName(key)); err != nil {
			k.onDisk[key] = have
			return fmt.Errorf("forget %s: %w", key, err)
		}
	case answered && !(is && equal(have, found)):
		if err := k.files.Write(fileName(key), keep(key, found)); err != nil {
			return fmt.Errorf("keep %s: %w", key, err)
		}
		k.onDisk[key] = found
	case answered:
		k.onDisk[key] = found // the same, and in memory once
	}
	return nil
}

// fileName is safe for any name that an object can have.
func fileName(k Key) string {
	sum := sha256.Sum256([]byte(k.Namespace + "/" + k.Name))
	return k.Kind + "-" + hex.EncodeToString(sum[:16])
}

func keep(k Key, found []Object) kept {
	f := kept{Key: k}
	for _, o := range found {
		switch o := o.(type) {
		case *v1.ConfigMap:
			f.ConfigMap = o
		case *v1.Secret:
			f.Secret = o
		case *nodev1.RuntimeClass:
			f.RuntimeClass = o
		case *v1.Service:
			f.Services = append(f.Services, o)
		}
	}
	return f
}

func (f kept) found() []Object {
	var out []Object
	switch {
	case f.ConfigMap != nil:
		out = append(out, f.ConfigMap)
	case f.Secret != nil:
		out = append(out, f.Secret)
	case f.RuntimeClass != nil:
		out = append(out, f.RuntimeClass)
	}
	for _, s := range f.Services {
		out = append(out, s)
	}
	return out
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
