// SPDX-License-Identifier: Apache-2.0

// The page and the table for the walk, as text.

package sockapi

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const intro = `<!-- Code generated from netmod/sockapi by go generate. DO NOT EDIT. -->

# What a program gets of the socket API

Of each: **yes** is as on Linux for an ordinary user, **kept** can be set and reads
back but has nothing to do here, **part** works but for what is said, **no** fails
with the errno that is said. An option that is not in a table gives ENOPROTOOPT.

Every option is tried on every kind of socket that has it, step by step, on the
kernel's stack and under umrun: defaults, values, lengths and pointers, right and
wrong ones. [TestIntegrationTranscripts] A value that cannot be read gives EFAULT
before any other error. Why things differ is told in
[limits.md](limits.md).
`

// Page returns docs/compatibility.md.
func Page() string {
	var b strings.Builder
	b.WriteString(intro)
	tables := Tables()
	write := func(t Table) {
		fmt.Fprintf(&b, "\n## %s\n\n", t.Title)
		if t.About != "" {
			fmt.Fprintf(&b, "%s\n\n", t.About)
		}
		b.WriteString("| What | Support | |\n|---|---|---|\n")
		for _, e := range t.Entries {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", e.Name, support(e.Support, e.Errno), e.Gap)
		}
	}
	for _, t := range tables[:2] {
		write(t)
	}
	b.WriteString("\n## Options\n")
	for _, l := range Levels() {
		fmt.Fprintf(&b, "\n### %s, %s\n\n| Option | Number | | Support | |\n|---|---|---|---|---|\n", l.Name, l.Manual)
		for _, o := range l.Options {
			fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", o.Name, o.Number, o.Access, support(o.Support, o.Errno), o.Gap)
		}
	}
	for _, t := range tables[2:] {
		write(t)
	}
	return b.String()
}

func support(s Support, e unix.Errno) string {
	if s == Refused {
		return s.String() + ", " + ErrnoName(e)
	}
	return s.String()
}

// ErrnoName is the constant's name of an errno, EOPNOTSUPP of the two that are one.
func ErrnoName(e unix.Errno) string {
	if e == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(e)
}

func (a Access) String() string {
	switch a {
	case Get:
		return "get"
	case Set:
		return "set"
	}
	return "get, set"
}

// Walk returns testdata/targets/sockopt.inc: the rows in C, for the walk.
func Walk() string {
	var b strings.Builder
	b.WriteString("// SPDX-License-Identifier: Apache-2.0\n\n// Code generated from netmod/sockapi by go generate. DO NOT EDIT.\n\n")
	b.WriteString("// name, level, number, access, shape, kinds\n")
	for _, l := range Levels() {
		for _, o := range l.Options {
			fmt.Fprintf(&b, "{ %q, %d, %d, %d, %d, %#x },\n", l.Name+"."+o.Name, l.Number, o.Number, o.Access, o.Shape, l.Kinds(o))
		}
	}
	return b.String()
}

// Kinds returns what the walk tries an option of the level on.
func (l Level) Kinds(o Option) Kind {
	if o.On != 0 {
		return o.On
	}
	return l.On
}
