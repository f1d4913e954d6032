// SPDX-License-Identifier: Apache-2.0

// What a cow or merge of the trap engine covers.

package view

import (
	"fmt"
	"strings"
	"testing"

	"umrun/fsmod"
)

// A treeNamed is a tree that is only asked for its name.
type treeNamed struct {
	fsmod.FS
	name string
}

// TestLay: a mount covers what is seen at its target of those made before it, and what they
// have mounted below.
func TestLay(t *testing.T) {
	for _, tc := range []struct{ mounts, lower string }{
		{"cow:/up:/srv", "host:/srv"},
		{"bind:/a:/srv cow:/up:/srv", "bind:/a:/srv: alias"},
		{"image:/a:/srv cow:/up:/srv/sub", "image:/a:/srv:sub"},
		{"cow::/ cow:/up:/srv", "cow::/:srv"},
		{"cow:/up1:/ cow:/up:/srv", "cow:/up1:/:srv"},
		{"merge:/a:/srv cow::/srv merge:/b:/srv", "cow::/srv: alias"},
		{"merge:/a:/srv bind:/b:/srv cow:/up:/srv", "bind:/b:/srv: alias"},
		{"bind:/b:/srv tmpfs:/srv cow:/up:/srv", "tmpfs:/srv:"},
		{"cow:/up1:/srv cow:/up:/srv2", "host:/srv2"},
		{"hide:/srv/x cow:/up:/srv", "host:/srv x=hide:/srv/x:"},
		{"hide:/srv/x bind:/b:/srv hide:/srv/y/z cow:/up:/srv", "bind:/b:/srv: y/z=hide:/srv/y/z: alias"},
		{"hide:/srv/x cow:/up:/", "host:/ srv/x=hide:/srv/x:"},
		{"bind:/b:/srv/x merge:/a:/srv/x cow:/up:/srv", "host:/srv x=bind:/b:/srv/x: x=merge:/a:/srv/x: alias"},
	} {
		var earlier []fsmod.Mounted
		var got string
		for s := range strings.FieldsSeq(tc.mounts) {
			m, err := ParseMount(s, "/")
			if err != nil {
				t.Fatal(err)
			}
			mt := fsmod.Mounted{Mount: m, FS: treeNamed{name: s}}
			got = ""
			for _, l := range lay(&mt, earlier) {
				if l.At != "" {
					got += " " + l.At + "="
				}
				name := "host"
				if l.FS != nil {
					name = l.FS.(treeNamed).name
				}
				got += fmt.Sprintf("%s:%s", name, l.Name)
			}
			if mt.Alias {
				got += " alias"
			}
			if m.Kind != fsmod.Cow {
				mt.Alias = m.Kind == fsmod.Merge
			}
			earlier = append(earlier, mt)
		}
		if got != tc.lower {
			t.Errorf("%s: %s, want %s", tc.mounts, got, tc.lower)
		}
	}
}
