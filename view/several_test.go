// SPDX-License-Identifier: Apache-2.0

// Plans of several networks.

package view

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// several makes a plan of SPECs and rules.
func several(t *testing.T, specs string, rules ...string) (*Plan, error) {
	t.Helper()
	conf := Config{Routes: rules}
	for _, s := range strings.Fields(specs) {
		n, err := ParseNetwork(s)
		if err != nil {
			t.Fatal(err)
		}
		conf.Networks = append(conf.Networks, n)
	}
	return planNetworks(conf)
}

func TestPlanSeveral(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "office.conf")
	if err := os.WriteFile(file, []byte(planConf), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, []byte("198.51.100.0/24\n*.list.example # why\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := several(t, "a=nat office="+file, "*.corp.example=office", "@"+list+"=office", "exe=ssh=a")
	if err != nil {
		t.Fatal(err)
	}
	want := []PlanRule{{"*.corp.example", "office"}, {"198.51.100.0/24", "office"}, {"*.list.example", "office"}, {"exe=ssh", "a"}}
	if d := cmp.Diff(want, p.Rules); d != "" {
		t.Errorf("rules: %s", d)
	}
	if d := cmp.Diff([]PlanZone{{Network: "office", Mode: "tunnel", Servers: []string{"10.9.0.1:53"}, Search: []string{"corp.example"}}}, p.DNS.Networks); d != "" {
		t.Errorf("zones: %s", d)
	}
	if len(p.Warnings) > 1 { // of the file, which others may read
		t.Errorf("warnings: %q", p.Warnings)
	}
	if d := p.domains(); d["corp.example"] != 1 {
		t.Errorf("domains: %v", d)
	}

	for _, c := range []struct {
		specs, rules, want string
	}{
		{"nat nat", "", "there is a network nat already; give it a name: -n NAME=nat"},
		{"a=nat b=none", "10.0.0.0/8=c", `there is no network "c", only "a", "b"`},
		{"a=nat", "10.0.0.0/8=c", `there is no network "c", only "a"`},
		{"a=nat b=none", "10.0.0.0/8=a 10.0.0.0/8=b", "10.0.0.0/8 goes to a already"},
		{"a=nat b=none", "10.0.0.0=", "no name of a network"},
		{"a=nat b=none", "@" + dir + "/no=b", "no such file"},
	} {
		if _, err := several(t, c.specs, strings.Fields(c.rules)...); err == nil || ExitCode(err) != ExitConfig || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %v, want %q", c.specs, c.rules, err, c.want)
		}
	}
	for _, c := range []struct {
		specs, rules string
		want         []string
	}{
		{"a=nat b=nat", "", nil},
		{"office=" + file + " a=nat", "", []string{"--route 0.0.0.0/0=a", "--route ::/0=a"}},
		{"office=" + file + " a=nat", "0.0.0.0/0=a ::/0=office", nil},
		{"a=nat b=none", "", []string{"--route PATTERN=b"}},
		{"a=nat b=none", ":1=b", nil},
	} {
		p, err := several(t, c.specs, strings.Fields(c.rules)...)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(p.Warnings, func(w string) bool { return !strings.Contains(w, "--route") })
		if len(got) != len(c.want) {
			t.Errorf("%s, %s: %q, want %q", c.specs, c.rules, got, c.want)
			continue
		}
		for i, w := range c.want {
			if !strings.HasSuffix(got[i], w) && !strings.Contains(got[i], w) {
				t.Errorf("%s, %s: %q, want %q", c.specs, c.rules, got[i], w)
			}
		}
	}
}
