// SPDX-License-Identifier: Apache-2.0

// URLs of VDE networks: the grammar of vdeplug 4's "VNL".

package vde

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A URL names a VDE network as vdeplug 4 does:
//
//	SCHEME://ARG                       udp://2000->host:3000   cmd://ssh host vde_plug
//	SCHEME://ARG[OPT/OPT=VALUE...]     vde:///run/sw[port=3]   switch:///run/mine[mode=0660]
//	SCHEME://ARG/OPT/OPT=VALUE...      vxvde://239.1.2.3/ttl=4/vni=7
//	SCHEME://ARG[OPT...]{URL}          vlan://5{vde:///run/sw}
//	PATH                               vde://PATH
//
// In ARG and options quotes, backslashes and %xx protect characters as in vdeplug;
// the ARG of udp, cmd, tap and ptp is taken as it stands.
type URL struct {
	Scheme string
	Arg    string
	Opts   []Opt
	Nested *URL // nil: there are no braces
}

// An Opt is an option of a URL: NAME, NAME=VALUE, or, with Name empty, a word that
// stands for the scheme's first option (the port of vde://DIR[3]).
type Opt struct {
	Name, Value string
	HasValue    bool // there was a `=`
}

// maxDepth is how deep URLs nest: Q-in-Q takes two.
const maxDepth = 4

// A form says what a scheme's URL consists of behind the `://`.
type form int

const (
	formRaw     form = iota // all is ARG
	formOptions             // ARG/OPT/OPT
	formPath                // ARG[OPT/OPT]
	formNest                // ARG[OPT/OPT]{URL} or ARG/OPT/OPT{URL}
)

// ErrURL is in every error of [Parse].
var ErrURL = errors.New("not a VDE URL")

// Parse reads a URL. It looks at no file. Errors name what is wrong and, for what
// vdeplug has and umrun does not, what to use instead.
func Parse(s string) (*URL, error) {
	u, err := parse(s, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrURL, s, err)
	}
	return u, nil
}

func parse(s string, depth int) (*URL, error) {
	if depth == 0 {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	if strings.ContainsRune(s, 0) {
		return nil, errors.New("there is a zero byte in it")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || strings.ContainsAny(scheme, "/[{") {
		scheme, rest = "vde", s // a path, which may have a :// further on
	}
	def, ok := schemes[scheme]
	if !ok {
		if instead, known := refused[scheme]; known {
			return nil, fmt.Errorf("%s:// is not carried here: %s", scheme, instead)
		}
		return nil, fmt.Errorf("unknown scheme %q", scheme)
	}
	u := &URL{Scheme: scheme}
	var opts, nested string
	var hasNested bool
	switch def.form {
	case formRaw:
		u.Arg = rest
	case formOptions:
		u.Arg, opts = cutToken(rest, "/")
	case formPath, formNest:
		var bracket bool
		head := rest
		if def.form == formNest {
			head, nested = cutToken(rest, "{")
			if hasNested = len(head) < len(rest); hasNested {
				end := strings.LastIndexByte(nested, '}')
				if end < 0 || end != len(nested)-1 {
					return nil, errors.New("the brace { is not closed at the end")
				}
				nested = nested[:end]
			}
		}
		if u.Arg, opts = cutToken(head, "["); len(u.Arg) < len(head) {
			bracket = true
			end := strings.LastIndexByte(opts, ']')
			if end < 0 || end != len(opts)-1 {
				return nil, errors.New("the bracket [ is not closed at the end")
			}
			opts = opts[:end]
		}
		if !bracket && def.form == formNest {
			u.Arg, opts = cutToken(head, "/")
		}
	}
	if def.form != formRaw {
		u.Arg = unquote(u.Arg)
	}
	for opts != "" {
		var word string
		word, opts = cutToken(opts, "/")
		if word = unquote(word); word == "" {
			continue
		}
		var o Opt
		if o.Name, o.Value, o.HasValue = strings.Cut(word, "="); o.Name == "" {
			return nil, fmt.Errorf("there is no option before %q", word)
		}
		if !o.HasValue && def.word && !def.has(o.Name) {
			o.Name, o.Value = "", o.Name
		}
		if o.Name != "" && !def.has(o.Name) {
			return nil, fmt.Errorf("unknown option %q; %s:// has %s", o.Name, scheme, def.names())
		}
		u.Opts = append(u.Opts, o)
	}
	switch {
	case hasNested:
		var err error
		if u.Nested, err = parse(nested, depth-1); err != nil {
			return nil, err
		}
	case def.form == formNest:
		return nil, fmt.Errorf("%s:// needs another URL in braces, as in %s", scheme, def.example)
	}
	if def.check != nil {
		if err := def.check(u); err != nil {
			return nil, fmt.Errorf("%w; write it as %s", err, def.example)
		}
	}
	return u, nil
}

// cutToken cuts s at the first of delims that no quote and no backslash protects.
// Without one, before is all of s.
func cutToken(s, delims string) (before, after string) {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '\\':
			i++
		case strings.IndexByte(delims, c) >= 0:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// unquote takes quotes and backslashes away and resolves %xx outside of quotes.
func unquote(s string) string {
	if !strings.ContainsAny(s, `'"\%`) {
		return s
	}
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '\'' || c == '"':
			quote = c
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case c == '%' && i+2 < len(s):
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil && v != 0 {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// quote protects what would mean something in a URL.
func quote(s string) string {
	if !strings.ContainsAny(s, `'"\%/[]{}=`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(`'"\%[]{}`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// String returns a URL that parses to the same.
func (u *URL) String() string {
	var b strings.Builder
	b.WriteString(u.Scheme + "://")
	def := schemes[u.Scheme]
	if def.form == formRaw {
		return b.String() + u.Arg
	}
	arg := quote(u.Arg)
	if def.form != formPath {
		arg = strings.ReplaceAll(arg, "/", `\/`)
	}
	b.WriteString(arg)
	for i, o := range u.Opts {
		switch {
		case i > 0 || def.form == formOptions:
			b.WriteByte('/')
		default:
			b.WriteByte('[')
		}
		esc := func(s string) string { return strings.ReplaceAll(quote(s), "/", `\/`) }
		b.WriteString(esc(o.Name))
		if o.HasValue {
			b.WriteByte('=')
		}
		b.WriteString(esc(o.Value))
	}
	if len(u.Opts) > 0 && def.form != formOptions {
		b.WriteByte(']')
	}
	if u.Nested != nil {
		b.WriteString("{" + u.Nested.String() + "}")
	}
	return b.String()
}

// Plugs returns the URLs within u, u first: what a network consists of.
func (u *URL) Plugs() (all []*URL) {
	for ; u != nil; u = u.Nested {
		all = append(all, u)
	}
	return all
}

// opt returns what an option was set to last; ok is false if it was not set. The
// unnamed word is that of name "".
func (u *URL) opt(names ...string) (v string, ok bool) {
	for _, o := range u.Opts {
		for _, n := range names {
			if o.Name == n {
				v, ok = o.Value, true
			}
		}
	}
	return v, ok
}

// number returns an option as a number from lo to hi, def if it is not set.
func (u *URL) number(name string, def, lo, hi int) (int, error) {
	v, ok := u.opt(name)
	if !ok {
		return def, nil
	}
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil || n < int64(lo) || n > int64(hi) {
		return 0, fmt.Errorf("%s=%s: it is a number from %d to %d", name, v, lo, hi)
	}
	return int(n), nil
}

// mode returns an option as octal permissions.
func (u *URL) mode(name string) (mode uint32, ok bool, err error) {
	v, ok := u.opt(name)
	if !ok {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(v, 8, 12)
	if err != nil {
		return 0, false, fmt.Errorf("%s=%s: it is an octal mode, as 0660", name, v)
	}
	return uint32(n), true, nil
}
