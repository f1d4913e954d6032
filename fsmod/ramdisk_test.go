// SPDX-License-Identifier: Apache-2.0

// Ramdisks, used by the programs that use disks.

package fsmod_test

import (
	"os"
	"testing"

	"umrun/fsmod"
)

func TestRamdisk(t *testing.T) {
	const disk = "/dev/umrun-test-disk"
	for _, tc := range []struct{ name, script, want string }{
		{"size", "blockdev --getsize64 --getsz --getss --getpbsz --getbsz --getro " + disk, "8388608\n16384\n512\n512\n4096\n0\n"},
		{"flush", "blockdev --flushbufs " + disk + " && echo fine", "fine\n"},
		{"no such", "blockdev --rereadpt " + disk + " 2>&1", "blockdev: ioctl error on BLKRRPART: Inappropriate ioctl for device\n"},
		{"fixed", "head -c 9000000 /dev/zero | dd of=" + disk + " bs=1M status=none 2>/dev/null || echo refused; blockdev --getsize64 " + disk, "refused\n8388608\n"},
		{"content", "echo hello >" + disk + "; head -c 6 " + disk + "; : >" + disk + "; head -c 6 " + disk, "hello\nhello\n"},
		{"discard", "echo hello >" + disk + "; /usr/bin/python3 -c 'import fcntl, struct; fcntl.ioctl(open(\"" + disk + "\", \"r+b\"), 0x1277, struct.pack(\"QQ\", 0, 4096))'; head -c 6 " + disk + " | od -An -c | tr -s ' '", " \\0 \\0 \\0 \\0 \\0 \\0\n"},
		{"fstat", "/usr/bin/python3 -c 'import os, stat; s = os.fstat(os.open(\"" + disk + "\", 0)); print(stat.S_ISBLK(s.st_mode), os.major(s.st_rdev), s.st_size); print(stat.S_ISBLK(os.fstat(os.open(\"/etc/passwd\", 0)).st_mode))'", "True 60 0\nFalse\n"},
		{"stat of what is open", "stat -L -c '%F %t %a %s' - <" + disk + "; stat -c %F - <.", "block special file 3c 660 0\ndirectory\n"},
		{"no -F", "mkfs.ext4 -q " + disk + " 2>/dev/null && mkfs.vfat " + disk + " >/dev/null && wipefs " + disk + " | grep -o vfat | head -1", "vfat\n"},
		{"of the host", "blockdev --getsize64 /dev/null 2>&1", "blockdev: ioctl error on BLKGETSIZE64: Inappropriate ioctl for device\n"},
		{"mkfs", "mkfs.ext4 -q -F " + disk + " 2>/dev/null && echo kept >f && debugfs -w -R 'write f g' " + disk + " >/dev/null 2>&1; e2fsck -fn " + disk + " >/dev/null 2>&1; echo $?; debugfs -R 'cat g' " + disk + " 2>/dev/null", "0\nkept\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
			d, err := fsmod.NewDisk("disk", 8<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if got := runWith(t, fsmod.Config{Devices: map[string]fsmod.Device{disk: d}}, "sh", "-c", tc.script); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if d, err := fsmod.NewDisk("disk", 1000); err == nil {
		d.Close()
		t.Error("a disk that ends within a sector was made")
	}
}
