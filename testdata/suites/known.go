// SPDX-License-Identifier: Apache-2.0

// The list of the tests that are known to differ.

package main

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// A known is one line of the list.
type known struct {
	pattern string // SUITE:TEST
	reason  string
}

func (k *known) suite() string {
	s, _, _ := strings.Cut(k.pattern, ":")
	return s
}

// sometimes reports whether the test may pass too.
func (k *known) sometimes() bool { return strings.HasPrefix(k.reason, "sometimes:") }

// find returns the line for a test, nil if there is none.
func find(list []*known, suite, test string) *known {
	for _, k := range list {
		if ok, _ := path.Match(k.pattern, suite+":"+test); ok {
			return k
		}
	}
	return nil
}

func readKnown(file string) ([]*known, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []*known
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, reason, ok := strings.Cut(line, " # ")
		k := &known{strings.TrimSpace(pattern), strings.TrimSpace(reason)}
		if _, err := path.Match(k.pattern, ""); !ok || err != nil || k.reason == "" || !strings.Contains(k.pattern, ":") {
			return nil, fmt.Errorf("%s:%d: not SUITE:TEST # REASON", file, i+1)
		}
		list = append(list, k)
	}
	return list, nil
}
