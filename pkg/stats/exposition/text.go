// Package exposition writes what a node's containers, its machine and its pods
// use, in Prometheus' text format: the series of /metrics/cadvisor and of
// /metrics/resource (behaviour rows 1.21-5 and 1.21-6). Their names, labels and
// help texts are those that dashboards and alerts know from a kubelet.
//
// A node with a hundred pods has some twenty thousand series. They are written
// straight from the samples by a table of families, through one small buffer:
// no registry, no value per series.
package exposition

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// kind is the type of a family.
type kind string

const (
	gauge   kind = "gauge"
	counter kind = "counter"
)

// head is what all series of a family share.
type head struct {
	name, help string
	kind       kind
	// labels that its series have besides those of what they are about.
	labels []string
	// order of all labels, sorted by name: own ones by their index, the
	// subject's by the complement of theirs.
	order []int
}

// layOut settles the order of the labels, of a family about subjects with the
// labels base, which are sorted.
func (h *head) layOut(base []string) {
	type place struct {
		name string
		at   int
	}
	var all []place
	for i, name := range h.labels {
		all = append(all, place{name, i})
	}
	for i, name := range base {
		all = append(all, place{name, ^i})
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.name, b.name) })
	for _, p := range all {
		h.order = append(h.order, p.at)
	}
}

// subject is what series are about: a container, a pod, the machine. Its labels
// are written once for all of its series.
type subject struct {
	labels []byte // container="c",id="/x",
	ends   []int  // of each label in labels, after its comma
}

// about makes a subject of label names, sorted, and their values.
func about(names []string, values ...string) subject {
	s := subject{ends: make([]int, 0, len(names))}
	for i, name := range names {
		s.labels = append(appendLabel(s.labels, name, values[i]), ',')
		s.ends = append(s.ends, len(s.labels))
	}
	return s
}

// label i with its comma.
func (s *subject) label(i int) []byte {
	from := 0
	if i > 0 {
		from = s.ends[i-1]
	}
	return s.labels[from:s.ends[i]]
}

// appendLabel writes name="value". Values come from images, users and the
// kernel: what would end them is escaped, what isn't UTF-8 replaced.
func appendLabel(b []byte, name, value string) []byte {
	b = append(append(b, name...), '=', '"')
	for _, r := range value { // invalid bytes come as U+FFFD
		switch r {
		case '\\':
			b = append(b, `\\`...)
		case '\n':
			b = append(b, `\n`...)
		case '"':
			b = append(b, `\"`...)
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// row is one series of a family and a subject: its value and own labels.
type row struct {
	value  float64
	labels [5]string
}

// rows are those of one family and one subject.
type rows []row

// add a series with values of the family's own labels, as they will be written:
// interfaces of two names that aren't UTF-8 would be one series twice.
func (r *rows) add(value float64, labels ...string) {
	n := row{value: value}
	for i, label := range labels {
		if !utf8.ValidString(label) {
			label = string([]rune(label))
		}
		n.labels[i] = label
	}
	*r = append(*r, n)
}

// text writes families, piece by piece.
type text struct {
	w    io.Writer
	buf  []byte
	rows rows
	head *head // of the family that is being written
	open bool  // it has a series already
	err  error
}

// flushAt is how much is written at once, in bytes.
const flushAt = 32 << 10

func newText(w io.Writer) *text { return &text{w: w, buf: make([]byte, 0, flushAt+8<<10)} }

// begin a family. One without series isn't mentioned.
func (t *text) begin(h *head) { t.head, t.open = h, false }

// put writes the rows that were added for the subject, sorted by their labels,
// as of a time; zero means when the scraper reads them. Of two with the same
// labels the first counts: a file system may have the name of its disk.
func (t *text) put(s *subject, at time.Time) {
	if len(t.rows) > 1 && len(t.head.labels) > 0 {
		slices.SortStableFunc(t.rows, byLabels)
		t.rows = slices.CompactFunc(t.rows, func(a, b row) bool { return a.labels == b.labels })
	}
	for i := range t.rows {
		t.line(s, &t.rows[i], at)
	}
	t.rows = t.rows[:0]
}

func byLabels(a, b row) int { return slices.Compare(a.labels[:], b.labels[:]) }

func (t *text) line(s *subject, r *row, at time.Time) {
	h, b := t.head, t.buf
	if !t.open {
		t.open = true
		b = append(append(append(append(b, "# HELP "...), h.name...), ' '), h.help...)
		b = append(append(append(append(b, "\n# TYPE "...), h.name...), ' '), h.kind...)
		b = append(b, '\n')
	}
	b = append(b, h.name...)
	if len(h.order) > 0 {
		b = append(b, '{')
		for _, at := range h.order {
			if at < 0 {
				b = append(b, s.label(^at)...)
			} else {
				b = append(appendLabel(b, h.labels[at], r.labels[at]), ',')
			}
		}
		b[len(b)-1] = '}' // for the last comma
	}
	b = strconv.AppendFloat(append(b, ' '), r.value, 'g', -1, 64)
	if !at.IsZero() {
		b = strconv.AppendInt(append(b, ' '), at.UnixMilli(), 10)
	}
	t.buf = append(b, '\n')
	if len(t.buf) >= flushAt {
		t.flush()
	}
}

// flush writes what is buffered, and says the first error of all.
func (t *text) flush() error {
	if t.err == nil {
		_, t.err = t.w.Write(t.buf)
	}
	t.buf = t.buf[:0]
	return t.err
}
