// SPDX-License-Identifier: Apache-2.0

// The suites, and how each is run.

package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// A suite is a set of tests that one program runs.
type suite struct {
	name   string
	lang   language
	engine string // of a view whose home directory is a cow mount; empty: it has no mounts
	dir    string // where it runs; empty for an empty directory
}

// String is the suite's name in the list and in the report.
func (s *suite) String() string {
	if s.engine != "" {
		return s.name + "@" + s.engine
	}
	return s.name
}

// flags are umrun's. home is the suite's own directory.
func (s *suite) flags(home string) []string {
	flags := []string{"-n", "none"}
	if s.engine != "" {
		flags = append(flags, "--fs-engine", s.engine, "-m", "cow::"+home)
	}
	return flags
}

// suites are all that are compared.
var suites = []suite{
	{name: "net", lang: golang},
	{name: "net/http", lang: golang},
	{name: "crypto/tls", lang: golang},
	{name: "net/rpc", lang: golang},
	{name: "net/smtp", lang: golang},
	{name: "net/http/httputil", lang: golang},
	{name: "net/http/httptest", lang: golang},
	{name: "net/http/cgi", lang: golang},
	{name: "internal/poll", lang: golang},
	{name: "os", lang: golang},
	{name: "os/exec", lang: golang},
	{name: "syscall", lang: golang},
	{name: "log/syslog", lang: golang},
	{name: "test_socket", lang: python},
	{name: "test_selectors", lang: python},
	{name: "test_socketserver", lang: python},
	{name: "test_httpservers", lang: python},
	{name: "test_ftplib", lang: python},
	{name: "test_imaplib", lang: python},
	{name: "test_ssl", lang: python},
	{name: "test_asyncio", lang: python},
	{name: "test_select", lang: python},
	{name: "test_poll", lang: python},
	{name: "test_epoll", lang: python},
	{name: "test_httplib", lang: python},
	{name: "test_smtplib", lang: python},
	{name: "test_poplib", lang: python},
	{name: "test_telnetlib", lang: python},
	{name: "test_nntplib", lang: python},
	{name: "test_urllib2_localnet", lang: python},
	{name: "test_xmlrpc", lang: python},
	{name: "test_asyncore", lang: python},
	{name: "test_logging", lang: python},
	{name: "test_os", lang: python},
}

// fileSuites are those about files, which run in a view by each engine.
var fileSuites = []suite{
	{name: "os", lang: golang},
	{name: "os/exec", lang: golang},
	{name: "path/filepath", lang: golang},
	{name: "io/fs", lang: golang},
	{name: "io/ioutil", lang: golang},
	{name: "syscall", lang: golang},
	{name: "archive/tar", lang: golang},
	{name: "archive/zip", lang: golang},
	{name: "net/http", lang: golang},
	{name: "test_os", lang: python},
	{name: "test_posix", lang: python},
	{name: "test_shutil", lang: python},
	{name: "test_tempfile", lang: python},
	{name: "test_pathlib", lang: python},
	{name: "test_glob", lang: python},
	{name: "test_stat", lang: python},
	{name: "test_posixpath", lang: python},
	{name: "test_fileio", lang: python},
	{name: "test_file", lang: python},
	{name: "test_io", lang: python},
	{name: "test_mmap", lang: python},
	{name: "test_fcntl", lang: python},
	{name: "test_zipfile", lang: python},
	{name: "test_tarfile", lang: python},
	{name: "test_subprocess", lang: python},
	{name: "test_import", lang: python},
	{name: "test_py_compile", lang: python},
	{name: "test_dbm", lang: python},
	{name: "test_mailbox", lang: python},
}

func init() {
	for _, engine := range []string{"trap", "ns"} {
		for _, s := range fileSuites {
			s.engine = engine
			suites = append(suites, s)
		}
	}
}

type language int

const (
	golang language = iota
	python
)

//go:embed runner.py
var runnerPy []byte

// prepare builds what the suite runs.
func (s *suite) prepare(ctx context.Context, r *runner) error {
	if s.lang == python {
		return os.WriteFile(filepath.Join(r.dir, "runner.py"), runnerPy, 0o644)
	}
	root, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	s.dir = filepath.Join(root, "src", s.name)
	_, err = output(ctx, "go", "test", "-c", "-o", s.program(r), s.name)
	return err
}

func (s *suite) program(r *runner) string {
	return filepath.Join(r.dir, strings.ReplaceAll(s.name, "/", "_")+".test")
}

// top returns the name of the test that can be chosen to run name.
func (s *suite) top(name string) string {
	if s.lang == golang {
		name, _, _ = strings.Cut(name, "/")
	}
	return name
}

// command returns the command line for the tests in only (all if it is empty)
// without those in done.
func (s *suite) command(r *runner, only []string, done map[string]bool) ([]string, error) {
	var skip []string
	for name := range done {
		skip = append(skip, name)
	}
	sort.Strings(skip)
	if s.lang == golang {
		argv := []string{s.program(r), "-test.v=test2json", fmt.Sprintf("-test.short=%t", !r.long), "-test.timeout=" + r.deadline.String()}
		if len(only) > 0 {
			argv = append(argv, "-test.run="+oneOf(only))
		}
		if len(skip) > 0 {
			argv = append(argv, "-test.skip="+oneOf(skip))
		}
		return argv, nil
	}
	file := filepath.Join(r.dir, fmt.Sprintf("plan-%d", r.runs))
	plan := strings.Join(only, "\n") + "\n--\n" + strings.Join(skip, "\n")
	if err := os.WriteFile(file, []byte(plan), 0o644); err != nil {
		return nil, err
	}
	return []string{r.python, filepath.Join(r.dir, "runner.py"), s.name, file, fmt.Sprint(int(r.stall.Seconds() * 0.8))}, nil
}

// oneOf is the regular expression of these names.
func oneOf(names []string) string {
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, regexp.QuoteMeta(n))
	}
	return "^(?:" + strings.Join(quoted, "|") + ")$"
}
