// SPDX-License-Identifier: Apache-2.0

// chroot(2): the tree of a process whose root is a directory of this one.
#include "posix.h"

static void inside(void)
{
	mkdir("root", 0755);
	mkdir("root/d", 0755);
	mkdir("root/etc", 0755);
	put("root/f", "inner");
	put("root/etc/motd", "inner motd");
	put("f", "outer");
	symlink("/f", "root/abs");
	symlink("../../f", "root/d/up");
	symlink("/etc/motd", "root/d/motd");
	int out = open(".", O_RDONLY | O_DIRECTORY);
	is(chroot("root/f"), "chroot to a file");
	is(chroot("missing"), "chroot to nothing");
	if (is(chroot("root"), "chroot"))
		return;
	text(where(), "getcwd outside");
	text(give("f"), "relative, outside");
	text(give("/f"), "absolute");
	text(give("/../f"), "above");
	text(give("root/abs"), "by an absolute link, from outside");
	is(chdir("/"), "chdir /");
	text(where(), "getcwd inside");
	text(give("f"), "relative, inside");
	text(give("../f"), "above, inside");
	text(give("abs"), "by an absolute link");
	text(give("d/up"), "by a link above");
	text(give("d/motd"), "by a link into /etc");
	chdir("d");
	text(where(), "getcwd below");
	text(give("../../../f"), "far above");
	is(open("/etc/passwd", O_RDONLY), "what is not in it");
	is(open("/proc/self/exe", O_RDONLY), "/proc, which is not in it");
	put("/made", "x");
	text(look("/made"), "what was made");
	is(rename("/made", "/d/made"), "rename");
	is(mkdir("/d/sub", 0755), "mkdir");
	is(chroot("/d"), "chroot again");
	text(give("/made"), "absolute, then");
	text(give("/../f"), "above, then");
	is(fchdir(out), "fchdir outside");
	text(give("f"), "what is there");
	text(where(), "where that is");
	text(give("root/d/../f"), "from there");
	is(chroot("."), "chroot there");
	text(give("/f"), "absolute at last");
	text(look("/root/d/made"), "what was made, from there");
}

void chroot_cases(void)
{
	group("chroot", inside);
}
