// SPDX-License-Identifier: Apache-2.0

// What the trap engine can lay over what.

package view

import (
	"strings"
	"testing"

	"umrun/fsmod"
)

// TestTrapLower: what the trap engine cannot lay over what, it says before anything runs.
func TestTrapLower(t *testing.T) {
	for _, tc := range []struct{ mounts, over string }{
		{"cow:/up:/srv", ""},
		{"bind:/a:/srv cow:/up:/srv", ""},
		{"image:/a:/srv cow:/up:/srv/sub", ""},
		{"cow::/ cow:/up:/srv", ""},
		{"cow:/up1:/ cow:/up:/srv", "cow:/up1:/"},
		{"merge:/a:/srv cow:/up:/srv", "merge:/a:/srv"},
		{"merge:/a:/srv cow::/srv merge:/b:/srv", "merge:/a:/srv"},
		{"merge:/a:/srv bind:/b:/srv cow:/up:/srv", ""},
		{"cow:/up1:/srv cow:/up:/srv2", ""},
	} {
		var mounts []fsmod.Mount
		for s := range strings.FieldsSeq(tc.mounts) {
			m, err := ParseMount(s, "/")
			if err != nil {
				t.Fatal(err)
			}
			mounts = append(mounts, m)
		}
		mounts = fsmod.Order(mounts)
		var err error
		for i, m := range mounts {
			if e := trapLower(m, mounts[:i]); e != nil {
				err = e
			}
		}
		if tc.over == "" && err != nil || tc.over != "" && (err == nil || !strings.Contains(err.Error(), "over -m "+tc.over+",")) {
			t.Errorf("%s: %v", tc.mounts, err)
		}
	}
}
