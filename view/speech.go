// SPDX-License-Identifier: Apache-2.0

// What a command says that umrun runs beside the program.

package view

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
)

// speechLines is how many lines of a command's output an error tells.
const speechLines = 8

// A speech logs what a command says, and keeps its last lines.
type speech struct {
	heard chan struct{} // closed when it can say no more

	mu   sync.Mutex
	said []string // guarded by mu
}

// hear begins to listen. The command is to get in, as its stdout and stderr, which the caller
// closes then; the speech ends when everybody has.
func hear(name string, log *slog.Logger) (s *speech, in *os.File, err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	s = &speech{heard: make(chan struct{})}
	go s.listen(out, name, log)
	return s, in, nil
}

func (s *speech) listen(out io.ReadCloser, name string, log *slog.Logger) {
	defer close(s.heard)
	defer out.Close()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" {
			continue
		}
		log.Info(name + ": " + line)
		s.mu.Lock()
		if s.said = append(s.said, line); len(s.said) > speechLines {
			s.said = slices.Delete(s.said, 0, 1)
		}
		s.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long
}

// last tells the last line, behind what went wrong.
func (s *speech) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.said) == 0 {
		return ""
	}
	return "; it said last: " + s.said[len(s.said)-1]
}

// why tells the last lines.
func (s *speech) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.said) == 0 {
		return "It has said nothing."
	}
	return "It said last:\n    " + strings.Join(s.said, "\n    ")
}
