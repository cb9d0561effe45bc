package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The headings that mean something to the program. All others under notPassed
// are reasons that people gave.
const (
	passes      = "## Passes"
	notPassed   = "## Not passed"
	reason      = "### "
	unknown     = "Not looked into yet"
	selfSkipped = "The suite itself finds that it can't be run here: "
)

// record is docs/CONFORMANCE.md.
type record struct {
	head   string // what stands before the lists
	passes map[string]bool
	others map[string]string // why a spec doesn't pass, by its name
}

// parseRecord reads a record: a heading for the passes, then one for what does
// not pass with a heading in it per reason; under each, a list of names.
func parseRecord(text string) (*record, error) {
	r := &record{passes: map[string]bool{}, others: map[string]string{}}
	head, lists, ok := strings.Cut(text, passes+"\n")
	if !ok {
		return nil, fmt.Errorf("it has no heading %q", passes)
	}
	r.head = head
	section, why := passes, ""
	for i, line := range strings.Split(lists, "\n") {
		name, item := strings.CutPrefix(line, "- ")
		heading, isReason := strings.CutPrefix(line, reason)
		switch {
		case item && (r.passes[name] || r.others[name] != ""):
			return nil, fmt.Errorf("it has spec %q twice", name)
		case item && section == passes:
			r.passes[name] = true
		case item && why != "":
			r.others[name] = why
		case line == notPassed:
			section = notPassed
		case isReason && section == notPassed:
			why = heading
		case line != "":
			return nil, fmt.Errorf("line %d of its lists is neither heading nor spec: %q", i+1, line)
		}
	}
	return r, nil
}

// String is the record as it stands in the file, in the order of names.
func (r *record) String() string {
	var b strings.Builder
	b.WriteString(r.head + passes + "\n\n")
	for _, name := range slices.Sorted(maps.Keys(r.passes)) {
		b.WriteString("- " + name + "\n")
	}
	b.WriteString("\n" + notPassed + "\n")
	why := map[string][]string{}
	for name, w := range r.others {
		why[w] = append(why[w], name)
	}
	for _, w := range slices.Sorted(maps.Keys(why)) {
		b.WriteString("\n" + reason + w + "\n\n")
		slices.Sort(why[w])
		for _, name := range why[w] {
			b.WriteString("- " + name + "\n")
		}
	}
	return b.String()
}

// compare says what is not as the record says, given how the specs ended whose
// names match asked.
func (r *record) compare(results []result, asked *regexp.Regexp) []string {
	var out []string
	ran := map[string]bool{}
	for _, s := range results {
		ran[s.name] = true
		switch {
		case s.state == passed && !r.passes[s.name]:
			out = append(out, "passes now, list it: "+s.name)
		case s.state != passed && r.passes[s.name]:
			out = append(out, "PASSED BEFORE: "+s.name+"\n\t"+s.message)
		case s.state != passed && (r.others[s.name] == "" || r.others[s.name] == unknown):
			out = append(out, "fails and has no reason: "+s.name+"\n\t"+s.message)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.passes)) {
		if !ran[name] && asked.MatchString(name) {
			out = append(out, "PASSED BEFORE, was not run: "+name)
		}
	}
	return out
}

// update takes over what is new: passes, and failures of specs that the record
// doesn't know. What passed before stays among the passes.
func (r *record) update(results []result) {
	for _, s := range results {
		switch {
		case s.state == passed:
			r.passes[s.name] = true
			delete(r.others, s.name)
		case !r.passes[s.name] && r.others[s.name] == "":
			r.others[s.name] = guess(s)
		}
	}
}

// guess is the reason of a failure where the suite itself says it.
func guess(s result) string {
	if s.state == skipped {
		return selfSkipped + strings.Join(strings.Fields(s.message), " ")
	}
	return unknown
}
