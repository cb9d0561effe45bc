package pod

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print into testdata")

// TestScripts runs every testdata/*.txt. A script is a list of commands, each
// with what it prints:
//
//	# a comment
//	verb arg key=value
//	more lines for the verb
//	----
//	what it prints
//
// A blank line ends the output. The verbs are in world_test.go, each one
// method; `go test ./pkg/pod -run Scripts -rewrite` writes the outputs anew.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts in testdata: %v, error %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	var out strings.Builder
	for _, b := range parseScript(string(text)) {
		out.WriteString(b.comment)
		if b.command == "" {
			continue
		}
		got := w.command(t, b)
		if got != b.want && !*rewrite {
			t.Errorf("%s:%d: %s\n--- want\n%s--- got\n%s", file, b.line, b.command, b.want, got)
		}
		fmt.Fprintf(&out, "%s----\n%s\n", b.command, got)
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// block is one command of a script with what is written around it.
type block struct {
	line    int
	comment string // the comments and blank lines before it
	command string // its lines
	want    string // what it is to print
}

func parseScript(text string) []block {
	var blocks []block
	b := block{}
	output := false
	for i, line := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimRight(line, "\n")
		switch {
		case output && bare == "":
			blocks, b, output = append(blocks, b), block{}, false
		case output:
			b.want += bare + "\n"
		case bare == "----":
			output = true
		case b.command == "" && (bare == "" || strings.HasPrefix(bare, "#")):
			b.comment += line
		default:
			if b.command == "" {
				b.line = i + 1
			}
			b.command += bare + "\n"
		}
	}
	return append(blocks, b)
}

// args are the words of a command: bare ones in order, and key=value ones.
// A value may hold spaces between double quotes.
type args struct {
	words []string
	named map[string]string
}

func parseArgs(line string) args {
	a := args{named: map[string]string{}}
	quoted := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			a.words = append(a.words, f)
			continue
		}
		a.named[key] = strings.Trim(value, `"`)
	}
	return a
}

func (a args) word(i int) string {
	if i < len(a.words) {
		return a.words[i]
	}
	return ""
}

// has says whether the bare word is there.
func (a args) has(word string) bool {
	for _, w := range a.words {
		if w == word {
			return true
		}
	}
	return false
}

// holds says whether the key begins with one of those in hold=KEY,KEY.
func (a args) holds(key string) bool {
	for _, prefix := range strings.Split(a.named["hold"], ",") {
		if prefix != "" && strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
