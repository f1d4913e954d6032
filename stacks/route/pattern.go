// SPDX-License-Identifier: Apache-2.0

// Patterns and rules as people write them: PATTERN=NAME, and lists in files.

package route

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// A Kind is what a pattern is about.
type Kind int

// The kinds, in the order in which they win.
const (
	Exe    Kind = iota // the executable of the task
	UID                // the user of the task
	Domain             // a name that was asked for
	Prefix             // the address
	Port               // the port of the address
)

// A Pattern is what stands before the last `=` of a rule.
type Pattern struct {
	Kind   Kind
	Text   string // of Exe: the glob; of Domain: the glob in lower case
	UID    uint32
	Prefix netip.Prefix
	Port   uint16
}

// A Rule sends what a pattern is about to a network.
type Rule struct {
	Pattern Pattern
	Network string
	From    string // where it was written, for messages: "--route X" or "FILE:LINE"
}

var (
	nameRE  = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	labelRE = regexp.MustCompile(`^[a-z0-9_*-]+$`)
)

// Parse reads the value of --route: PATTERN=NAME, @FILE with such a rule in each line,
// or @FILE=NAME with a pattern in each line. Empty lines, and what follows a `#` at the
// beginning of a word, are skipped.
func Parse(arg string) ([]Rule, error) {
	file, isFile := strings.CutPrefix(arg, "@")
	if !isFile {
		r, err := parseRule(arg)
		if err != nil {
			return nil, fmt.Errorf("--route %s: %w", arg, err)
		}
		r.From = "--route " + arg
		return []Rule{r}, nil
	}
	network := ""
	if i := strings.LastIndexByte(file, '='); i >= 0 && nameRE.MatchString(file[i+1:]) {
		file, network = file[:i], file[i+1:]
	}
	if file == "" {
		return nil, fmt.Errorf("--route %s: there is no file behind the @", arg)
	}
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.IsDir() {
			err = syscall.EISDIR
		}
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("--route %s: %s: %w", arg, file, err)
	}
	return read(f, file, network)
}

// read reads a list of rules, or of patterns if a network is given.
func read(r io.Reader, name, network string) ([]Rule, error) {
	var rules []Rule
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if i := strings.Index(line, "#"); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		rule, err := Rule{Network: network}, error(nil)
		if network != "" {
			rule.Pattern, err = ParsePattern(line)
		} else {
			rule, err = parseRule(line)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		rule.From = fmt.Sprintf("%s:%d", name, n)
		rules = append(rules, rule)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rules, nil
}

func parseRule(s string) (Rule, error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return Rule{}, errors.New("write it as PATTERN=NAME, where NAME is that of a network")
	}
	if !nameRE.MatchString(s[i+1:]) {
		return Rule{}, fmt.Errorf("%q is no name of a network", s[i+1:])
	}
	p, err := ParsePattern(s[:i])
	return Rule{Pattern: p, Network: s[i+1:]}, err
}

// ParsePattern reads a prefix or an address, a domain glob, :PORT, exe=GLOB or uid=USER.
func ParsePattern(s string) (Pattern, error) {
	if glob, ok := strings.CutPrefix(s, "exe="); ok {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return Pattern{}, fmt.Errorf("%q is no glob of a file's name", glob)
		}
		return Pattern{Kind: Exe, Text: glob}, nil
	}
	if who, ok := strings.CutPrefix(s, "uid="); ok {
		return parseUID(who)
	}
	if port, ok := strings.CutPrefix(s, ":"); ok && !strings.Contains(port, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Pattern{}, fmt.Errorf("%q is no port", port)
		}
		return Pattern{Kind: Port, Port: uint16(n)}, nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return Pattern{}, fmt.Errorf("%q is no prefix", s)
		case p != p.Masked():
			return Pattern{}, fmt.Errorf("%s has bits beyond its length (did you mean %s?)", s, p.Masked())
		case p.Addr().Is4In6():
			return Pattern{}, fmt.Errorf("%s: write it as an IPv4 prefix", s)
		}
		return Pattern{Kind: Prefix, Prefix: p}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.WithZone("").Unmap()
		return Pattern{Kind: Prefix, Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	return parseDomain(s)
}

func parseUID(who string) (Pattern, error) {
	if n, err := strconv.ParseUint(who, 10, 32); err == nil {
		return Pattern{Kind: UID, UID: uint32(n)}, nil
	}
	u, err := user.Lookup(who)
	if err != nil {
		return Pattern{}, fmt.Errorf("there is no user %q", who)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Pattern{}, fmt.Errorf("user %q has no number", who)
	}
	return Pattern{Kind: UID, UID: uint32(n)}, nil
}

func parseDomain(s string) (Pattern, error) {
	d := strings.ToLower(strings.TrimSuffix(s, "."))
	last := d[strings.LastIndexByte(d, '.')+1:]
	for label := range strings.SplitSeq(d, ".") {
		if len(label) > 63 || !labelRE.MatchString(label) || strings.Trim(last, "0123456789") == "" {
			return Pattern{}, fmt.Errorf("%q is neither a prefix, nor a domain, nor :PORT, exe=GLOB or uid=USER%s", s, punycode(s))
		}
	}
	return Pattern{Kind: Domain, Text: d}, nil
}

// punycode says how names of other alphabets are written.
func punycode(s string) string {
	for _, c := range s {
		if c > 0x7f {
			return " (names of other alphabets are written as xn--...)"
		}
	}
	return ""
}

// String returns the pattern as it can be written.
func (p Pattern) String() string {
	switch p.Kind {
	case Exe:
		return "exe=" + p.Text
	case UID:
		return "uid=" + strconv.FormatUint(uint64(p.UID), 10)
	case Port:
		return ":" + strconv.Itoa(int(p.Port))
	case Prefix:
		return p.Prefix.String()
	}
	return p.Text
}
