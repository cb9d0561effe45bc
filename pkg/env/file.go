package env

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// maxFile is the size in bytes of the largest file that variables are read
// from: more than all of them together may be at exec.
const maxFile = 2 << 20

// fileKey is a variable in a file of one of the pod's volumes (behaviour row
// 1.7-8). A container of the pod wrote it: no name in it leads out of the
// volume, and none of it is shown.
func (b *building) fileKey(from *v1.FileKeySelector) (string, error) {
	optional := ptr.Deref(from.Optional, false)
	dir, ok := b.at.Volumes[from.VolumeName]
	if !ok {
		return "", fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", from.VolumeName)
	}
	text, err := readUnder(dir, from.Path)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return "", errAbsent
	}
	var value string
	if err == nil {
		value, err = FileVar(text, from.Key)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("couldn't parse env file %s of volume %s: %w", from.Path, from.VolumeName, err)
	case value == "" && optional:
		return "", errAbsent
	case value == "":
		return "", fmt.Errorf("environment variable key %q not found in file %q of volume %s", from.Key, from.Path, from.VolumeName)
	}
	return value, nil
}

// readUnder reads a regular file below dir. Links lead where they would lead if
// dir were the root of all, and nothing is waited for.
func readUnder(dir, path string) (string, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open the volume: %w", err)
	}
	defer unix.Close(root) //nolint:errcheck // nothing was written
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return "", fmt.Errorf("open the file: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // nothing was written
	info, err := file.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("look at the file: %w", err)
	case !info.Mode().IsRegular():
		return "", errors.New("it is no regular file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the file: %w", err)
	case len(text) > maxFile:
		return "", fmt.Errorf("it has more than %d MiB", maxFile>>20)
	}
	return string(text), nil
}

// FileVar is the value of a variable in a file of variables, empty if it isn't
// in it. A file is of lines: blank, a comment after #, or
//
//	NAME='value' # comment
//
// with nothing around the = and a value in single quotes, taken as it is, over
// several lines if need be. A space after the = makes the value empty, as a
// shell does. The first variable of a name counts, and nothing behind it is
// looked at. Errors give the line, never what is in it.
func FileVar(text, name string) (string, error) {
	rest := strings.TrimSuffix(strings.ReplaceAll(text, "\r\n", "\n"), "\r")
	for line := 1; rest != ""; line++ {
		rest = strings.TrimLeft(rest, " \t")
		if i := strings.IndexAny(rest, "=\n"); rest != "" && rest[0] != '#' && rest[0] != '\n' {
			at := func(problem string) error { return fmt.Errorf("line %d: %s", line, problem) }
			switch {
			case i < 0 || rest[i] == '\n':
				return "", at("missing '='")
			case i == 0:
				return "", at("empty variable name")
			case strings.TrimRight(rest[:i], " \t") != rest[:i]:
				return "", at("whitespace before '=' is not allowed")
			}
			found := rest[:i] == name
			value, after, err := quoted(rest[i+1:])
			if err != nil {
				return "", at(err.Error())
			}
			if found {
				return value, nil
			}
			line += strings.Count(value, "\n")
			rest = after
		}
		_, rest, _ = strings.Cut(rest, "\n")
	}
	return "", nil
}

// quoted is the value at the beginning of s, and what follows it: nothing but a
// comment in its line.
func quoted(s string) (value, after string, err error) {
	switch {
	case strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\t"):
		return "", s, nil
	case !strings.HasPrefix(s, "'"):
		return "", "", errors.New("value must be enclosed in single quotes")
	}
	value, after, closed := strings.Cut(s[1:], "'")
	if !closed {
		return "", "", errors.New("unclosed single quote")
	}
	if tail := strings.TrimLeft(after, " \t"); tail != "" && tail[0] != '#' && tail[0] != '\n' {
		return "", "", errors.New("unexpected content after closing quote")
	}
	return value, after, nil
}
