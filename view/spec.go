// SPDX-License-Identifier: Apache-2.0

// The SPEC grammar: how a network is named on the command line.

package view

import (
	"regexp"
	"slices"
	"strings"
)

// A Kind is what stands behind a network.
type Kind string

// The kinds. Profile is a name that the caller of [ParseNetwork] still has to
// look up.
const (
	WireGuard   Kind = "wg"
	NAT         Kind = "nat"
	None        Kind = "none"
	Host        Kind = "host"
	VDE         Kind = "vde"
	TAP         Kind = "tap"
	TUN         Kind = "tun"
	NetNS       Kind = "netns"
	SOCKS5      Kind = "socks5"
	HTTP        Kind = "http"
	SSH         Kind = "ssh"
	TunProvider Kind = "tun-provider"
	Profile     Kind = "profile"
)

// A trait is something that networks of a kind have, and keys can be about.
type trait uint

const (
	hasStack  trait = 1 << iota // a stack is made for it, userspace or kernel
	hasLink                     // and packets pass a link of umrun's
	hasEther                    // whose packets are Ethernet frames
	hasConfig                   // addresses are configured as for iothconf
	hasDNS                      // names can be asked of somebody
	hasAuth                     // who uses it says who he is
	isNAT                       // it is the network of the host, translated
	hasTarget                   // KIND:TARGET
	isBuilt                     // umrun can do it
)

// kinds says what networks of each kind have.
var kinds = map[Kind]trait{
	WireGuard:   isBuilt | hasTarget | hasStack | hasLink | hasDNS,
	NAT:         isBuilt | hasStack | hasLink | hasDNS | isNAT,
	None:        isBuilt | hasStack,
	Host:        isBuilt,
	VDE:         isBuilt | hasTarget | hasStack | hasLink | hasEther | hasConfig | hasDNS,
	TAP:         isBuilt | hasTarget | hasStack | hasLink | hasEther | hasConfig | hasDNS,
	TUN:         isBuilt | hasTarget | hasStack | hasLink | hasConfig | hasDNS,
	NetNS:       isBuilt | hasTarget,
	SOCKS5:      isBuilt | hasTarget | hasStack | hasLink | hasDNS | hasAuth,
	HTTP:        isBuilt | hasTarget | hasStack | hasLink | hasDNS | hasAuth,
	SSH:         isBuilt | hasTarget | hasStack | hasLink | hasDNS | hasAuth,
	TunProvider: isBuilt | hasTarget | hasStack | hasDNS,
}

// A Network is a parsed SPEC: [NAME=]KIND[:TARGET][,KEY[=VALUE]...].
type Network struct {
	Name   string // NAME, else the kind
	Kind   Kind
	Target string // file, address, command: what the kind takes; escapes are resolved
	Keys   []Key  // in the order given
	Spec   string // as it was written
}

// A Key is a KEY[=VALUE] of a SPEC.
type Key struct {
	Name, Value string
	HasValue    bool // there was a `=`
}

var (
	nameRE    = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	profileRE = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
	schemeRE  = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)
	urlRE     = regexp.MustCompile(`^(vde:|[a-z][a-z0-9+.-]*://)`)
)

// ParseNetwork reads a SPEC. It looks at no file: a name that is no kind comes
// back with Kind Profile and the name as Target. Keys are checked for existence and
// form, not yet for whether they go with the kind; errors are Problems with [ExitConfig].
func ParseNetwork(spec string) (Network, error) {
	n := Network{Spec: spec}
	if err := refusePassword(spec); err != nil {
		return Network{}, err
	}
	rest := spec
	if before, after, ok := strings.Cut(spec, "="); ok && nameRE.MatchString(before) {
		n.Name, rest = before, after
	}
	if rest == "" {
		return n, badConfig("-n %q: there is no network in it", spec)
	}
	var words []string
	if cmd, ok := strings.CutPrefix(rest, string(TunProvider)+":"); ok {
		n.Kind, n.Target = TunProvider, cmd // a command, commas and all
	} else {
		words = splitCommas(rest, urlRE.MatchString(rest))
		if err := n.parseHead(words[0]); err != nil {
			return n, err
		}
		words = words[1:]
	}
	for _, w := range words {
		k := Key{}
		k.Name, k.Value, k.HasValue = strings.Cut(w, "=")
		if err := k.check(); err != nil {
			return n, badConfig("-n %s: %w", spec, err)
		}
		if k.HasValue && !slices.Contains(repeatable, k.Name) && n.has(k.Name) {
			return n, badConfig("-n %s: the key %s is there twice", spec, k.Name)
		}
		n.Keys = append(n.Keys, k)
	}
	if n.Name == "" {
		n.Name = string(n.Kind)
	}
	return n, nil
}

// parseHead sets Kind and Target from what stands before the first comma.
func (n *Network) parseHead(head string) error {
	kind, target, colon := strings.Cut(head, ":")
	if k, known := kinds[Kind(kind)]; known {
		n.Kind, n.Target = Kind(kind), target
		switch {
		case k&hasTarget != 0 && target == "":
			return badConfig("-n %s: %s needs a target: %s", n.Spec, kind, targetForm(n.Kind))
		case k&hasTarget == 0 && colon:
			return badConfig("-n %s: %s takes no target", n.Spec, kind)
		}
		if n.Kind == TAP { // vdeplug's URL for the same
			n.Target = strings.TrimPrefix(target, "//")
		}
		if n.Kind == SOCKS5 || n.Kind == HTTP {
			var url bool
			if n.Target, url = strings.CutPrefix(target, "//"); !url || n.Target == "" {
				return badConfig("-n %s: write it as %s", n.Spec, targetForm(n.Kind))
			}
		}
		return nil
	}
	switch {
	case kind == "socks5h":
		return badConfig("-n %s: write socks5://: names are always resolved by the proxy", n.Spec)
	case kind == "https" && colon:
		return badConfig("-n %s: proxies that are spoken to over TLS are not built: write http://", n.Spec)
	case colon && strings.HasPrefix(target, "//") && schemeRE.MatchString(kind):
		n.Kind, n.Target = VDE, head // vdeplug's URLs: vxvde://, udp://, cmd://...
	case strings.Contains(head, "/") || strings.HasSuffix(head, ".conf"):
		n.Kind, n.Target = WireGuard, head
	case colon:
		return badConfig("-n %s: unknown kind of network %q%s", n.Spec, kind, didYouMean(kind, KindNames()))
	case profileRE.MatchString(head):
		n.Kind, n.Target = Profile, head
	default:
		return badConfig("-n %s: %q is neither a file, nor a kind of network, nor a profile's name", n.Spec, head)
	}
	return nil
}

// KindNames returns the words that can stand as KIND, sorted.
func KindNames() []string {
	var names []string
	for k := range kinds {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

func targetForm(k Kind) string {
	switch k {
	case WireGuard:
		return "wg:FILE.conf"
	case SOCKS5, HTTP:
		return string(k) + "://[USER@]HOST:PORT"
	case SSH:
		return "ssh:[USER@]HOST[:PORT]"
	case VDE:
		return "vde:DIR or vde:URL"
	case NetNS:
		return "netns:PATH"
	}
	return string(k) + ":NAME"
}

// splitCommas splits at commas that stand neither behind a backslash nor, if
// nest is set, in braces (VDE URLs nest in them), and resolves `\,`. A backslash
// before anything else is itself.
func splitCommas(s string, nest bool) []string {
	var words []string
	var w strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && s[i+1] == ',':
			i++
			w.WriteByte(',')
			continue
		case c == '{' && nest:
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == ',' && depth == 0:
			words = append(words, w.String())
			w.Reset()
			continue
		}
		w.WriteByte(s[i])
	}
	return append(words, w.String())
}

// String returns a SPEC that parses to the same network.
func (n Network) String() string {
	esc := strings.NewReplacer(",", `\,`)
	var b strings.Builder
	b.WriteString(n.Name + "=")
	switch {
	case n.Kind == TunProvider:
		return b.String() + string(TunProvider) + ":" + n.Target
	case n.Kind == Profile:
		b.WriteString(n.Target)
	case n.Kind == SOCKS5 || n.Kind == HTTP:
		b.WriteString(string(n.Kind) + "://" + esc.Replace(n.Target))
	case kinds[n.Kind]&hasTarget != 0:
		b.WriteString(string(n.Kind) + ":" + esc.Replace(n.Target))
	default:
		b.WriteString(string(n.Kind))
	}
	for _, k := range n.Keys {
		b.WriteString("," + k.Name)
		if k.HasValue {
			b.WriteString("=" + esc.Replace(k.Value))
		}
	}
	return b.String()
}
