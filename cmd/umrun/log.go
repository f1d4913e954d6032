// SPDX-License-Identifier: Apache-2.0

// Where log records go: warnings to stderr as messages, everything to --log.

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"umrun/view"
)

// openLog makes the logger of a run. close flushes and closes the file.
func openLog(f *flags, stderr io.Writer) (log *slog.Logger, close func(), err error) {
	least := slog.LevelWarn
	if f.quiet {
		least = slog.LevelError
	}
	hs := fanout{&messages{w: stderr, least: least}}
	close = func() {}
	if f.logFile != "" {
		file, err := os.OpenFile(f.logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf("--log: %v", err), Err: err}
		}
		level := slog.LevelInfo
		if f.verbose {
			level = slog.LevelDebug
		}
		hs = append(hs, slog.NewTextHandler(&logFile{file: file, stderr: stderr}, &slog.HandlerOptions{Level: level}))
		close = func() { file.Close() }
	}
	return slog.New(hs), close, nil
}

// A logFile is the file of --log. It says once that it cannot be written to.
type logFile struct {
	file   *os.File
	stderr io.Writer
	failed sync.Once
}

// Write implements [io.Writer].
func (l *logFile) Write(p []byte) (int, error) {
	n, err := l.file.Write(p)
	if err != nil {
		l.failed.Do(func() { fmt.Fprintf(l.stderr, "umrun: --log: %v; records are missing in it\n", err) })
	}
	return n, err
}

// messages writes records as umrun's own lines: `umrun: warning: TEXT (k=v ...)`.
// Each record is one write.
type messages struct {
	w     io.Writer
	least slog.Level
	attrs string // collected by WithAttrs
	group string
}

func (m *messages) Enabled(_ context.Context, l slog.Level) bool { return l >= m.least }

func (m *messages) Handle(_ context.Context, r slog.Record) error {
	kind := ""
	if r.Level < slog.LevelError {
		kind = "warning: "
	}
	attrs := m.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += m.format(a)
		return true
	})
	if attrs != "" {
		attrs = " (" + attrs[1:] + ")"
	}
	_, err := fmt.Fprintf(m.w, "umrun: %s%s%s\n", kind, r.Message, attrs)
	return err
}

func (m *messages) WithAttrs(as []slog.Attr) slog.Handler {
	c := *m
	for _, a := range as {
		c.attrs += m.format(a)
	}
	return &c
}

func (m *messages) WithGroup(name string) slog.Handler {
	c := *m
	c.group += name + "."
	return &c
}

func (m *messages) format(a slog.Attr) string {
	v := a.Value.Resolve().String() // Resolve lets LogValuers hide secrets
	if strings.ContainsAny(v, " \"\n") {
		v = fmt.Sprintf("%q", v)
	}
	return " " + m.group + a.Key + "=" + v
}

// fanout hands each record to every handler that wants it.
type fanout []slog.Handler

func (f fanout) Enabled(ctx context.Context, l slog.Level) bool {
	for _, h := range f {
		if h.Enabled(ctx, l) {
			return true
		}
	}
	return false
}

func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	var first error
	for _, h := range f {
		if h.Enabled(ctx, r.Level) {
			if err := h.Handle(ctx, r.Clone()); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

func (f fanout) WithAttrs(as []slog.Attr) slog.Handler {
	c := make(fanout, len(f))
	for i, h := range f {
		c[i] = h.WithAttrs(as)
	}
	return c
}

func (f fanout) WithGroup(name string) slog.Handler {
	c := make(fanout, len(f))
	for i, h := range f {
		c[i] = h.WithGroup(name)
	}
	return c
}
