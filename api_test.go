package closeout_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The public API has no types of internal packages. A program couldn't name them, and pkg.go.dev
// doesn't show them.
func TestThePublicAPIHasNoInternalTypes(t *testing.T) {
	for _, dir := range []string{".", "activities", "closeouttest", "pricing", "session", "webhook", "workflows", "zego", "zego/serverapi"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: files %q, %v", dir, files, err)
		}
		fset := token.NewFileSet()
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range internalTypes(file) {
				t.Errorf("%s: %s.%s is internal", fset.Position(found.Pos()), found.X, found.Sel)
			}
		}
	}
}

func TestInternalTypesAreFound(t *testing.T) {
	for declaration, want := range map[string]int{
		"type T struct { F ledger.Bill }":                 1,
		"type T struct { ledger.Bill }":                   1,
		"type T struct { f ledger.Bill }":                 0,
		"type T = ledger.Bill":                            1,
		"type t struct { F ledger.Bill }":                 0,
		"type T interface { M() ledger.Bill }":            1,
		"func F(b *ledger.Bill) {}":                       1,
		"func F() { var b ledger.Bill; _ = b }":           0,
		"func f(b ledger.Bill) {}":                        0,
		"type T struct{}; func (T) M(map[string]l2.X) {}": 1,
		"type t struct{}; func (t) M(ledger.Bill) {}":     0,
		"var V ledger.Bill":                               1,
		"var V = ledger.New()":                            1,
		"var V = func() int { return ledger.Zero }()":     0,
	} {
		source := "package p\nimport (\n\"github.com/closeouthq/closeout/internal/ledger\"\nl2 \"github.com/closeouthq/closeout/internal/x\"\n)\n" + declaration
		file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := internalTypes(file); len(got) != want {
			t.Errorf("%s: found %d, want %d", declaration, len(got), want)
		}
	}
}

// internalTypes returns the uses of internal packages in a file's exported declarations.
func internalTypes(file *ast.File) (found []*ast.SelectorExpr) {
	internal := map[string]bool{}
	for _, spec := range file.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		if !strings.Contains(p, "closeout/internal/") {
			continue
		}
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		internal[name] = true
	}
	var walk func(ast.Node)
	walk = func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BlockStmt:
				return false // skip function bodies
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if len(f.Names) == 0 || f.Names[0].IsExported() {
						walk(f.Type)
					}
				}
				return false
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && internal[x.Name] {
					found = append(found, n)
				}
			}
			return true
		})
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))) {
				walk(d.Type)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						walk(spec)
					}
				case *ast.ValueSpec:
					if ast.IsExported(spec.Names[0].Name) {
						walk(spec)
					}
				}
			}
		}
	}
	return found
}

// receiver returns the name of a method's type.
func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}
