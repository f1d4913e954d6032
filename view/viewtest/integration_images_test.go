// SPDX-License-Identifier: Apache-2.0

// Images that a view mounts, by the kernel and a FUSE server in the supervisor. Each
// case runs as root and as an ordinary user.

package viewtest_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

// openFUSE gives everybody on the host /dev/fuse, as most machines do. Twice is fine.
func openFUSE(t *testing.T, w *viewtest.World) {
	t.Helper()
	setFUSE(t, w, 0o666)
}

// setFUSE gives /dev/fuse a mode there.
func setFUSE(t *testing.T, w *viewtest.World, mode uint32) {
	t.Helper()
	node := filepath.Join(w.Dir(), fmt.Sprintf("fuse-%o", mode))
	var err error
	w.Host.Do(func() {
		if err = unix.Mknod(node, unix.S_IFCHR|mode, int(unix.Mkdev(10, 229))); err != nil {
			if errors.Is(err, unix.EEXIST) {
				err = nil
			}
			return
		}
		if err = unix.Chmod(node, mode); err == nil {
			err = unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, "")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// makeImages makes images of one tree, and returns the directory that they are in.
func makeImages(t *testing.T, w *viewtest.World) string {
	t.Helper()
	dir := filepath.Join(w.Dir(), "images")
	w.Host.MustRun(t, "sh", "-ec", `mkdir -p "$0/tree/sub" && cd "$0/tree"
		echo content >file; echo deep >sub/deep; ln -s sub/deep link; ln file hard
		printf '#!/bin/sh\necho ran "$0"\n' >program; chmod 755 program; seq 1 100000 >big
		export PATH=$PATH:/usr/sbin
		tar -cf ../tar . && zstd -q ../tar -o ../tar.zst; zip -qry ../zip.zip .
		mksquashfs . ../squashfs -quiet -no-progress; genisoimage -quiet -R -o ../iso . 2>/dev/null
		mke2fs -q -t ext4 -d . ../ext4 8M; truncate -s 2M ../fat; mkfs.vfat ../fat >/dev/null
		head -c 5000 ../zip.zip >../broken; echo no image >../text; chmod -R a+rX ..`, dir)
	return dir
}

// readImage is a script that reads all that the images have.
const readImage = `cd DIR/dst; cat file link; ./program; stat -c '%a %s %F' file big link; tail -n 1 big; ls; (echo x >>file) 2>/dev/null || echo kept`

func TestIntegrationImages(t *testing.T) {
	viewtest.Need(t, "mksquashfs", "genisoimage", "zip", "zstd", "mke2fs")
	w := viewtest.New(t)
	openFUSE(t, w)
	images := makeImages(t, w)
	tree := "content\ndeep\nran ./program\n644 8 regular file\n644 588895 regular file\n777 8 symbolic link\n100000\nbig\nfile\nhard\nlink\n"
	rest := "program\nsub\nkept\n"
	cases := []mountCase{
		{name: "tar", flags: "-m image:IMG/tar:DIR/dst", script: readImage, want: tree + rest},
		{name: "tar.zst", flags: "-m image:IMG/tar.zst:DIR/dst", script: readImage, want: tree + rest},
		{name: "zip", flags: "-m image:IMG/zip.zip:DIR/dst", script: readImage, want: tree + rest},
		{name: "squashfs", flags: "-m image:IMG/squashfs:DIR/dst", script: readImage, want: tree + rest},
		{name: "iso9660", flags: "-m image:IMG/iso:DIR/dst", script: readImage, want: tree + rest},
		{name: "ext4", flags: "-m image:IMG/ext4:DIR/dst", script: readImage, want: tree + "lost.found\n" + rest},
		{name: "two, at a place that is not there", flags: "-m image:IMG/zip.zip:DIR/dst/new/one -m image:IMG/squashfs:DIR/src/two -m tmpfs:DIR/src",
			script: `cmp DIR/dst/new/one/big DIR/src/two/big && cat DIR/dst/new/one/sub/deep`, want: "deep\n"},
		{name: "written to", flags: "-m image:IMG/squashfs:DIR/dst -m cow:DIR/up:DIR/dst",
			script: `cd DIR/dst; echo more >>file; rm hard; mkdir new; mv sub new; cat file; ls; cat new/sub/deep`, want: "content\nmore\nbig\nfile\nlink\nnew\nprogram\ndeep\n",
			after: `cat DIR/up/upper/file; ls DIR/dst`, left: "content\nmore\na\nb\n"},
		{name: "a program of an image", flags: "-m image:IMG/squashfs:DIR/path", script: "program", want: "ran DIR/path/program\n"},
	}
	for _, user := range []bool{false, true} {
		who := map[bool]string{false: "root", true: "user"}[user]
		for _, engine := range []string{"ns", "trap"} {
			for _, tc := range cases {
				tc.flags = strings.ReplaceAll(tc.flags, "IMG", images)
				t.Run(who+"/"+engine+"/"+tc.name, func(t *testing.T) { tc.run(t, w, user, engine) })
			}
		}
	}
	for name, c := range map[string]struct {
		flags, stderr string
		code          int
	}{
		"no image":  {"-m image:IMG/text:DIR/dst", "text:.*: neither squashfs, ext2 to ext4, FAT, iso9660, zip nor tar", 122},
		"cut off":   {"-m image:IMG/broken:DIR/dst", "broken: zip: .*not a valid zip file", 122},
		"writable":  {"-m image:IMG/zip.zip:DIR/dst:rw", "it is zip, and only ext2, ext3 and ext4, not compressed, can be written to\n.*-m cow:UPPER:", 122},
		"FAT":       {"-m image:IMG/fat:DIR/dst:rw", "it is fat12, and only ext2, ", 122},
		"a text":    {"-m image:IMG/text:DIR/dst:rw", "it is no image that umrun knows", 122},
		"directory": {"-m image:IMG/tree:DIR/dst", "is a directory", 122},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountTree(t, w, false)
			flags := strings.NewReplacer("IMG", images, "DIR", dir).Replace(c.flags)
			r := w.UmrunFlags(t, append(strings.Fields("-q -n none --fs-engine ns "+flags), "--", "true")...).Result()
			if r.Status != c.code || !regexp.MustCompile(c.stderr).MatchString(r.Stderr) {
				t.Errorf("want %d, %q; got %v", c.code, c.stderr, r)
			}
		})
	}
	w.NoStrays(t)
}
