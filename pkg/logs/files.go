package logs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rotated is what rotation appends to a log's name (behaviour row 1.11-6).
var rotated = regexp.MustCompile(`^\.\d{8}-\d{6}(\.gz)?$`)

const gzSuffix = ".gz"

// folder is that of a container's logs. Files are opened beneath it, never
// through a link that leads out of it.
type folder struct {
	root   *os.Root
	handle *os.File
	base   string // the newest part's name
}

func openFolder(dir, base string) (*folder, error) {
	// The pods' folder is the runtime's and ours; below it others may have
	// mounts.
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return nil, missing(dir, err)
	}
	defer parent.Close()
	root, err := parent.OpenRoot(filepath.Base(dir))
	if err != nil {
		return nil, missing(dir, err)
	}
	handle, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(missing(dir, err), root.Close())
	}
	return &folder{root: root, handle: handle, base: base}, nil
}

// missing says what it means that a log is not there.
func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open log %s: the container has not printed anything yet, or its logs were removed: %w", path, err)
	}
	return fmt.Errorf("open log %s: %w", path, err)
}

func (f *folder) close() {
	f.handle.Close() // only read
	f.root.Close()
}

// names are the parts there are, oldest first.
func (f *folder) names() ([]string, error) {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read log folder %s: %w", f.root.Name(), err)
	}
	var names []string
	for _, e := range entries { // sorted by name, and so by time
		more, ours := strings.CutPrefix(e.Name(), f.base)
		if !ours || !rotated.MatchString(more) {
			continue
		}
		if plain, gz := strings.CutSuffix(e.Name(), gzSuffix); gz && len(names) > 0 && names[len(names)-1] == plain {
			continue // compressed, perhaps not wholly yet, and not yet removed
		}
		names = append(names, e.Name())
	}
	return append(names, f.base), nil
}

// open opens all parts. The last exists always; parts before it may be rotated
// away meanwhile, and then it looks again.
func (f *folder) open() ([]*part, error) {
	for {
		names, err := f.names()
		if err != nil {
			return nil, err
		}
		parts, err := f.openAll(names)
		again, listErr := f.names()
		switch {
		case listErr != nil:
			closeAll(parts)
			return nil, listErr
		case !slices.Equal(names, again):
			closeAll(parts)
		case err != nil:
			closeAll(parts)
			return nil, err
		default:
			return parts, nil
		}
	}
}

func (f *folder) openAll(names []string) (parts []*part, err error) {
	for _, name := range names {
		p, err := f.openPart(name)
		if errors.Is(err, fs.ErrNotExist) && name == f.base && len(parts) > 0 {
			break // just renamed: the runtime opens the next one in a moment
		}
		if err != nil {
			return parts, missing(filepath.Join(f.root.Name(), name), err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func (f *folder) openPart(name string) (*part, error) {
	// Not blocking, as somebody may have put a pipe there.
	file, err := f.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	p := &part{name: name, file: file, in: file}
	if p.info, err = file.Stat(); err == nil && !p.info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if p.compressed() {
		p.in = &unzip{file: file}
	}
	return p, nil
}

// replaced says that the newest part is no longer p.
func (f *folder) replaced(p *part) bool {
	info, err := f.root.Lstat(f.base)
	return err == nil && !os.SameFile(info, p.info)
}

// openAfter opens the parts that are newer than p, which may have been
// compressed or removed meanwhile.
func (f *folder) openAfter(p *part) ([]*part, error) {
	parts, err := f.open()
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(parts, p.same)
	closeAll(parts[:at+1])
	return parts[at+1:], nil
}

// part is a file that holds a stretch of a log.
type part struct {
	name string
	file *os.File
	info fs.FileInfo
	in   io.Reader
}

func (p *part) Read(buf []byte) (int, error) { return p.in.Read(buf) }

func (p *part) compressed() bool { return strings.HasSuffix(p.name, gzSuffix) }

// unsettled is how long the part, which was rotated, may still be written to: 0
// for no longer.
func (p *part) unsettled() (time.Duration, error) {
	if p.compressed() {
		return 0, nil
	}
	info, err := p.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("read log %s: %w", p.name, err)
	}
	if left := settle - time.Since(info.ModTime()); left <= settle {
		return max(left, 0), nil
	}
	return 0, nil // written in the future: its clock tells nothing
}

// stopAtSize ends reading where the file ends now.
func (p *part) stopAtSize() {
	if at, err := p.file.Seek(0, io.SeekCurrent); err == nil && !p.compressed() {
		p.in = io.LimitReader(p.file, p.info.Size()-at)
	}
}

// same says that o holds the same stretch, if only compressed: what a part
// begins with has its time in nanoseconds.
func (p *part) same(o *part) bool {
	if os.SameFile(p.info, o.info) {
		return true
	}
	first := p.first()
	return o.compressed() && len(first) > 0 && bytes.Equal(first, o.first())
}

// first is what the part begins with. It leaves alone where reading is.
func (p *part) first() []byte {
	buf := make([]byte, 128)
	var in io.Reader = io.NewSectionReader(p.file, 0, 1<<62)
	if p.compressed() {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return nil
		}
		in = unzipped
	}
	n, _ := io.ReadFull(in, buf) // the rest decides
	return buf[:n]
}

func closeAll(parts []*part) {
	for _, p := range parts {
		p.file.Close() // it was only read
	}
}

// unzip decompresses, beginning with the first Read.
type unzip struct {
	file io.Reader
	in   *gzip.Reader
}

func (u *unzip) Read(buf []byte) (int, error) {
	if u.in == nil {
		in, err := gzip.NewReader(u.file)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		u.in = in
	}
	return u.in.Read(buf)
}
