// Package nodeagent_test is the repository's test of itself: what the rooms
// are for, who may know whom, and what is not done in this house.
package nodeagent_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nodeagent/nodeagent"

// layers are the rooms of the house from top to bottom. A room knows only
// rooms of the layers below its own, and its own inner rooms.
var layers = [][]string{
	{"cmd", "e2e"},
	{"pkg/agent"},
	{"pkg/syncloop", "pkg/local", "pkg/server"},
	{"pkg/ui"},
	// What the server tells of the node and its pods, from several rooms below.
	{"pkg/stats"},
	{"pkg/source", "pkg/cri", "pkg/volumes", "pkg/probe", "pkg/checkpoint", "pkg/config", "pkg/node", "pkg/dns", "pkg/logs",
		"pkg/credentials", "pkg/status"},
	// Below the others: what pods refer to, what their limits add up to, what
	// their containers and volumes show of them.
	{"pkg/objects", "pkg/cgroups", "pkg/env"},
	{"pkg/ledger", "pkg/timeline"},
	// And how files are written whole, and how one follows what an apiserver has.
	{"pkg/pod", "pkg/manifest", "pkg/record", "pkg/reflector"},
	// What the agent counts of its own work, and what it tells of each piece of
	// it; anybody may tell them.
	{"pkg/metrics", "pkg/trace"},
}

// ownContext are the files that begin a context though they are no main.
var ownContext = map[string]string{
	"pkg/syncloop/actor.go": "slog wants one to log with",
}

// pure are the rooms that hold values: they read no clock and call nothing.
var pure = []string{"pkg/pod", "pkg/ledger", "pkg/timeline"}

// pureImports is what they may import, besides each other; a name that ends
// in a slash is a whole tree.
var pureImports = []string{
	"cmp", "encoding/json", "errors", "fmt", "maps", "slices", "strings", "time",
	"k8s.io/api/", "k8s.io/apimachinery/", "k8s.io/component-helpers/resource",
	// How schedulers read affinity, tolerations and declared features. They log
	// what they cannot read; with a logger that discards it, they are pure.
	"k8s.io/component-helpers/scheduling/", "k8s.io/component-helpers/nodedeclaredfeatures/", "github.com/go-logr/logr",
}

// pureCalls are what they must not use of what they may import.
var pureCalls = []string{
	"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.Tick", "time.NewTimer",
	"time.NewTicker", "time.Sleep", "k8s.io/apimachinery/pkg/apis/meta/v1.Now",
	"fmt.Print", "fmt.Printf", "fmt.Println",
}

// file is one Go file of the repository.
type file struct {
	path string // as in pkg/pod/pod.go
	room string // as in pkg/pod
	test bool
	*ast.File
}

// product says whether the file is part of what is shipped.
func (f file) product() bool {
	return !f.test && (strings.HasPrefix(f.path, "cmd/") || strings.HasPrefix(f.path, "pkg/"))
}

func (f file) pure() bool { return !f.test && slices.Contains(pure, f.room) }

// house is the repository's Go files, read once.
type house struct {
	*token.FileSet
	files []file
}

func readHouse(t *testing.T) house {
	h := house{FileSet: token.NewFileSet()}
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "testdata/") {
			return
		}
		f, err := parser.ParseFile(h.FileSet, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(name, "_test.go") || slices.ContainsFunc(f.Imports, func(s *ast.ImportSpec) bool {
			return importPath(s) == "testing" // a suite that tests call
		})
		h.files = append(h.files, file{name, roomOf(name), test, f})
	})
	return h
}

// walk visits every file of the repository but git's own.
func walk(t *testing.T, visit func(name string)) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".run", "bin"}, name):
			return fs.SkipDir // not of the project: see .gitignore
		case d.Name() == ".git": // of a worktree
		case d.Type().IsRegular():
			visit(filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// roomOf is cmd, e2e or pkg/x.
func roomOf(name string) string {
	parts := strings.Split(name, "/")
	if parts[0] == "pkg" && len(parts) > 2 {
		return path.Join(parts[:2]...)
	}
	return parts[0]
}

func (h house) at(n ast.Node) string { return h.Position(n.Pos()).String() }

func TestHouse(t *testing.T) {
	h := readHouse(t)
	t.Run("purpose", h.testPurpose)
	t.Run("layers", h.testLayers)
	t.Run("imports", h.testImports)
	t.Run("pure", h.testPure)
	t.Run("maps", h.testMapOrder)
	t.Run("calls", h.testCalls)
	t.Run("workplace", testWorkplace)
	t.Run("behaviour", h.testBehaviour)
}

// testPurpose: every package says in its doc comment what it is for.
func (h house) testPurpose(t *testing.T) {
	said := map[string]bool{}
	for _, f := range h.files {
		if !strings.Contains(f.path, "/") {
			continue
		}
		dir := path.Dir(f.path)
		said[dir] = said[dir] || f.Doc != nil && len(strings.Fields(f.Doc.Text())) > 3
	}
	for dir, ok := range said {
		if !ok {
			t.Errorf("%s: no file has a package comment that says what it is for", dir)
		}
	}
}

// testLayers: imports go down only.
func (h house) testLayers(t *testing.T) {
	depth := map[string]int{}
	for i, rooms := range layers {
		for _, room := range rooms {
			depth[room] = i
		}
	}
	for _, f := range h.files {
		if f.test || !strings.Contains(f.path, "/") {
			continue
		}
		from, ok := depth[f.room]
		if !ok {
			t.Errorf("%s: room %s has no place in the table of layers", f.path, f.room)
			continue
		}
		for _, spec := range f.Imports {
			rest, ours := strings.CutPrefix(importPath(spec), module+"/")
			room := roomOf(rest + "/")
			if d, known := depth[room]; ours && known && room != f.room && d <= from {
				t.Errorf("%s: %s must not know %s, which is not below it", h.at(spec), f.room, room)
			}
		}
	}
}

// testImports: the values import a listed set, and nothing of the product
// imports the peer's own packages, which are no library.
func (h house) testImports(t *testing.T) {
	for _, f := range h.files {
		for _, spec := range f.Imports {
			name := importPath(spec)
			if !strings.HasPrefix(f.path, "e2e/") && (name == "k8s.io/kubernetes" || strings.HasPrefix(name, "k8s.io/kubernetes/")) {
				t.Errorf("%s: imports %s", h.at(spec), name)
			}
			if f.pure() && !pureImport(name) {
				t.Errorf("%s: %s must not import %s", h.at(spec), f.room, name)
			}
		}
	}
}

func pureImport(name string) bool {
	if rest, ours := strings.CutPrefix(name, module+"/"); ours {
		return slices.Contains(pure, rest)
	}
	return slices.ContainsFunc(pureImports, func(allowed string) bool {
		return name == allowed || strings.HasSuffix(allowed, "/") && strings.HasPrefix(name, allowed)
	})
}

// testPure: the values know no clock, no goroutine and no channel.
func (h house) testPure(t *testing.T) {
	for _, f := range h.files {
		if !f.pure() {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.GoStmt:
				what = "starts a goroutine"
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				what = "uses a channel"
			case *ast.UnaryExpr:
				if n.Op == token.ARROW {
					what = "uses a channel"
				}
			case *ast.SelectorExpr:
				if name := f.qualified(n); slices.Contains(pureCalls, name) {
					what = "uses " + name
				}
			}
			if what != "" {
				t.Errorf("%s: %s", h.at(n), what)
			}
			return true
		})
	}
}

// testMapOrder: what the values say doesn't follow the order of a map. A loop
// over a map may not append, unless its function sorts (or takes the least),
// nor plan, wait or note. Types of other modules are not looked into.
func (h house) testMapOrder(t *testing.T) {
	for _, room := range pure {
		info := h.typesOf(room)
		for _, f := range h.files {
			if !f.pure() || f.room != room {
				continue
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil && !calls(fn.Body, "Sort", "SortFunc", "Min") {
					h.checkMapOrder(t, info, fn)
				}
			}
		}
	}
}

func (h house) checkMapOrder(t *testing.T, info types.Info, fn *ast.FuncDecl) {
	ast.Inspect(fn, func(n ast.Node) bool {
		loop, ok := n.(*ast.RangeStmt)
		if !ok {
			return true
		}
		of := info.Types[loop.X].Type
		if of == nil {
			return true
		}
		if _, isMap := of.Underlying().(*types.Map); isMap && calls(loop.Body, "append", "note", "do", "kill", "wait", "waitUntil") {
			t.Errorf("%s: %s puts something out in the order of a map", h.at(loop), fn.Name)
		}
		return true
	})
}

// typesOf finds the types of a package as far as it says them itself.
func (h house) typesOf(room string) types.Info {
	var files []*ast.File
	for _, f := range h.files {
		if f.room == room && !f.test {
			files = append(files, f.File)
		}
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Error: func(error) {}}
	_, _ = conf.Check(room, h.FileSet, files, &info) // other modules' types are missing: expected
	return info
}

// calls says whether a function or method of one of the names is called.
func calls(n ast.Node, names ...string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch fun := call.Fun.(type) {
		case *ast.Ident:
			found = found || slices.Contains(names, fun.Name)
		case *ast.SelectorExpr:
			found = found || slices.Contains(names, fun.Sel.Name)
		}
		return true
	})
	return found
}

// testCalls: nobody deletes whole trees by path, and only a program's main
// begins a context.
func (h house) testCalls(t *testing.T) {
	for _, f := range h.files {
		if !f.product() {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch name := f.qualified(sel); name {
			case "os.RemoveAll":
				t.Errorf("%s: %s crosses mount points", h.at(sel), name)
			case "context.Background", "context.TODO":
				if f.room != "cmd" && ownContext[f.path] == "" {
					t.Errorf("%s: %s outside of main: take the caller's, or context.WithoutCancel of it", h.at(sel), name)
				}
			}
			return true
		})
	}
}

// qualified is import path and name of a selector on a package, else "".
func (f file) qualified(sel *ast.SelectorExpr) string {
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	for _, spec := range f.Imports {
		name := path.Base(importPath(spec))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == id.Name {
			return importPath(spec) + "." + sel.Sel.Name
		}
	}
	return ""
}

func importPath(spec *ast.ImportSpec) string { return strings.Trim(spec.Path.Value, `"`) }

// testWorkplace: nothing in the tree names a folder of the machine that it was
// written on.
func testWorkplace(t *testing.T) {
	folder := regexp.MustCompile(`(?m)(^|[^\w./-])/` + `work/`)
	walk(t, func(name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := folder.FindIndex(b); at != nil {
			t.Errorf("%s:%d: names a folder of the workplace", name, 1+strings.Count(string(b[:at[1]]), "\n"))
		}
	})
}

var (
	rowID     = regexp.MustCompile(`^(T\d+|\d+\.\d+-\d+)$`)
	rowInText = regexp.MustCompile(`\b1\.\d+-\d+\b`)
)

var testName = regexp.MustCompile(`\b((?:Test|Fuzz|Benchmark)[A-Z]\w*)(?:/([\w-]+))?`)

// testBehaviour: the tests that docs/BEHAVIOUR.md names exist, every row is
// there once with a state, one that is done names a test, and rows that comments
// mean exist. A row is | id | status | words | test |; a script of
// pkg/pod is named TestScripts/its-name.
func (h house) testBehaviour(t *testing.T) {
	text, err := os.ReadFile("docs/BEHAVIOUR.md")
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	tests, subtests := h.tests()
	ids := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		where := fmt.Sprintf("docs/BEHAVIOUR.md:%d", i+1)
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "|") || len(cells) < 4 {
			continue
		}
		id, state := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1])
		if !rowID.MatchString(id) {
			continue // a table's head
		}
		if ids[id] {
			t.Errorf("%s: row %s is there twice", where, id)
		}
		ids[id] = true
		if !slices.Contains([]string{"done", "planned", "out of scope"}, state) {
			t.Errorf("%s: row %s is %q", where, id, state)
		}
		named := testName.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if state == "done" && len(named) == 0 {
			t.Errorf("%s: row %s is done, but names no test", where, id)
		}
		for _, name := range named {
			if !tests[name[1]] {
				t.Errorf("%s: there is no %s", where, name[1])
			}
			script := "pkg/pod/testdata/" + name[2] + ".txt"
			if _, err := os.Stat(script); name[1] == "TestScripts" && err != nil {
				t.Errorf("%s: %v", where, err)
			}
			if name[1] != "TestScripts" && name[2] != "" && !subtests[name[2]] {
				t.Errorf("%s: no test has a part named %s", where, name[2])
			}
		}
	}
	for id := range h.rowsMeant() {
		if section, _, _ := strings.Cut(id, "-"); !ids[id] && ids[section+"-1"] {
			t.Errorf("docs/BEHAVIOUR.md: there is no row %s, which a comment means", id)
		}
	}
}

// rowsMeant are the rows of docs/BEHAVIOUR.md that comments in the code name.
func (h house) rowsMeant() map[string]bool {
	rows := map[string]bool{}
	for _, f := range h.files {
		for _, group := range f.Comments {
			for _, id := range rowInText.FindAllString(group.Text(), -1) {
				rows[id] = true
			}
		}
	}
	return rows
}

// tests are the names of all tests in the tree, and every word in quotes in
// them: names of subtests are among those.
func (h house) tests() (tests, words map[string]bool) {
	tests, words = map[string]bool{}, map[string]bool{}
	for _, f := range h.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				tests[fn.Name.Name] = true
				ast.Inspect(fn, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						words[strings.Trim(lit.Value, "\"`")] = true
					}
					return true
				})
			}
		}
	}
	return tests, words
}
