package cri

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of what an ended container may say (behaviour row 1.11-7), in bytes
// and lines.
const (
	maxMessageFile  = 4096
	maxMessageLog   = 2048
	maxMessageLines = 80
	// tailOfLog holds maxMessageLog bytes of output whatever the lines: each
	// has some 40 bytes of time and stream before it.
	tailOfLog = 16 << 10
)

// terminationMessage is what an ended container left to say: its termination
// message file or, if asked for and the file is empty, the end of its log.
func (c *Client) terminationMessage(s *runtimeapi.ContainerStatus) string {
	fromLog := s.Annotations[annotationMessagePolicy] == string(v1.TerminationMessageFallbackToLogsOnError) &&
		s.ExitCode != 0 && s.Reason != "ContainerCannotRun"
	if path := c.messageFile(s); path != "" {
		text, err := tail(path, maxMessageFile)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Sprintf("Error on reading termination log: %v", err)
		case len(text) > 0:
			return string(text)
		}
	}
	if !fromLog || s.LogPath == "" {
		return ""
	}
	text, err := tail(s.LogPath, tailOfLog)
	if err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	return string(lastOutput(text))
}

// messageFile is the host's path of the termination message file, "" if there
// is none. Only a file that the agent (or a kubelet) made is taken: a volume
// may be mounted over the same path.
func (c *Client) messageFile(s *runtimeapi.ContainerStatus) string {
	at := s.Annotations[annotationMessagePath]
	if at == "" {
		return ""
	}
	dir := c.containerFolder(types.UID(s.Labels[LabelPodUID]), s.Labels[LabelContainerName])
	for _, m := range s.Mounts {
		if m.ContainerPath == absolute(at) && filepath.Dir(m.HostPath) == dir {
			return m.HostPath
		}
	}
	return ""
}

func (c *Client) containerFolder(uid types.UID, container string) string {
	return filepath.Join(c.opts.Pods.RootDir, "pods", string(uid), "containers", container)
}

// absolute makes a path in a container absolute, as runtimes want it.
func absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return "/" + path
}

// tail reads at most the last n bytes of a regular file.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-n), n))
}

// lastOutput is the output in the end of a log in CRI's format, a line of
// which reads: time, stream, P or F, output. The first line may be cut.
func lastOutput(log []byte) []byte {
	lines := bytes.SplitAfter(log, []byte("\n"))
	if last := len(lines) - 1; len(lines[last]) == 0 {
		lines = lines[:last]
	}
	lines = lines[max(0, len(lines)-maxMessageLines):]
	var out []byte
	for _, line := range lines {
		fields := bytes.SplitN(line, []byte(" "), 4)
		if len(fields) == 4 && (string(fields[1]) == "stdout" || string(fields[1]) == "stderr") {
			line = fields[3]
			if bytes.HasPrefix(fields[2], []byte("P")) {
				line = bytes.TrimSuffix(line, []byte("\n"))
			}
		}
		out = append(out, line...)
	}
	return out[max(0, len(out)-maxMessageLog):]
}

func joinMessages(runtime, own string) string {
	if runtime == "" || own == "" {
		return runtime + own
	}
	return runtime + ": " + own
}
