// SPDX-License-Identifier: Apache-2.0

// The matrix: what people run, over every pair of stack and link.

package viewtest_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// quickClients are those of the matrix that make test runs; make matrix runs all.
var quickClients = []string{"curl-v4", "curl-v6", "curl-name", "curl-tls", "curl-refused", "wget-big", "ssh-stdin", "python-socket", "go-many", "c-musl-names", "ping-v4", "ping-v6", "dig"}

// TestMatrix runs clients over every uplink: the quick ones or, with
// LAB_MATRIX=FILE, all of them and a browser, and prints the matrix into FILE.
func TestMatrix(t *testing.T) {
	file := os.Getenv("LAB_MATRIX")
	var m matrix
	for _, u := range uplinks() {
		t.Run(strings.ReplaceAll(u.String(), ", ", "-"), func(t *testing.T) {
			w := viewtest.New(t)
			p := w.Peers[0]
			next := u.open(t, p)
			id := identity(t, w)
			for _, c := range clients {
				if file == "" && (!slices.Contains(quickClients, c.name) || len(u.few) > 0 && !slices.Contains(u.few, c.name)) {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					x := &try{TB: t, fails: u.gap(c.name)}
					defer func() { m.add(u, c.name, x) }()
					c.run(x, p, next(t), id)
					if x.fails != "" && x.failure == "" {
						t.Errorf("is listed as impossible, and works: %s", x.fails)
					}
				})
			}
			if file == "" {
				return
			}
			t.Run("chromium", func(t *testing.T) {
				x := &try{TB: t, fails: u.gap("chromium")}
				defer func() { m.add(u, "chromium", x) }()
				by := next(t)
				b := launch(x, by.command(x, driver(x, w)...))
				b.must(x, "open http://www.lab.test/")
				if got := b.must(x, "open http://v4.lab.test/addr"); got != by.ip4.String() {
					x.Errorf("the peer sees %q, want %v", got, by.ip4)
				}
				b.leave(x)
			})
		})
	}
	t.Logf("\n%s", m.text())
	if file != "" {
		if err := os.WriteFile(file, []byte(m.page()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// A matrix counts what passed, by kind of client and uplink.
type matrix struct {
	rows, columns []string
	cells         map[[2]string]*cellCount
	reasons       []string // in the order of their numbers
}

type cellCount struct {
	passed, failed int
	gaps           []int // numbers of reasons, from 1
}

func (m *matrix) add(u uplink, client string, x *try) {
	kind, _, _ := strings.Cut(client, "-")
	if !slices.Contains(m.rows, kind) {
		m.rows = append(m.rows, kind)
	}
	if !slices.Contains(m.columns, u.String()) {
		m.columns = append(m.columns, u.String())
	}
	if m.cells == nil {
		m.cells = map[[2]string]*cellCount{}
	}
	at := [2]string{kind, u.String()}
	c := m.cells[at]
	if c == nil {
		c = new(cellCount)
		m.cells[at] = c
	}
	switch {
	case x.failure == "" && !x.Skipped():
		c.passed++
	case x.fails != "" && x.failure != "":
		if !slices.Contains(m.reasons, x.fails) {
			m.reasons = append(m.reasons, x.fails)
		}
		c.gaps = append(c.gaps, slices.Index(m.reasons, x.fails)+1)
	default:
		c.failed++
	}
}

// text is the table, with the reasons of the gaps below it.
func (m *matrix) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(m.columns, " | "), strings.Repeat("---|", len(m.columns)))
	for _, kind := range m.rows {
		fmt.Fprintf(&b, "| %s |", kind)
		for _, u := range m.columns {
			c := m.cells[[2]string{kind, u}]
			if c == nil {
				b.WriteString(" - |")
				continue
			}
			fmt.Fprintf(&b, " %d of %d", c.passed, c.passed+c.failed+len(c.gaps))
			for _, g := range slices.Compact(slices.Sorted(slices.Values(c.gaps))) {
				fmt.Fprintf(&b, " [%d]", g)
			}
			b.WriteString(" |")
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	for i, why := range m.reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, why)
	}
	return b.String()
}

// page is docs/matrix.md.
func (m *matrix) page() string {
	return fmt.Sprintf(`# Stacks and links

Written by `+"`make matrix`"+` on %s, which runs clients that people use over every pair of stack and link that makes sense: each
client in a view of its own, as an ordinary user, against the same servers; what they are and what they must print stands in
view/viewtest/integration_clients_test.go, how each link gets to the servers in uplinks_test.go. A number in brackets is
a reason why some cannot work there; that they do not is checked too.

%s`, time.Now().Format(time.DateOnly), m.text())
}
