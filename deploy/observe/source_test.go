package observe

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// metric is one that the sources register.
type metric struct {
	kind   string // Counter, Gauge, Histogram
	labels []string
	where  string
}

// registered finds the metrics in all Go files of the product by parsing them. A metric that it cannot read fails the
// test.
func registered(t *testing.T, root string) map[string]metric {
	t.Helper()
	found := map[string]metric{}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "deploy") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			locals, literals := localsOf(f.Body)
			r := &reader{fset: fset, locals: locals, literals: literals, found: found}
			if err := r.read(f.Body, nil); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Fatalf("read %d files: the walk went wrong", files)
	}
	return found
}

// env maps the parameters of a local function to the arguments of a call. A variadic parameter has all of its
// arguments.
type env map[string][]bound

// bound is an expression, and the env for the names in it.
type bound struct {
	expr ast.Expr
	env  env
}

// reader reads one function. It reads local helpers, which add a prefix to a name, once for each of their calls.
type reader struct {
	fset     *token.FileSet
	locals   map[string]*ast.FuncLit
	literals map[string]*ast.CompositeLit
	found    map[string]metric
}

// localsOf returns what the function sets its variables to: functions and literals.
func localsOf(body *ast.BlockStmt) (map[string]*ast.FuncLit, map[string]*ast.CompositeLit) {
	functions, literals := map[string]*ast.FuncLit{}, map[string]*ast.CompositeLit{}
	ast.Inspect(body, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 && len(a.Rhs) == 1 {
			if name, isName := a.Lhs[0].(*ast.Ident); isName {
				switch value := a.Rhs[0].(type) {
				case *ast.FuncLit:
					functions[name.Name] = value
				case *ast.CompositeLit:
					literals[name.Name] = value
				}
			}
		}
		return true
	})
	return functions, literals
}

// read reads every call below n. It reads local helpers where they are called.
func (r *reader) read(n ast.Node, in env) error {
	var errs []error
	ast.Inspect(n, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncLit); ok {
			return !slices.Contains(slices.Collect(maps.Values(r.locals)), f)
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok && r.locals[name.Name] != nil {
			f := r.locals[name.Name]
			if err := r.read(f.Body, bind(f, call, in)); err != nil {
				errs = append(errs, err)
			}
			return true
		}
		if kind, vec, ok := constructor(call); ok {
			if err := r.metric(call, kind, vec, in); err != nil {
				errs = append(errs, fmt.Errorf("line %d: %w", r.fset.Position(call.Pos()).Line, err))
			}
		}
		return true
	})
	return errors.Join(errs...)
}

func bind(f *ast.FuncLit, call *ast.CallExpr, in env) env {
	out := env{}
	i := 0
	for _, field := range f.Type.Params.List {
		_, variadic := field.Type.(*ast.Ellipsis)
		for _, name := range field.Names {
			if variadic {
				out[name.Name] = []bound{}
				for ; i < len(call.Args); i++ {
					out[name.Name] = append(out[name.Name], bound{call.Args[i], in})
				}
			} else if i < len(call.Args) {
				out[name.Name] = []bound{{call.Args[i], in}}
				i++
			}
		}
	}
	return out
}

// constructor reports a call such as prometheus.NewCounterVec(…).
func constructor(call *ast.CallExpr) (kind string, vec, ok bool) {
	sel, isSel := call.Fun.(*ast.SelectorExpr)
	if !isSel {
		return "", false, false
	}
	pkg, isPkg := sel.X.(*ast.Ident)
	name, isNew := strings.CutPrefix(sel.Sel.Name, "New")
	if !isPkg || pkg.Name != "prometheus" || !isNew || strings.HasSuffix(name, "Registry") {
		return "", false, false
	}
	name, vec = strings.CutSuffix(name, "Vec")
	return strings.TrimSuffix(name, "Func"), vec, true
}

func (r *reader) metric(call *ast.CallExpr, kind string, vec bool, in env) error {
	if !slices.Contains([]string{"Counter", "Gauge", "Histogram"}, kind) {
		return fmt.Errorf("this test does not know prometheus.New%s", kind)
	}
	opts, in2, err := r.options(call.Args[0], in)
	if err != nil {
		return err
	}
	name, constant := "", []string(nil)
	for _, e := range opts.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return errors.New("options without names of fields")
		}
		switch key, _ := kv.Key.(*ast.Ident); key.Name {
		case "Name":
			if name, err = text(kv.Value, in2); err != nil {
				return err
			}
		case "ConstLabels":
			if constant, err = r.constLabels(kv.Value, in2); err != nil {
				return err
			}
		case "Namespace", "Subsystem":
			return fmt.Errorf("this test does not read %s", key.Name)
		}
	}
	m := metric{kind: kind, where: r.fset.Position(call.Pos()).String()}
	if vec {
		if m.labels, err = texts(call.Args[1], in); err != nil {
			return err
		}
	}
	m.labels = append(m.labels, constant...)
	if have, ok := r.found[name]; ok && (have.kind != m.kind || !slices.Equal(have.labels, m.labels)) {
		return fmt.Errorf("%s is a %s by %v here and a %s by %v at %s", name, m.kind, m.labels, have.kind, have.labels, have.where)
	}
	r.found[name] = m
	return nil
}

// constLabels returns the names of the constant labels: the keys of a literal, or of the variable that the function
// sets to one.
func (r *reader) constLabels(e ast.Expr, in env) ([]string, error) {
	if name, ok := e.(*ast.Ident); ok && r.literals[name.Name] != nil {
		e = r.literals[name.Name]
	}
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, fmt.Errorf("constant labels that cannot be read (%T)", e)
	}
	var out []string
	for _, x := range lit.Elts {
		kv, ok := x.(*ast.KeyValueExpr)
		if !ok {
			return nil, errors.New("constant labels without names")
		}
		name, err := text(kv.Key, in)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}

// options finds the literal of the options: the argument itself, or the result of a local helper.
func (r *reader) options(e ast.Expr, in env) (*ast.CompositeLit, env, error) {
	switch e := e.(type) {
	case *ast.CompositeLit:
		return e, in, nil
	case *ast.CallExpr:
		name, ok := e.Fun.(*ast.Ident)
		if !ok || r.locals[name.Name] == nil {
			break
		}
		f := r.locals[name.Name]
		ret, ok := f.Body.List[len(f.Body.List)-1].(*ast.ReturnStmt)
		if !ok {
			break
		}
		return r.options(ret.Results[0], bind(f, e, in))
	}
	return nil, nil, fmt.Errorf("options of an unknown form %T", e)
}

// text returns the value of a string: a literal, a sum of strings, or a parameter.
func text(e ast.Expr, in env) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strconv.Unquote(e.Value)
	case *ast.BinaryExpr:
		a, err := text(e.X, in)
		if err != nil {
			return "", err
		}
		b, err := text(e.Y, in)
		return a + b, err
	case *ast.Ident:
		if b, ok := in[e.Name]; ok && len(b) == 1 {
			return text(b[0].expr, b[0].env)
		}
	}
	return "", fmt.Errorf("a name that cannot be read (%T)", e)
}

func texts(e ast.Expr, in env) ([]string, error) {
	var all []bound
	switch e := e.(type) {
	case *ast.CompositeLit:
		for _, x := range e.Elts {
			all = append(all, bound{x, in})
		}
	case *ast.Ident:
		b, ok := in[e.Name]
		if !ok {
			return nil, fmt.Errorf("labels %s that cannot be read", e.Name)
		}
		all = b
	default:
		return nil, fmt.Errorf("labels that cannot be read (%T)", e)
	}
	var out []string
	for _, b := range all {
		s, err := text(b.expr, b.env)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// clientMetrics returns the metrics that kprom gives every client of Kafka. It calls every hook once, so that all of
// them exist.
func clientMetrics(t *testing.T) map[string]metric {
	t.Helper()
	// As in pipeline/stream
	m := kprom.NewMetrics("fanfare_kafka", kprom.Registry(nil), kprom.WithStaticLabel(prometheus.Labels{"client": "x"}))
	cl, err := kgo.NewClient(kgo.WithHooks(m))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	broker, failed := kgo.BrokerMetadata{NodeID: 1}, errors.New("failed")
	for _, err := range []error{nil, failed} {
		m.OnBrokerConnect(broker, time.Second, nil, err)
		m.OnBrokerWrite(broker, 0, 1, time.Second, time.Second, err)
		m.OnBrokerRead(broker, 0, 1, time.Second, time.Second, err)
		m.OnBrokerE2E(broker, 0, kgo.BrokerE2E{BytesWritten: 1, BytesRead: 1, WriteErr: err})
		m.OnBrokerE2E(broker, 0, kgo.BrokerE2E{BytesWritten: 1, BytesRead: 1, ReadErr: err})
	}
	m.OnBrokerDisconnect(broker, nil)
	m.OnBrokerThrottle(broker, time.Second, true)
	m.OnProduceBatchWritten(broker, "t", 0, kgo.ProduceBatchMetrics{NumRecords: 1, UncompressedBytes: 1, CompressedBytes: 1})
	m.OnFetchBatchRead(broker, "t", 0, kgo.FetchBatchMetrics{NumRecords: 1, UncompressedBytes: 1, CompressedBytes: 1})
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]metric{}
	for _, f := range families {
		kind := f.GetType().String()
		have := metric{kind: kind[:1] + strings.ToLower(kind[1:]), where: "kprom"}
		for _, l := range f.GetMetric()[0].GetLabel() {
			have.labels = append(have.labels, l.GetName())
		}
		found[f.GetName()] = have
	}
	return found
}
