// SPDX-License-Identifier: Apache-2.0

// Tests of what reaches stderr and the log file.

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// secret hides itself, as keys do.
type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("(hidden)") }

func TestMessages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	tests := []struct {
		name string
		f    flags
		want string // on stderr
		log  []string
		not  []string
	}{
		{"default", flags{}, "umrun: warning: odd option (call=setsockopt n=2)\numrun: it broke (where=\"a b\")\n", nil, nil},
		{"quiet", flags{quiet: true}, "umrun: it broke (where=\"a b\")\n", nil, nil},
		{"file", flags{logFile: file, quiet: true}, "umrun: it broke (where=\"a b\")\n",
			[]string{"level=INFO msg=opened", "stack.key=(hidden)", "level=WARN", "level=ERROR"}, []string{"geheim", "level=DEBUG"}},
		{"verbose file", flags{logFile: file, verbose: true}, "umrun: warning: odd option (call=setsockopt n=2)\numrun: it broke (where=\"a b\")\n",
			[]string{"level=DEBUG msg=called"}, []string{"geheim"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			os.Remove(file)
			var b strings.Builder
			log, closeLog, err := openLog(&tt.f, &b)
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("called", "fd", 3)
			log.WithGroup("stack").Info("opened", "key", secret("geheim"))
			log.With("call", "setsockopt").Warn("odd option", "n", 2)
			log.Error("it broke", "where", "a b")
			closeLog()
			if d := cmp.Diff(tt.want, b.String()); d != "" {
				t.Errorf("stderr, -want +got:\n%s", d)
			}
			got, _ := os.ReadFile(file) // there is none for some
			for _, w := range tt.log {
				if !strings.Contains(string(got), w) {
					t.Errorf("no %q in the log:\n%s", w, got)
				}
			}
			for _, w := range tt.not {
				if strings.Contains(string(got), w) {
					t.Errorf("%q in the log:\n%s", w, got)
				}
			}
		})
	}
}
