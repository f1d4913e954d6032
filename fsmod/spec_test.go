// SPDX-License-Identifier: Apache-2.0

// Tests of how mounts are written.

package fsmod

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMount(t *testing.T) {
	for _, tc := range []struct {
		spec string
		want Mount
	}{
		{"bind:/a:/b", Mount{Kind: Bind, Source: "/a", Target: "/b"}},
		{"bind:/a:/b:ro", Mount{Kind: Bind, Source: "/a", Target: "/b", ReadOnly: true}},
		{"bind:a/../c:.", Mount{Kind: Bind, Source: "/work/dir/c", Target: "/work/dir"}},
		{`bind:/a\:b:/c\d`, Mount{Kind: Bind, Source: "/a:b", Target: `/c\d`}},
		{"bind:/a:/", Mount{Kind: Bind, Source: "/a", Target: "/"}},
		{"bind:./~:/b", Mount{Kind: Bind, Source: "/work/dir/~", Target: "/b"}},
		{"tmpfs:/scratch/", Mount{Kind: Tmpfs, Target: "/scratch"}},
		{"cow:/u:/d", Mount{Kind: Cow, Source: "/u", Target: "/d"}},
		{"cow::/", Mount{Kind: Cow, Target: "/"}},
		{"cow:up:..", Mount{Kind: Cow, Source: "/work/dir/up", Target: "/work"}},
		{"merge:/a:/b", Mount{Kind: Merge, Source: "/a", Target: "/b", ReadOnly: true}},
		{"hide:/etc/shadow", Mount{Kind: Hide, Target: "/etc/shadow"}},
		{"file:hosts:/etc/hosts", Mount{Kind: File, Source: "/work/dir/hosts", Target: "/etc/hosts"}},
		{"image:x.zip:/x", Mount{Kind: Image, Source: "/work/dir/x.zip", Target: "/x", ReadOnly: true}},
		{"image:x.ext4:/x:rw", Mount{Kind: Image, Source: "/work/dir/x.ext4", Target: "/x"}},
		{"image:x.ext4:/x:ro", Mount{Kind: Image, Source: "/work/dir/x.ext4", Target: "/x", ReadOnly: true}},
		{"fuse:sshfs me@host:dir -f:/mnt", Mount{Kind: Fuse, Source: "sshfs me@host:dir -f", Target: "/mnt"}},
		{`fuse:prog:/mnt\:1`, Mount{Kind: Fuse, Source: "prog", Target: "/mnt:1"}},
		{"dev:null:/dev/nothing", Mount{Kind: Dev, Source: Null, Target: "/dev/nothing"}},
		{"dev:tun:/dev/net/tun", Mount{Kind: Dev, Source: TUN, Target: "/dev/net/tun"}},
		{"dev:ramdisk:/dev/rd0,size=64M", Mount{Kind: Dev, Source: Ramdisk, Target: "/dev/rd0", Size: 64 << 20}},
	} {
		got, err := ParseMount(tc.spec, "/work/dir")
		if err != nil {
			t.Errorf("%s: %v", tc.spec, err)
			continue
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tc.spec, d)
		}
		again, err := ParseMount(got.String(), "/elsewhere")
		if err != nil || again != got {
			t.Errorf("%s is written %s, which is %+v, %v", tc.spec, got, again, err)
		}
	}
}

func TestParseMountErrors(t *testing.T) {
	for _, tc := range []struct{ spec, want string }{
		{"", "begins with no kind"},
		{"/a:/b", "begins with no kind"},
		{"bnd:/a:/b", `unknown kind "bnd"`},
		{"bind", "nothing behind the kind"},
		{"bind:/a", "a path is missing"},
		{"bind::/b", "a path is empty"},
		{"bind:/a:", "a path is empty"},
		{"bind:/a:/b:rx", `"rx" is not "ro"`},
		{"bind:/a:/b:ro:ro", "a colon too many"},
		{"bind:~/a:/b", "~ is not expanded"},
		{"bind:/a\x00:/b", "holds a NUL"},
		{"tmpfs:/a:/b", "a colon too many"},
		{"tmpfs:/", "nothing would be left of /"},
		{"hide:/.", "nothing would be left of /"},
		{"cow:/", "where what is written goes"},
		{"cow:/a:/a", "both paths are /a"},
		{"cow:/u:/d:ro", "a colon too many"},
		{"fuse: :/mnt", "no command"},
		{"fuse:/mnt", "a path is missing"},
		{"dev:nul:/x", `unknown device "nul"`},
		{"dev:null:/x,size=1", "has no size"},
		{"dev:ramdisk:/x", "needs a size"},
		{"dev:ramdisk:/x,sise=1M", `unknown key "sise"`},
		{"dev:ramdisk:/x,size=", "is no size"},
		{"dev:ramdisk:/x,size=-1", "is no size"},
		{"dev:ramdisk:/x,size=9999999999T", "is no size"},
		{"dev:ramdisk:/x,size=1M1", "is no size"},
	} {
		m, err := ParseMount(tc.spec, "/")
		var se *SpecError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "-m "+tc.spec+": ") {
			t.Errorf("%q: got %+v, %v; want %s", tc.spec, m, err, tc.want)
		}
	}
}

func TestOrder(t *testing.T) {
	var got []string
	for _, m := range Order([]Mount{{Target: "/a/b"}, {Target: "/c"}, {Target: "/a", Source: "1"}, {Target: "/"}, {Target: "/a", Source: "2"}, {Target: "/c/d"}}) {
		got = append(got, m.Target+m.Source)
	}
	if want := []string{"/", "/c", "/a1", "/a2", "/a/b", "/c/d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"bind:a:b:ro", `cow::/\:`, `cow:\/:0`, `fuse:\\::0`, "fuse:a:b:c", "dev:ramdisk:x,size=1M", "hide:~x", "image:a:b:rw"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		m, err := ParseMount(spec, "/cwd")
		if err != nil {
			return
		}
		if again, err := ParseMount(m.String(), "/"); err != nil || again != m {
			t.Errorf("%q is %+v, written %q, which is %+v, %v", spec, m, m.String(), again, err)
		}
	})
}
