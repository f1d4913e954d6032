// SPDX-License-Identifier: Apache-2.0

// The reader of wg-quick files: sections, lines, and what must be in them.

package wg

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxLine is the longest line in bytes; AllowedIPs lists get long.
const maxLine = 1 << 20

// The keys of each section, spelled as wg(8) and wg-quick(8) spell them.
var (
	interfaceKeys = []string{"PrivateKey", "Address", "DNS", "MTU", "ListenPort", "FwMark"}
	peerKeys      = []string{"PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"}

	// ignoredKeys are for a kernel interface, a shell or a phone.
	ignoredKeys = []string{"Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig",
		"IncludedApplications", "ExcludedApplications"}

	// amneziaKeys change the protocol on the wire, so that ignoring them would
	// give a tunnel that never comes up.
	amneziaKeys = []string{"Jc", "Jmin", "Jmax", "S1", "S2", "S3", "S4", "H1", "H2", "H3", "H4",
		"I1", "I2", "I3", "I4", "I5", "J1", "J2", "J3", "Itime"}
)

// ReadConfig reads the wg-quick file at path, as [ParseConfig] does.
func ReadConfig(path string) (*Config, []Warning, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	return ParseConfig(path, f)
}

// ParseConfig reads a wg-quick file. Keys and sections are known in any case, as
// wg(8) does; "#" begins a comment. The name is for messages. If r can tell its
// mode (an [os.File]), a regular file that others may read gives a warning.
//
// A mistake in the file is a [*ConfigError]; other errors are those of r.
func ParseConfig(name string, r io.Reader) (*Config, []Warning, error) {
	p := &parser{cfg: &Config{Name: name}}
	p.checkMode(r)
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		p.line++
		line := s.Text()
		if p.line == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // editors on Windows
		}
		if err := p.parseLine(line); err != nil {
			return nil, nil, err
		}
	}
	if err := s.Err(); err == bufio.ErrTooLong {
		p.line++
		return nil, nil, p.errorf("line longer than %d bytes", maxLine)
	} else if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	if err := p.finish(); err != nil {
		return nil, nil, err
	}
	return p.cfg, p.warnings, nil
}

// A parser is the state of ParseConfig between lines.
type parser struct {
	cfg      *Config
	warnings []Warning

	line      int               // the current one, from 1
	section   string            // "", "Interface" or "Peer"
	sectionAt map[string]int    // line of the section's first header
	given     map[string]string // single-valued keys of this section and their values
	givenAt   map[string]int    // and where they stood
	peerAt    []int             // line of each peer's header
	keyAt     map[PublicKey]int // line of each peer's PublicKey
	mtuAt     int
	ignored   []string // keys of ignoredKeys that were met, in order, once each
	ignoredAt int      // line of the first
}

func (p *parser) errorf(format string, a ...any) error { return p.errorAt(p.line, format, a...) }

func (p *parser) errorAt(line int, format string, a ...any) error {
	return &ConfigError{File: p.cfg.Name, Line: line, Msg: fmt.Sprintf(format, a...)}
}

func (p *parser) warnAt(line int, format string, a ...any) {
	p.warnings = append(p.warnings, Warning{File: p.cfg.Name, Line: line, Msg: fmt.Sprintf(format, a...)})
}

// checkMode warns of a key that others can read. Pipes and the like are not
// files that stay.
func (p *parser) checkMode(r io.Reader) {
	f, ok := r.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return
	}
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		p.warnAt(0, "others may read the keys in it (mode %04o); try: chmod 600 %s", fi.Mode().Perm(), p.cfg.Name)
	}
}

// parseLine takes one line of the file, without its end.
func (p *parser) parseLine(line string) error {
	// wg(8) ends a line at "#" wherever it stands; none of the values that matter
	// can hold one.
	line, _, _ = strings.Cut(line, "#")
	line = strings.TrimSpace(line)
	if line == "" {
		return nil
	}
	if line[0] == '[' {
		return p.parseSection(line)
	}
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	switch {
	case !ok && line[0] == ';':
		return p.errorf(`comments begin with "#"`)
	case !ok || key == "":
		return p.errorf(`neither a [section] nor "key = value"`) // may hold a key: not shown
	case p.section == "":
		return p.errorf("%s stands before the first section, which is [Interface]", quoteKey(key))
	}
	return p.parseKeyLine(key, value)
}

// parseSection takes a [section] header. What may stand there once only begins
// anew with it.
func (p *parser) parseSection(line string) error {
	p.given, p.givenAt = make(map[string]string), make(map[string]int)
	if p.sectionAt == nil {
		p.sectionAt, p.keyAt = make(map[string]int), make(map[PublicKey]int)
	}
	sections := []string{"Interface", "Peer"}
	name, ok := strings.CutSuffix(line[1:], "]")
	i := indexFold(sections, strings.TrimSpace(name))
	switch {
	case !ok:
		return p.errorf(`no "]" in this section header`)
	case i < 0:
		return p.errorf("unknown section [%s]%s", strings.Trim(quoteKey(name), `"`), suggest(name, sections))
	}
	p.section = sections[i]
	if p.section == "Peer" {
		p.cfg.Peers = append(p.cfg.Peers, Peer{})
		p.peerAt = append(p.peerAt, p.line)
	} else if at := p.sectionAt[p.section]; at != 0 {
		return p.errorf("second [Interface] section, the first is in line %d", at)
	}
	p.sectionAt[p.section] = p.line
	return nil
}

// parseKeyLine finds the spelling of key and lets its section take the value.
func (p *parser) parseKeyLine(key, value string) error {
	mine, other, otherSection := interfaceKeys, peerKeys, "Peer"
	if p.section == "Peer" {
		mine, other, otherSection = peerKeys, interfaceKeys, "Interface"
	}
	i := indexFold(mine, key)
	if i < 0 {
		switch {
		case indexFold(amneziaKeys, key) >= 0:
			return p.errorf("%s is a key of AmneziaWG: obfuscated WireGuard is not supported", key)
		case p.section == "Interface" && indexFold(ignoredKeys, key) >= 0:
			p.ignore(ignoredKeys[indexFold(ignoredKeys, key)])
			return nil
		case indexFold(other, key) >= 0:
			return p.errorf("%s belongs in [%s], this is [%s]", other[indexFold(other, key)], otherSection, p.section)
		}
		// Hooks are worth a suggestion too: a misspelled one is ignored as
		// well, but nobody should have to guess that.
		known := slices.Clone(mine)
		if p.section == "Interface" {
			known = append(known, ignoredKeys...)
		}
		return p.errorf("unknown key %s%s", quoteKey(key), suggest(key, known))
	}
	key = mine[i]
	switch key {
	case "Address", "DNS", "AllowedIPs": // lists, which add up and may be empty
	default:
		if value == "" {
			return p.errorf("%s has no value", key)
		}
		// wg(8) takes the last of several values. That is rarely meant, and two
		// peers run into one by a lost header would otherwise lose one silently.
		if at, ok := p.givenAt[key]; ok {
			if p.given[key] == value {
				p.warnAt(p.line, "%s is given twice, first in line %d", key, at)
				return nil
			}
			hint := ""
			if p.section == "Peer" {
				hint = "; is a [Peer] line missing?"
			}
			return p.errorf("%s is given twice with different values, first in line %d%s", key, at, hint)
		}
		p.given[key], p.givenAt[key] = value, p.line
	}
	if p.section == "Peer" {
		return p.peerKey(&p.cfg.Peers[len(p.cfg.Peers)-1], key, value)
	}
	return p.interfaceKey(key, value)
}

// ignore notes a key that finish warns of, so that all of them make one warning.
func (p *parser) ignore(key string) {
	if p.ignoredAt == 0 {
		p.ignoredAt = p.line
	}
	if !slices.Contains(p.ignored, key) {
		p.ignored = append(p.ignored, key)
	}
}

// interfaceKey takes a value of [Interface]; key is spelled right.
func (p *parser) interfaceKey(key, value string) (err error) {
	c := p.cfg
	switch key {
	case "PrivateKey":
		k, err := parseKey(value)
		if err != nil {
			return p.errorf("PrivateKey %v", err)
		}
		if k == [keyLen]byte{} {
			return p.errorf("PrivateKey is all zeros")
		}
		c.PrivateKey = secret(&k)
	case "Address":
		c.Addresses, err = p.addresses(c.Addresses, value)
	case "DNS":
		err = p.resolvers(value)
	case "MTU":
		p.mtuAt = p.line
		c.MTU, err = p.number(key, value, minMTU, maxMTU)
	case "ListenPort":
		var n int
		n, err = p.number(key, value, 0, 65535)
		c.ListenPort = uint16(n)
	case "FwMark":
		if err = p.fwMark(value); err == nil {
			p.warnAt(p.line, "FwMark is ignored: it needs privileges on this machine")
		}
	}
	return err
}

// peerKey takes a value of a [Peer]; key is spelled right.
func (p *parser) peerKey(peer *Peer, key, value string) (err error) {
	switch key {
	case "PublicKey":
		k, err := parseKey(value)
		if err != nil {
			return p.errorf("PublicKey %v", err)
		}
		if at, ok := p.keyAt[k]; ok {
			return p.errorf("this peer is there already, in line %d", at)
		}
		p.keyAt[k] = p.line
		peer.PublicKey = k
	case "PresharedKey":
		k, err := parseKey(value)
		if err != nil {
			return p.errorf("PresharedKey %v", err)
		}
		if k != [keyLen]byte{} { // wg(8): all zeros is no preshared key
			peer.PresharedKey = secret(&k)
		}
	case "AllowedIPs":
		peer.AllowedIPs, err = p.allowedIPs(peer.AllowedIPs, value)
	case "Endpoint":
		peer.Endpoint, err = p.endpoint(value)
	case "PersistentKeepalive":
		peer.Keepalive, err = p.keepalive(value)
	}
	return err
}

// finish checks what can be missing or contradict itself across lines.
func (p *parser) finish() error {
	c := p.cfg
	at := p.sectionAt["Interface"]
	switch {
	case at == 0 && len(c.Peers) == 0:
		return p.errorAt(0, "no [Interface] section: is this a wg-quick file?")
	case at == 0:
		return p.errorAt(0, "no [Interface] section")
	case c.PrivateKey.IsZero():
		return p.errorAt(at, "no PrivateKey in [Interface]")
	case len(c.Peers) == 0:
		return p.errorAt(0, "no [Peer] section: nobody to talk to")
	}
	// A file with both halves of one key pair is a common mix-up, and the device
	// would silently drop the peer.
	own := c.PrivateKey.Public()
	taken := make(map[any]int)
	for i, peer := range c.Peers {
		switch {
		case peer.PublicKey == PublicKey{}:
			return p.errorAt(p.peerAt[i], "no PublicKey in this [Peer]")
		case peer.PublicKey == own:
			return p.errorAt(p.keyAt[own], "this PublicKey belongs to the PrivateKey above: it is not the peer's")
		case peer.PublicKey == PublicKey(c.PrivateKey.bytes()):
			return p.errorAt(p.keyAt[peer.PublicKey], "this is the PrivateKey again, not the peer's PublicKey")
		case len(peer.AllowedIPs) == 0:
			p.warnAt(p.peerAt[i], "no AllowedIPs in this [Peer]: nothing goes to it")
		}
		for _, dst := range peer.AllowedIPs {
			if j, ok := taken[dst]; ok && j != i {
				p.warnAt(p.peerAt[i], "AllowedIPs %s is taken from the peer in line %d", dst, p.peerAt[j])
			}
			taken[dst] = i
		}
	}
	if len(c.Addresses) == 0 {
		p.warnAt(at, "no Address in [Interface]")
	}
	if c.MTU != 0 && c.MTU < minMTU6 {
		for _, a := range c.Addresses {
			if a.Addr().Is6() {
				return p.errorAt(p.mtuAt, "MTU %d is less than the %d that IPv6 needs for %s", c.MTU, minMTU6, a)
			}
		}
	}
	if len(p.ignored) > 0 {
		p.warnAt(p.ignoredAt, "ignored, since nothing changes on this machine: %s", strings.Join(p.ignored, ", "))
	}
	return nil
}
