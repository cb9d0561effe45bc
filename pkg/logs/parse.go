package logs

import (
	"bytes"
	"time"
)

// maxHead is the longest that stands before a line's text; what is longer is
// no line of CRI's.
const maxHead = 256

// head is what stands before the text of a line.
type head struct {
	time    time.Time
	stderr  bool
	partial bool // the line goes on in the next one
}

// parseHead reads "<time> <stream> <tags>", the tags separated by colons, of
// which only the first has a meaning.
func parseHead(text []byte) (h head, ok bool) {
	stamp, rest, ok := bytes.Cut(text, []byte(" "))
	if !ok {
		return h, false
	}
	stream, tags, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return h, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return h, false
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(stream) {
	case "stdout":
	case "stderr":
		h.stderr = true
	default:
		return h, false
	}
	h.time, h.partial = t, string(tag) == "P"
	return h, true
}

// parser turns a log, given in pieces of any size, into lines for the sink.
type parser struct {
	out *sink
	// begun is what is known of a line whose head is not complete.
	begun []byte
	// text says that the head of this line is complete: what follows is text,
	// or, with skip, nothing that is wanted.
	text, skip bool
	head       head
	// bad counts lines that are none of CRI's.
	bad int
}

// reset is for the beginning of another file: no line goes on there.
func (p *parser) reset() { p.begun, p.text, p.skip = p.begun[:0], false, false }

// feed takes the next piece of the log.
func (p *parser) feed(data []byte) error {
	for len(data) > 0 {
		if !p.text {
			var err error
			if data, err = p.feedHead(data); err != nil {
				return err
			}
			continue
		}
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if whole && !p.head.partial {
			line = data[:len(line)+1]
		}
		data = rest
		if !p.skip {
			if err := p.out.text(line, p.head.stderr); err != nil {
				return err
			}
		}
		if whole {
			p.reset()
		}
	}
	return nil
}

// feedHead takes what belongs to the head, and returns the rest. Nearly all heads
// come whole, and are read where they are.
func (p *parser) feedHead(data []byte) (rest []byte, err error) {
	before := len(p.begun)
	text := data[:min(len(data), maxHead+1-before)] // with the space behind the head
	if before > 0 {
		p.begun = append(p.begun, text...)
		text = p.begun
	}
	end, more := endOfHead(text)
	switch {
	case more && len(text) <= maxHead:
		if before == 0 {
			p.begun = append(p.begun, text...)
		}
		return nil, nil
	case more || text[end] == '\n':
		return p.giveUp(data[end-before:]), nil
	}
	h, ok := parseHead(text[:end])
	if !ok {
		return p.giveUp(data[end-before:]), nil
	}
	p.head, p.text = h, true
	wanted, err := p.out.begin(h)
	p.skip = !wanted
	return data[end-before+1:], err
}

// endOfHead is where the third space is, or before it the end of the line; more
// says that neither has come yet.
func endOfHead(text []byte) (end int, more bool) {
	line, _, whole := bytes.Cut(text, []byte("\n"))
	for range 3 {
		i := bytes.IndexByte(line[end:], ' ')
		if i < 0 {
			return len(line), !whole
		}
		end += i + 1
	}
	return end - 1, false
}

// giveUp leaves out a line that is none of CRI's.
func (p *parser) giveUp(rest []byte) []byte {
	p.bad++
	p.head, p.text, p.skip = head{}, true, true
	return rest
}
