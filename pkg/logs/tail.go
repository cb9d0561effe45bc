package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
)

// tailOf leaves the parts that hold the last n lines, positioned at the first
// of them, and closes the others.
func tailOf(parts []*part, n int64) ([]*part, error) {
	for i := len(parts) - 1; ; i-- {
		found, err := parts[i].tail(n)
		if err != nil && !parts[i].compressed() {
			return parts, fmt.Errorf("find the last lines of log %s: %w", parts[i].name, err)
		}
		if err != nil {
			slog.Warn("a rotated log is damaged: it was left out", "log", parts[i].name, "error", err)
			i++
		}
		if n -= found; n <= 0 || i == 0 || err != nil {
			closeAll(parts[:i])
			return parts[i:], nil
		}
	}
}

// tail goes to where the last n lines begin, and says how many there are.
func (p *part) tail(n int64) (int64, error) {
	if !p.compressed() {
		return p.tailBack(n)
	}
	lines, err := countLines(&unzip{file: io.NewSectionReader(p.file, 0, 1<<62)})
	if err != nil {
		return 0, err
	}
	return min(lines, n), skipLines(p.in, lines-n, func(rest []byte) { p.in = io.MultiReader(bytes.NewReader(rest), p.in) })
}

// tailBack looks for line ends from the end of the file. A line that is still
// being written counts for none.
func (p *part) tailBack(n int64) (int64, error) {
	buf := make([]byte, chunk)
	lines := int64(-1) // the last end of line ends no line behind it
	for end := p.info.Size(); end > 0; {
		begin := max(end-chunk, 0)
		piece := buf[:end-begin]
		if _, err := p.file.ReadAt(piece, begin); err != nil {
			return 0, err
		}
		for {
			at := bytes.LastIndexByte(piece, '\n')
			if at < 0 {
				break
			}
			if lines++; lines == n {
				_, err := p.file.Seek(begin+int64(at)+1, io.SeekStart)
				return n, err
			}
			piece = piece[:at]
		}
		end = begin
	}
	return lines + 1, nil
}

func countLines(in io.Reader) (lines int64, err error) {
	buf := make([]byte, chunk)
	for {
		n, err := in.Read(buf)
		lines += int64(bytes.Count(buf[:n], []byte("\n")))
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// skipLines reads n lines, and hands over what it read beyond them.
func skipLines(in io.Reader, n int64, beyond func([]byte)) error {
	buf := make([]byte, chunk)
	for n > 0 {
		got, err := in.Read(buf)
		piece := buf[:got]
		for ; n > 0; n-- {
			at := bytes.IndexByte(piece, '\n')
			if at < 0 {
				break
			}
			piece = piece[at+1:]
		}
		if n == 0 {
			beyond(piece)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
