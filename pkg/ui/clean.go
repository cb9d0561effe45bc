package ui

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine is how much of one line is shown.
const maxLine = 4 << 10

// escapes are what steers terminals: CSI, the strings of OSC, DCS and their
// kin, and all others. One that is cut off at the line's end is one too.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?`)

// clean is a line as it may be shown: without what steers a terminal, other
// control characters and those that turn the direction of text around made
// visible, and broken UTF-8 marked.
func clean(line []byte) string {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if bytes.IndexByte(line, 0x1b) >= 0 {
		line = escapes.ReplaceAll(line, nil)
	}
	if plain(line) {
		return string(line)
	}
	var out strings.Builder
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		line = line[n:]
		switch {
		case r == '\t':
			out.WriteRune(r)
		case r < ' ':
			out.WriteRune('␀' + r)
		case r == 0x7f:
			out.WriteRune('␡')
		case r != '\u200c' && r != '\u200d' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&out, "⟨%04X⟩", r)
		default:
			out.WriteRune(r) // U+FFFD for what is no UTF-8
		}
	}
	return out.String()
}

// plain says that all is printable ASCII.
func plain(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

// lines hands over what is written to it line by line. No more than maxLine is
// kept of one.
type lines struct {
	to  func(line []byte, more int) error
	buf []byte
	cut int // bytes of the line that were dropped
}

func (l *lines) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		piece, rest, whole := bytes.Cut(data, []byte("\n"))
		keep := min(len(piece), maxLine-len(l.buf))
		l.buf = append(l.buf, piece[:keep]...)
		l.cut += len(piece) - keep
		data = rest
		if whole {
			if err := l.end(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

// end ends the line.
func (l *lines) end() error {
	err := l.to(l.buf, l.cut)
	l.buf, l.cut = l.buf[:0], 0
	return err
}

// rest ends a line that has no end yet.
func (l *lines) rest() error {
	if len(l.buf) == 0 {
		return nil
	}
	return l.end()
}
