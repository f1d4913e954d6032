// SPDX-License-Identifier: Apache-2.0

// Binaries under test: umrun itself and the target programs of testdata/targets.

package viewtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Binary returns the path of umrun: $UMRUN_BIN, or one that is built for this
// test process.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := umrunBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var umrunBinary = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("UMRUN_BIN"); p != "" {
		return filepath.Abs(p)
	}
	out, err := outDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(out, "umrun")
	return path, goBuild(path, "umrun/cmd/umrun")
})

// outDir is a directory for binaries that the ordinary user may run. It is
// removed by [Main].
var outDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "umrun-lab-bin-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

// Main runs a package's tests, removes what was built for them, and returns the
// exit status. Call it from TestMain.
func Main(m *testing.M) int {
	code := m.Run()
	built.Lock()
	defer built.Unlock()
	if dir, err := outDir(); err == nil {
		os.RemoveAll(dir)
	}
	return code
}

// A Linking says how a target program is linked.
type Linking string

// The linkings: glibc as a shared library, glibc and musl inside, i386.
const (
	Dynamic Linking = "dynamic"
	Static  Linking = "static"
	Musl    Linking = "musl"
	I386    Linking = "i386"
)

var built struct {
	sync.Mutex
	paths map[string]string
}

// Target builds testdata/targets/NAME.c, or the Go program in
// testdata/targets/NAME, and returns its path. Each is built once.
func Target(t testing.TB, name string, how Linking) string {
	t.Helper()
	return once(t, name+"-"+string(how), func(path string) error {
		src := filepath.Join(Root(), "testdata", "targets", name) + ".c"
		if _, err := os.Stat(src); err == nil {
			return compile(t, path, src, how)
		}
		return goBuild(path, "umrun/testdata/targets/"+name)
	})
}

// Posix builds the program of testdata/posix, once, and returns its path.
func Posix(t testing.TB) string {
	t.Helper()
	return suite(t, "posix", "-O0")
}

// Steps builds the program of testdata/steps, once, and returns its path. It needs no library, as
// it is executed from places that have none.
func Steps(t testing.TB) string {
	t.Helper()
	return suite(t, "steps", "-O1", "-static", "-Wno-parentheses", "-Wno-format-truncation")
}

// suite builds what is in a directory of testdata.
func suite(t testing.TB, name string, flags ...string) string {
	t.Helper()
	return once(t, name, func(path string) error {
		Need(t, "gcc")
		src, err := filepath.Glob(filepath.Join(Root(), "testdata", name, "*.c"))
		if err != nil {
			return err
		}
		args := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-result", "-pthread", "-o", path}, append(flags, src...)...)
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("gcc %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	})
}

// BrowserDriver builds the program that runs a browser for a test, once, and
// returns its path: see its own documentation.
func BrowserDriver(t testing.TB) string {
	t.Helper()
	return once(t, "browser", func(path string) error {
		return goBuild(path, "umrun/view/viewtest/browser")
	})
}

// GoQUIC builds the program that speaks HTTP/3, once, and returns its path.
func GoQUIC(t testing.TB) string {
	t.Helper()
	return once(t, "goquic", func(path string) error {
		return goBuild(path, "umrun/view/viewtest/goquic")
	})
}

// once makes a program by f and remembers its path under a name.
func once(t testing.TB, name string, f func(path string) error) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if p := built.paths[name]; p != "" {
		return p
	}
	dir, err := outDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := f(path); err != nil {
		t.Fatal(err)
	}
	if built.paths == nil {
		built.paths = make(map[string]string)
	}
	built.paths[name] = path
	return path
}

func compile(t testing.TB, path, src string, how Linking) error {
	cc, flags := "gcc", []string{}
	switch how {
	case Static:
		flags = []string{"-static"}
	case Musl:
		cc, flags = "musl-gcc", []string{"-static"}
	case I386:
		flags = []string{"-m32", "-static"}
	}
	Need(t, cc)
	args := append(flags, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-pthread", "-o", path, src, "-Wl,--as-needed", "-lresolv")
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", cc, strings.Join(args, " "), err, out)
	}
	return nil
}

func goBuild(path, pkg string) error {
	c := exec.Command("go", "build", "-o", path, pkg)
	c.Dir = Root()
	if !strings.HasSuffix(pkg, "cmd/umrun") {
		c.Env = append(os.Environ(), "CGO_ENABLED=0") // static, Go's own resolver
	}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Root is the directory of the module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
