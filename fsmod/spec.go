// SPDX-License-Identifier: Apache-2.0

// The words of --mount: how a Mount is written.

package fsmod

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A form is how the mounts of a kind are written.
type form struct {
	fields int    // between colons, behind the kind
	option string // a word that may follow as one more field
	root   bool   // may cover "/" itself
	usage  string
}

var forms = map[Kind]form{
	Bind:  {2, "ro", true, "bind:SRC:DST[:ro]"},
	Tmpfs: {1, "", false, "tmpfs:DST"},
	Cow:   {2, "", true, "cow:[UPPER]:DST"},
	Merge: {2, "", true, "merge:SRC:DST"},
	Hide:  {1, "", false, "hide:PATH"},
	File:  {2, "", false, "file:SRC:DST"},
	Image: {2, "rw", true, "image:FILE:DST[:rw]"},
	Fuse:  {2, "", true, "fuse:COMMAND:DST"},
	Dev:   {2, "", false, "dev:KIND:PATH[,size=N]"},
}

// The devices of the kind Dev.
const (
	Null    = "null"    // as null(4)
	Zero    = "zero"    // as zero(4)
	Ramdisk = "ramdisk" // a block device in memory
	TUN     = "tun"     // /dev/net/tun, whose interfaces are the view's
)

var devices = []string{Null, Zero, Ramdisk, TUN}

// KindNames returns the words that can begin a --mount, sorted.
func KindNames() []string {
	var names []string
	for k := range forms {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

// A SpecError says what is wrong with a --mount, as it was written.
type SpecError struct {
	Spec string
	Why  string
	Try  []string // how it might be written; may be empty

	// Got is a word that is not known, and Known are those that could stand there;
	// both may be empty.
	Got   string
	Known []string
}

// Error returns the spec and what is wrong with it.
func (e *SpecError) Error() string { return "-m " + e.Spec + ": " + e.Why }

// ParseMount reads a --mount: KIND, then fields behind colons. `\:` is a colon
// inside a field. A relative path is taken from cwd, which must be absolute; nothing
// else is expanded. The files are not looked at. Errors are of type [*SpecError].
func ParseMount(spec, cwd string) (Mount, error) {
	m, err := parseMount(spec, cwd)
	if err != nil {
		err.Spec = spec
		return Mount{}, err
	}
	return m, nil
}

func parseMount(spec, cwd string) (Mount, *SpecError) {
	kind, rest, colon := strings.Cut(spec, ":")
	k := Kind(kind)
	f, known := forms[k]
	switch {
	case !known && strings.Contains(kind, "/") || spec == "":
		return Mount{}, &SpecError{Why: "it begins with no kind", Try: []string{"-m " + forms[Bind].usage, "-m " + forms[Cow].usage}}
	case !known:
		return Mount{}, &SpecError{Why: fmt.Sprintf("unknown kind %q", kind), Got: kind, Known: KindNames()}
	case !colon:
		return Mount{}, f.bad("there is nothing behind the kind")
	}
	fields := splitColons(rest)
	if k == Fuse && len(fields) > 1 { // a command may well hold colons, and is taken as it is
		at := lastColon(rest)
		fields = []string{rest[:at], fields[len(fields)-1]}
	}
	m := Mount{Kind: k, ReadOnly: k == Image || k == Merge}
	if len(fields) == f.fields+1 && f.option != "" {
		switch word := fields[f.fields]; word {
		case "ro":
			m.ReadOnly = true
		case "rw":
			m.ReadOnly = false
		default:
			return Mount{}, f.bad("%q is not %q", word, f.option)
		}
		fields = fields[:f.fields]
	}
	switch {
	case k == Cow && len(fields) == 1 && fields[0] != "":
		return Mount{}, &SpecError{Why: "it does not say where what is written goes", Try: []string{
			fmt.Sprintf("-m cow::%s (thrown away at the end)", fields[0]), fmt.Sprintf("-m cow:UPPER:%s (kept in UPPER)", fields[0])}}
	case len(fields) < f.fields:
		return Mount{}, f.bad("a path is missing")
	case len(fields) > f.fields:
		return Mount{}, f.bad(`there is a colon too many; \: is one inside of a path`)
	}
	var err *SpecError
	target := fields[f.fields-1]
	if f.fields == 2 {
		m.Source = fields[0]
	}
	if k == Dev {
		if target, err = m.device(f, target); err != nil {
			return Mount{}, err
		}
	}
	if m.Target, err = f.path(target, cwd); err != nil {
		return Mount{}, err
	}
	if m.Target == "/" && !f.root {
		return Mount{}, f.bad("nothing would be left of /; this kind covers a path below it")
	}
	switch k {
	case Dev, Tmpfs, Hide:
		return m, nil
	case Fuse:
		if strings.TrimSpace(m.Source) == "" {
			return Mount{}, f.bad("there is no command in it")
		}
		return m, nil
	case Cow:
		if m.Source == "" { // what is written goes with the view
			return m, nil
		}
	}
	m.Source, err = f.path(m.Source, cwd)
	if err == nil && (k == Cow || k == Merge) && m.Source == m.Target {
		return Mount{}, f.bad("both paths are %s", m.Target)
	}
	return m, err
}

// bad is an error that shows how the kind is written.
func (f form) bad(format string, a ...any) *SpecError {
	return &SpecError{Why: fmt.Sprintf(format, a...), Try: []string{"-m " + f.usage}}
}

// path makes a path absolute and clean.
func (f form) path(p, cwd string) (string, *SpecError) {
	switch {
	case p == "":
		return "", f.bad("a path is empty")
	case strings.ContainsRune(p, 0):
		return "", f.bad("a path holds a NUL")
	case p == "~" || strings.HasPrefix(p, "~/"):
		// A shell expands it only in front of a word.
		return "", &SpecError{Why: "~ is not expanded here", Try: []string{`"$HOME` + p[1:] + `"`, "./" + p}}
	case !filepath.IsAbs(p):
		p = filepath.Join(cwd, p)
	}
	return filepath.Clean(p), nil
}

// device reads what is special to a device, and returns its path.
func (m *Mount) device(f form, target string) (string, *SpecError) {
	if !slices.Contains(devices, m.Source) {
		return "", &SpecError{Why: fmt.Sprintf("unknown device %q", m.Source), Got: m.Source, Known: devices}
	}
	path, key, sized := strings.Cut(target, ",")
	name, value, _ := strings.Cut(key, "=")
	switch {
	case sized && name != "size":
		return "", &SpecError{Why: fmt.Sprintf("unknown key %q", name), Got: name, Known: []string{"size"}, Try: []string{"-m " + f.usage}}
	case sized && m.Source != Ramdisk:
		return "", f.bad("a %s has no size", m.Source)
	case !sized && m.Source == Ramdisk:
		return "", &SpecError{Why: "a ramdisk needs a size", Try: []string{"-m dev:ramdisk:" + path + ",size=64M"}}
	case !sized:
		return path, nil
	}
	n, ok := parseSize(value)
	if !ok {
		return "", &SpecError{Why: fmt.Sprintf("%q is no size", value), Try: []string{"size=64M", "size=1G"}}
	}
	m.Size = n
	return path, nil
}

// parseSize reads bytes, with K, M, G or T for powers of 1024.
func parseSize(s string) (int64, bool) {
	shift := 0
	if i := strings.IndexAny(s, "kKmMgGtT"); i >= 0 && i == len(s)-1 {
		shift = 10 * (1 + strings.IndexByte("kmgt", s[i]|0x20))
		s = s[:i]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n << shift, err == nil && n > 0 && n <= (1<<62)>>shift
}

// splitColons splits at colons that do not stand behind a backslash, and resolves
// `\:`. A backslash before anything else is itself.
func splitColons(s string) []string {
	var fields []string
	var w strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			i++
			w.WriteByte(':')
		case s[i] == ':':
			fields = append(fields, w.String())
			w.Reset()
		default:
			w.WriteByte(s[i])
		}
	}
	return append(fields, w.String())
}

// lastColon returns where the last colon is that separates fields.
func lastColon(s string) int {
	i := len(s)
	for {
		i = strings.LastIndexByte(s[:i], ':')
		if i < 1 || s[i-1] != '\\' {
			return i
		}
	}
}

// String writes m as it is read.
func (m Mount) String() string {
	esc := func(path string) string {
		path = strings.ReplaceAll(path, ":", `\:`)
		if strings.HasSuffix(path, `\`) {
			path += "/" // or the colon that follows would be the path's
		}
		return path
	}
	s := string(m.Kind) + ":"
	switch f := forms[m.Kind]; {
	case m.Kind == Fuse:
		s += m.Source + ":"
	case f.fields == 2:
		s += esc(m.Source) + ":"
	}
	s += esc(m.Target)
	switch {
	case m.Kind == Bind && m.ReadOnly:
		s += ":ro"
	case m.Kind == Image && !m.ReadOnly:
		s += ":rw"
	case m.Size > 0:
		s += fmt.Sprintf(",size=%d", m.Size)
	}
	return s
}

// Order returns the mounts in the order in which they are made: as given, but what
// covers a directory before what covers something in it, whatever symbolic links of the
// host the targets are named by.
func Order(mounts []Mount) []Mount {
	depth := func(m Mount) int {
		return strings.Count(strings.TrimSuffix(RealPath(nil, m.Target), "/"), "/")
	}
	ordered := slices.Clone(mounts)
	slices.SortStableFunc(ordered, func(a, b Mount) int { return cmp.Compare(depth(a), depth(b)) })
	return ordered
}
