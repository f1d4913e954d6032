// SPDX-License-Identifier: Apache-2.0

// The rules of the house: who may import whom, and what every file and package
// has. They are the arrows of the architecture, held by a test so that they
// cannot rot.

package umrun_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	GoFiles      []string
	CgoFiles     []string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,GoFiles,CgoFiles,Imports,Deps,TestImports,XTestImports", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	if len(all) < 3 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// within reports whether path is root or below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// A rule says that packages below from reach what is below to, by any way
// (deps) or by their own imports, only if they are also below one of only.
type rule struct {
	to   string
	only []string
	deps bool
}

var rules = []rule{
	{to: "gvisor.dev/gvisor", only: []string{"umrun/stacks/netstack", "umrun/stacks/nat"}},
	{to: "golang.zx2c4.com/wireguard", only: []string{"umrun/stacks/wg"}},
	{to: "github.com/seccomp/libseccomp-golang", only: []string{"umrun/intercept"}},
	{to: "github.com/gopacket", only: []string{"umrun/stacks/observe"}},
	{to: "umrun/stacks/observe", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/observe"}, deps: true},
	{to: "github.com/spf13", only: []string{"umrun/cmd/umrun"}},
	{to: "github.com/pelletier/go-toml", only: []string{"umrun/cmd/umrun"}},
	{to: "umrun/cmd", only: []string{"umrun/cmd"}},
	{to: "umrun/view", only: []string{"umrun/cmd", "umrun/view"}},
	{to: "umrun/netmod", only: []string{"umrun/cmd", "umrun/view", "umrun/netmod"}},
	{to: "github.com/hanwen/go-fuse", only: []string{"umrun/fsmod/imagemount"}},
	{to: "umrun/fsmod", only: []string{"umrun/cmd", "umrun/view", "umrun/fsmod"}},
	{to: "umrun/stacks/netstack", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks"}, deps: true},
	{to: "umrun/stacks/wg", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/wg"}, deps: true},
	{to: "umrun/stacks/kernel", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/kernel"}, deps: true},
	{to: "umrun/stacks/vde", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/vde"}, deps: true},
	{to: "umrun/stacks/nat", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/nat"}, deps: true},
	{to: "github.com/gaissmai/bart", only: []string{"umrun/stacks/route"}},
	{to: "umrun/stacks/multihome", only: []string{"umrun/view", "umrun/stacks/multihome"}},
	{to: "umrun/stacks/impair", only: []string{"umrun/view", "umrun/stacks/impair"}},
	{to: "umrun/stacks/tap", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/tap", "umrun/stacks/kernel"}},
	{to: "umrun/stacks/proxy", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/proxy"}, deps: true},
	{to: "golang.org/x/crypto/ssh", only: []string{"umrun/stacks/proxy", "umrun/view/viewtest"}},
	{to: "umrun/stacks/netconf", only: []string{"umrun/cmd", "umrun/view", "umrun/stacks/netconf"}, deps: true},
	{to: "github.com/insomniacslk/dhcp", only: []string{"umrun/stacks/netconf", "umrun/stacks/nat"}},
	{to: "umrun/intercept", only: []string{"umrun/cmd", "umrun/view", "umrun/netmod", "umrun/fsmod", "umrun/intercept"}, deps: true},
}

// TestArrows holds the import rules.
func TestArrows(t *testing.T) {
	all := packages(t)
	for path, p := range all {
		for _, r := range rules {
			allowed := false
			for _, o := range r.only {
				allowed = allowed || within(path, o)
			}
			reach := p.Imports
			if r.deps {
				reach = p.Deps
			}
			for _, imp := range reach {
				if !allowed && within(imp, r.to) {
					t.Errorf("%s must not reach %s (it has %s)", path, r.to, imp)
				}
			}
		}
	}
	// The two at the bottom import nothing of ours; stacks is plain Go.
	for _, bottom := range []string{"umrun/intercept", "umrun/stacks"} {
		p, ok := all[bottom]
		if !ok {
			t.Errorf("package %s is gone", bottom)
		}
		for _, imp := range p.Deps {
			if within(imp, "umrun") {
				t.Errorf("%s imports %s: it may import nothing of ours", bottom, imp)
			}
		}
	}
	// What configures a stack knows none.
	for _, imp := range all["umrun/stacks/netconf"].Deps {
		if within(imp, "umrun") && imp != "umrun/stacks" && imp != "umrun/stacks/offload" && imp != "umrun/stacks/netconf" {
			t.Errorf("umrun/stacks/netconf imports %s", imp)
		}
	}
	if p := all["umrun/stacks"]; len(p.CgoFiles) > 0 {
		t.Errorf("umrun/stacks has cgo files: %v", p.CgoFiles)
	}
	// libseccomp compiles the rules, in one file.
	for _, p := range all {
		for _, f := range goFiles(p) {
			if strings.Contains(read(t, f), "libseccomp-golang\"") && filepath.Base(f) != "filter.go" {
				t.Errorf("%s imports libseccomp: only intercept/filter.go does", f)
			}
		}
	}
}

// TestTestsStayHome: also the tests of netmod and fsmod know no concrete stack
// but the ones that are made for tests.
func TestTestsStayHome(t *testing.T) {
	for path, p := range packages(t) {
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if within(path, "umrun/netmod") && within(imp, "umrun/fsmod") || within(path, "umrun/fsmod") && within(imp, "umrun/netmod") {
				t.Errorf("a test of %s imports %s", path, imp)
			}
			if within(imp, "umrun/view") && !within(path, "umrun/view") && !within(path, "umrun/cmd") {
				t.Errorf("a test of %s imports %s", path, imp)
			}
		}
	}
}

// TestPackageDocs: every package says what it is, and no init registers things.
func TestPackageDocs(t *testing.T) {
	init := regexp.MustCompile(`(?m)^func init\(\)`)
	for path, p := range packages(t) {
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue // only tests
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = strings.ToUpper(filepath.Base(path)[:1]) + filepath.Base(path)[1:] + " "
		}
		if !strings.HasPrefix(p.Doc, want) && !(p.Name == "main" && strings.HasPrefix(p.Doc, "Command "+filepath.Base(path)+" ")) {
			t.Errorf("%s: the package doc is %q, want it to begin with %q", path, p.Doc, want)
		}
		for _, f := range goFiles(p) {
			if init.MatchString(read(t, f)) {
				t.Errorf("%s has an init function", f)
			}
		}
	}
}

var (
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	comment   = regexp.MustCompile(`^(//|#|/\*) ?\S`)
)

// TestFiles: the licence line, what the file holds, and its size.
func TestFiles(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == ".git" || base == ".cache" || base == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(path)
		if ext != ".go" && ext != ".c" && ext != ".h" && ext != ".sh" {
			return nil
		}
		seen++
		text := read(t, path)
		lines := strings.Split(text, "\n")
		if strings.HasPrefix(lines[0], "#!") {
			lines = lines[1:]
		}
		isGenerated := generated.MatchString(text)
		const licence = "SPDX-License-Identifier: Apache-2.0"
		if !strings.Contains(lines[0], licence) && !isGenerated {
			t.Errorf("%s: the first line is not the licence line", path)
		}
		if !isGenerated && !says(lines) {
			t.Errorf("%s: no comment says what the file holds", path)
		}
		if !isGenerated && !strings.HasSuffix(path, "_test.go") && len(lines) > 501 {
			t.Errorf("%s has %d lines: a file is a concept and has 500 at most", path, len(lines))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("only %d files were looked at", seen)
	}
}

// says reports whether a comment, or a package clause with its doc, follows the
// licence line.
func says(lines []string) bool {
	for _, l := range lines[1:] {
		switch {
		case l == "" || l == "//" || strings.HasPrefix(l, "//go:build"):
		default:
			return comment.MatchString(l)
		}
	}
	return false
}

// TestWords: names that say nothing are not used for packages.
func TestWords(t *testing.T) {
	for path, p := range packages(t) {
		switch p.Name {
		case "util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "base":
			t.Errorf("%s: %q says nothing about what the package is", path, p.Name)
		}
	}
}

// TestLogger: slog is injected, nobody logs to the default logger or exits but
// a command, and intercept's child, which is a process of its own before it
// becomes the program.
func TestLogger(t *testing.T) {
	bad := regexp.MustCompile(`\b(slog\.(Default|SetDefault|Debug|Info|Warn|Error)\(|log\.(Print|Fatal|Panic)|os\.Exit\()`)
	for path, p := range packages(t) {
		if p.Name == "main" || within(path, "umrun/view/viewtest") {
			continue
		}
		for _, f := range goFiles(p) {
			s := bufio.NewScanner(strings.NewReader(read(t, f)))
			for n := 1; s.Scan(); n++ {
				line, _, _ := strings.Cut(s.Text(), "//")
				if m := bad.FindString(line); m != "" && !strings.HasSuffix(f, "intercept/child.go") {
					t.Errorf("%s:%d: %s", f, n, m)
				}
			}
		}
	}
}

func goFiles(p pkg) []string {
	var all []string
	for _, f := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
		all = append(all, filepath.Join(p.Dir, f))
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
