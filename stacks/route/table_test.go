// SPDX-License-Identifier: Apache-2.0

// The order of rules, what is learned of names, and what a lookup costs.

package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var names = []string{"zero", "one", "two", "three"}

func table(t testing.TB, rules []string, own ...string) *Table {
	t.Helper()
	var all []Rule
	for _, r := range rules {
		rs, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rs...)
	}
	var networks []Network
	for i, n := range names {
		nw := Network{Name: n}
		if i < len(own) && own[i] != "" {
			for _, p := range strings.Fields(own[i]) {
				nw.Prefixes = append(nw.Prefixes, netip.MustParsePrefix(p))
			}
		}
		networks = append(networks, nw)
	}
	tab, err := New(all, networks)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestDest(t *testing.T) {
	tab := table(t, []string{
		"10.0.0.0/8=one", "10.1.0.0/16=two", "10.1.1.1=three", ":443=three", "0.0.0.0/0=two", "2001:db8::/32=one", "10.0.0.0/8=one",
	}, "192.168.0.0/24 0.0.0.0/0", "192.168.0.0/16 fd00::/8 ::/0", "192.168.0.0/24 198.51.100.0/25", "198.51.100.0/24")
	for _, c := range []struct {
		to    string
		want  string
		ruled bool
	}{
		{"10.9.9.9:80", "one", true},
		{"10.1.9.9:80", "two", true},
		{"10.1.1.1:80", "three", true},
		{"10.9.9.9:443", "one", true},         // a prefix before a port
		{"8.8.8.8:443", "three", true},        // a port before what networks have, and before /0
		{"192.168.0.1:443", "three", true},    //
		{"192.168.0.1:80", "zero", false},     // the first of two with the same prefix
		{"192.168.9.1:80", "one", false},      //
		{"198.51.100.1:80", "two", true},      // the longest, and 0.0.0.0/0 says the same
		{"198.51.100.200:80", "three", false}, //
		{"8.8.8.8:80", "two", true},           // 0.0.0.0/0
		{"[2001:db8::1]:80", "one", true},     //
		{"[2001:db9::1]:80", "zero", false},   // a default route of another network attracts nothing
		{"[fd00::1]:80", "one", false},        //
		{"[::ffff:10.1.1.1]:80", "three", true},
		{"[fd00::1%eth0]:80", "one", false},
	} {
		n, ruled := tab.Dest(netip.MustParseAddrPort(c.to))
		if names[n] != c.want || ruled != c.ruled {
			t.Errorf("%s goes to %s (ruled %v), want %s (%v)", c.to, names[n], ruled, c.want, c.ruled)
		}
	}
	p := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	where := func(to string) string {
		n, _ := tab.Dest(netip.AddrPortFrom(netip.MustParseAddr(to), 80))
		return names[n]
	}
	tab.Change(3, p("172.16.0.0/12"), p("198.51.100.0/24"))
	if n := where("172.16.1.1"); n != "three" {
		t.Errorf("a prefix that was added: %s", n)
	}
	if n := where("198.51.100.200"); n != "three" {
		t.Errorf("a configured prefix that was removed: %s", n)
	}
	tab.Change(3, p("198.51.100.0/24"), p("172.16.0.0/12"))
	tab.Change(3, nil, p("198.51.100.0/24"))
	if n := where("172.16.1.1"); n != "two" { // 0.0.0.0/0=two
		t.Errorf("a prefix that was added and removed: %s", n)
	}
	if n := where("198.51.100.200"); n != "three" {
		t.Errorf("a configured prefix that was added and removed: %s", n)
	}
}

func TestLocal(t *testing.T) {
	a := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	tab, err := New([]Rule{{Pattern: Pattern{Kind: Prefix, Prefix: netip.MustParsePrefix("10.0.0.0/8")}, Network: "one"}},
		[]Network{{Name: "zero", Addrs: a("10.0.0.1")}, {Name: "one", Addrs: a("10.0.0.2")}, {Name: "two", Addrs: a("10.0.0.2")}})
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]int{"127.1.2.3": 0, "::1": 0, "::": 0, "::ffff:127.0.0.1": 0, "10.0.0.1": 0, "10.0.0.2": 1, "10.0.0.3": -1} {
		n, ok := tab.Local(netip.MustParseAddr(s))
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%s is of network %d, want %d", s, n, want)
		}
	}
}

func TestTasks(t *testing.T) {
	tab := table(t, []string{"exe=fire*=one", "exe=firefox=two", "exe=/opt/*/firefox=three", "exe=/usr/bin/curl=one", "uid=4711=two", "uid=root=one"})
	for file, want := range map[string]string{
		"/usr/bin/firefox": "two", "/opt/x/firefox": "three", "/opt/x/y/firefox": "two", "/usr/bin/firejail": "one",
		"/usr/bin/curl": "one", "/usr/local/bin/curl": "", "/bin/sh": "",
	} {
		got := ""
		if n, ok := tab.Exe(file); ok {
			got = names[n]
		}
		if got != want {
			t.Errorf("%s is for %q, want %q", file, got, want)
		}
	}
	for uid, want := range map[uint32]string{4711: "two", 0: "one", 1: ""} {
		got := ""
		if n, ok := tab.UID(uid); ok {
			got = names[n]
		}
		if got != want {
			t.Errorf("user %d is for %q, want %q", uid, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	tab := table(t, []string{"*.corp.example=one", "corp.example=two", "*.dev.corp.example=three", "db-*.corp.example=two", "*.cdn*.example=three"})
	for name, want := range map[string]string{
		"corp.example": "two", "Wiki.Corp.Example": "one", "a.b.corp.example": "one", "x.dev.corp.example": "three",
		"dev.corp.example": "one", "db-1.corp.example": "two", "a.db-1.corp.example": "one", "notcorp.example": "",
		"example": "", "x.y.cdn7.example": "three", "cdn7.example": "", "": "",
	} {
		got := ""
		if n, ok := tab.Name(name); ok {
			got = names[n]
		}
		if got != want {
			t.Errorf("%s is for %q, want %q", name, got, want)
		}
	}
}

func TestLearn(t *testing.T) {
	tab := table(t, []string{"*.corp.example=one", "www.corp.example=two", "10.0.0.0/8=three"})
	now := time.Unix(1000000, 0)
	tab.now = func() time.Time { return now }
	a := netip.MustParseAddr("10.0.0.7")
	to := netip.AddrPortFrom(a, 443)
	want := func(when, name string) {
		t.Helper()
		if n, ruled := tab.Dest(to); names[n] != name || !ruled {
			t.Errorf("%s: %s, want %s", when, names[n], name)
		}
	}
	want("at first", "three")
	tab.Learn([]string{"other.example"}, a, time.Minute)
	want("after a name without a rule", "three")
	tab.Learn([]string{"WIKI.corp.example", "alias.example"}, netip.AddrFrom16(a.As16()), time.Minute)
	want("after a name", "one")
	tab.Learn([]string{"other.example", "www.corp.example"}, a, time.Minute)
	want("after a more specific one, by an alias", "two")
	tab.Learn([]string{"wiki.corp.example"}, a, time.Minute)
	want("after the first one again", "two")
	now = now.Add(grace + 30*time.Second)
	want("within the time to live and the grace", "two")
	now = now.Add(grace - time.Second)
	want("an hour after its last use", "two")
	now = now.Add(grace + time.Minute)
	want("when all is over", "three")

	tab.Learn([]string{"wiki.corp.example"}, a, 1000*time.Hour)
	now = now.Add(maxTTL + grace + time.Second)
	want("after a day, whatever the server said", "three")
}

// TestLearnedIsBounded: a server that answers with ever new addresses fills no memory, and
// loses only what ends first.
func TestLearnedIsBounded(t *testing.T) {
	tab := table(t, []string{"*.corp.example=one", "keep.example=two"})
	keep := netip.MustParseAddr("192.0.2.1")
	tab.Learn([]string{"keep.example"}, keep, maxTTL)
	for i := range 3 * maxLearned {
		tab.Learn([]string{"x.corp.example"}, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), time.Minute)
	}
	if n := len(tab.learned.by); n > maxLearned {
		t.Errorf("%d addresses are kept", n)
	}
	if n, _ := tab.Dest(netip.AddrPortFrom(keep, 80)); n != 2 {
		t.Errorf("what ends last was forgotten: %s", names[n])
	}
}

func TestParseErrors(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, []byte("# a list\n\n10.0.0.0/8\n10.0.0.1/8 # wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"10.0.0.0/8":             "PATTERN=NAME",
		"=one":                   "",
		"10.0.0.0/33=one":        "no prefix",
		"10.1.2.3/8=one":         "did you mean 10.0.0.0/8",
		":0=one":                 "no port",
		":http=one":              "no port",
		"exe==one":               "no glob",
		"exe=[=one":              "no glob",
		"uid=no-such-user-x=one": "there is no user",
		"bücher.example=one":     "xn--",
		"10.0.0=one":             "neither",
		"a..b=one":               "neither",
		"x y=one":                "neither",
		"10.0.0.0/8=a b":         "no name of a network",
		"@" + dir + "/no=one":    "no such file",
		"@" + list + "=one":      list + ":4: ",
		"@" + list:               list + ":3: ",
	} {
		_, err := Parse(arg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--route %s: %v, want %q in it", arg, err, want)
		}
	}
	for _, c := range []struct{ rules, want string }{
		{"10.0.0.0/8=nowhere", `there is no network "nowhere"`},
		{"10.0.0.0/8=one 10.0.0.0/8=two", "goes to one already"},
		{"*.a.example=one *.A.example=two", "goes to one already"},
	} {
		var all []Rule
		for _, r := range strings.Fields(c.rules) {
			rs, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rs...)
		}
		_, err := New(all, []Network{{Name: "one"}, {Name: "two"}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.rules, err, c.want)
		}
	}
}

// TestParse: patterns are what they are written as.
func TestParse(t *testing.T) {
	for s, kind := range map[string]Kind{
		"exe=/a=b": Exe, "uid=7": UID, "*.example": Domain, "localhost": Domain, "10.0.0.0/8": Prefix, "::/0": Prefix,
		"fe80::1": Prefix, "10.0.0.1": Prefix, ":53": Port, "1.example": Domain,
	} {
		p, err := ParsePattern(s)
		if err != nil || p.Kind != kind {
			t.Errorf("%s: %v, %v", s, p.Kind, err)
			continue
		}
		again, err := ParsePattern(p.String())
		if err != nil || again != p {
			t.Errorf("%s is written as %s, which is %v, %v", s, p, again, err)
		}
	}
	dir := t.TempDir()
	list := filepath.Join(dir, "list=x")
	if err := os.WriteFile(list, []byte("10.0.0.0/8=one\nexe=a=b=two # why\n#:80=one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	rules, err := Parse("@./list=x") // x is a name, list no file
	if err == nil {
		t.Errorf("a file that is not there: %v", rules)
	}
	if err := os.Rename("list=x", "list"); err != nil {
		t.Fatal(err)
	}
	rules, err = Parse("@list")
	if err != nil || len(rules) != 2 || rules[0].Network != "one" || rules[1].Network != "two" || rules[1].Pattern.Text != "a=b" || rules[1].From != "list:2" {
		t.Errorf("rules %v, %v", rules, err)
	}
}

// many writes a list of n prefixes as they are found in the wild, /16 to /24, and makes a
// table of it.
func many(t testing.TB, n int) *Table {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	seen := map[netip.Prefix]bool{}
	for len(seen) < n {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + r.IntN(222)), byte(r.Uint32()), byte(r.Uint32())}), 16+r.IntN(9)).Masked()
		if !seen[p] {
			seen[p] = true
			fmt.Fprintln(&b, p)
		}
	}
	file := filepath.Join(t.TempDir(), "prefixes")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return table(t, []string{"@" + file + "=one", "*.corp.example=two", ":443=three"}, "", "10.0.0.0/8")
}

// destinations are addresses all over.
func destinations() []netip.AddrPort {
	r := rand.New(rand.NewPCG(3, 4))
	var all []netip.AddrPort
	for range 1 << 12 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + r.IntN(222)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 80))
	}
	return all
}

// TestManyPrefixes: 100,000 prefixes of a file cost about a microsecond a lookup, on a
// busy machine too.
func TestManyPrefixes(t *testing.T) {
	tab := many(t, 100_000)
	tab.Learn([]string{"x.corp.example"}, netip.MustParseAddr("192.0.2.1"), time.Hour)
	all := destinations()
	best := time.Hour
	hits := 0
	for range 10 {
		began := time.Now()
		for _, d := range all {
			if n, _ := tab.Dest(d); n == 1 {
				hits++
			}
		}
		best = min(best, time.Since(began)/time.Duration(len(all)))
	}
	if hits == 0 || hits == 10*len(all) {
		t.Errorf("%d of %d destinations are in the list", hits/10, len(all))
	}
	t.Logf("%v a lookup, %d of %d in the list", best, hits/10, len(all))
	if best > 20*time.Microsecond {
		t.Errorf("a lookup takes %v", best)
	}
}

func BenchmarkDest(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := many(b, n)
			all := destinations()
			b.ResetTimer()
			for i := range b.N {
				tab.Dest(all[i&(len(all)-1)])
			}
		})
	}
}

// FuzzPattern: what is taken can be written and read again.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "*.corp.example", ":53", "exe=/usr/bin/*", "uid=1000", "::/0", "fe80::1%2", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || again != p {
			t.Errorf("%q is %q, which is %v, %v", s, p, again, err)
		}
		d := domain{glob: p.Text}
		if p.Kind == Domain && !strings.Contains(p.Text, "*") && !matchLabels(d.glob, p.Text) {
			t.Errorf("%q does not match itself", p.Text)
		}
	})
}
