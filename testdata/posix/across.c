// SPDX-License-Identifier: Apache-2.0

// Two directories on two mounts: what goes from one to the other, and what does not.
#include "posix.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>

static char out[PATH_MAX]; // a directory of ours, outside

static const char *beyond(const char *name)
{
	static char turn[4][2 * PATH_MAX];
	static int i;
	char *s = turn[i++ % LEN(turn)];
	snprintf(s, sizeof turn[0], "%s/%s", out, name);
	return s;
}

static void setup(void)
{
	snprintf(out, sizeof out, "%s/across", outside);
	if (mkdir(out, 0755) && errno != EEXIST)
		need(-1, "mkdir outside");
}

static void names(void)
{
	setup();
	put("in", "inside");
	mkdir("d", 0755);
	put("d/f", "of d");
	put(beyond("out"), "outside");
	mkdir(beyond("e"), 0755);
	put(beyond("e/f"), "of e");
	int dirin = open(".", O_RDONLY | O_DIRECTORY), dirout = open(out, O_RDONLY | O_DIRECTORY);
	is(rename("in", beyond("in")), "rename out");
	is(rename(beyond("out"), "out"), "rename in");
	is(rename("d", beyond("d")), "rename a directory out");
	is(rename(beyond("e"), "e"), "rename a directory in");
	is(rename("in", beyond("out")), "rename out over a file");
	is(rename("d", beyond("out")), "rename a directory out over a file");
	is(rename("missing", beyond("out")), "rename nothing out");
	is(rename("in", beyond("missing/x")), "rename out into nothing");
	is(renameat2(AT_FDCWD, "in", AT_FDCWD, beyond("out"), RENAME_EXCHANGE), "exchange");
	is(renameat2(AT_FDCWD, "in", AT_FDCWD, beyond("new"), RENAME_NOREPLACE), "rename out, NOREPLACE");
	is(renameat(dirin, "in", dirout, "in"), "renameat out");
	is(link("in", beyond("in")), "link out");
	is(link(beyond("out"), "out"), "link in");
	is(link("missing", beyond("in")), "link nothing out");
	is(link("in", beyond("out")), "link out over a file");
	is(linkat(dirout, "out", dirin, "out", 0), "linkat in");
	is(symlink(beyond("out"), "tofile"), "symlink out");
	is(symlink(within("in"), beyond("tofile")), "symlink in");
	symlink(beyond("e"), "todir");
	symlink(within("d"), beyond("todir"));
	symlink(beyond("todir/f"), "there-and-back");
	symlink(beyond("missing"), "tonothing");
	symlink(beyond("loop"), "loop");
	symlink(within("loop"), beyond("loop"));
	text(give("tofile"), "read by a link out");
	text(give(beyond("tofile")), "read by a link in");
	text(give("todir/f"), "read below a link out");
	text(give(beyond("todir/f")), "read below a link in");
	text(give("todir/../out"), "above a link out");
	text(give(beyond("todir/../in")), "above a link in");
	text(give("there-and-back"), "there and back");
	text(give("loop"), "a loop of both");
	is(open("tofile", O_RDONLY | O_NOFOLLOW), "a link out, O_NOFOLLOW");
	put("tonothing", "made");
	text(give(beyond("missing")), "made by a link out");
	is(link("todir/f", beyond("e/hard")), "link by a link out, on one side");
	is(rename("todir/hard", beyond("e/moved")), "rename by a link out, on one side");
	is(rename("todir/moved", "moved"), "rename by a link out, to the other");
	is(unlink("todir/moved"), "unlink by a link out");
	is(mkdir("todir/sub", 0755), "mkdir by a link out");
	text(look(beyond("e/sub")), "which is");
	is(rmdir(beyond("e/sub")), "rmdir of it");
	is(chmod("tofile", 0600), "chmod by a link out");
	text(look(beyond("out")), "which is then");
	is(truncate(beyond("tofile"), 3), "truncate by a link in");
	text(give("in"), "which leaves");
	struct stat a, b;
	stat("in", &a), stat(beyond("out"), &b);
	yes(a.st_dev != b.st_dev || a.st_ino != b.st_ino, "two files");
	yes(same(within("in"), "in"), "one file by two paths");
	int fd = openat(dirout, "out", O_RDONLY);
	is(fd, "openat outside");
	is(openat(dirout, within("in"), O_RDONLY), "openat outside, absolute inside");
	is(openat(dirin, beyond("out"), O_RDONLY), "openat inside, absolute outside");
	is(openat(dirout, "todir/f", O_RDONLY), "openat outside, by a link in");
	is(openat(dirin, "todir/f", O_RDONLY), "openat inside, by a link out");
	static char by[80];
	snprintf(by, sizeof by, "/proc/self/fd/%d/todir/f", dirout);
	text(give(by), "by /proc/self/fd and a link in");
	int w = open("copy", O_CREAT | O_RDWR, 0644);
	num(sendfile(w, fd, NULL, 100), "sendfile in");
	text(give("copy"), "what came");
	int r = open("copy", O_RDONLY);
	w = open(beyond("copy"), O_CREAT | O_RDWR, 0644);
	num(sendfile(w, r, NULL, 100), "sendfile out");
	text(give(beyond("copy")), "what went");
}

static void roots(void)
{
	setup();
	put(beyond("mark"), "outside");
	is(chdir(base), "chdir to the mount");
	text(where(), "getcwd");
	struct stat a, b;
	stat(".", &a), stat(base, &b);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, ". is the mount");
	stat("..", &b);
	yes(a.st_ino != b.st_ino || a.st_dev != b.st_dev, ".. is not");
	char up[PATH_MAX];
	snprintf(up, sizeof up, "%s/..", base);
	stat(up, &a);
	yes(a.st_ino == b.st_ino && a.st_dev == b.st_dev, ".. of both is one");
	DIR *d = opendir("..");
	const char *last = strrchr(base, '/') + 1;
	int found = 0, unlike = 0;
	for (struct dirent *e; d && (e = readdir(d));)
		if (!strcmp(e->d_name, last))
			found++, unlike += e->d_type != DT_DIR && e->d_type != DT_UNKNOWN;
	num(found, "its name is in .. so often");
	num(unlike, "and no directory there");
	int fd = open(".", O_RDONLY | O_DIRECTORY);
	char back[PATH_MAX];
	snprintf(back, sizeof back, "../%s/roots", last);
	is(access(back, F_OK), "there and back by ..");
	is(faccessat(fd, back, F_OK, 0), "from a descriptor");
	is(chdir(".."), "chdir ..");
	is(access(last, F_OK), "the mount from there");
	is(chdir(last), "chdir back");
	text(where(), "getcwd after that");
	is(rmdir(base), "rmdir of the mount");
	snprintf(back, sizeof back, "%s-moved", base);
	is(rename(base, back), "rename of the mount");
	is(rename(within(""), base), "rename over the mount");
	is(unlink(base), "unlink of the mount");
	is(mkdir(base, 0755), "mkdir of the mount");
	is(open(base, O_CREAT | O_RDWR, 0644), "O_CREAT of the mount");
	is(symlink("x", base), "symlink at the mount");
	is(link(base, back), "link of the mount");
	is(renameat2(AT_FDCWD, base, AT_FDCWD, within(""), RENAME_EXCHANGE), "exchange with the mount");
	is(chdir(within("")), "chdir inside");
	symlink(out, "link");
	symlink(within(""), beyond("back"));
	is(chdir("link"), "chdir through a link out");
	text(where(), "getcwd there");
	text(give("mark"), "read there");
	is(chdir("back"), "chdir through a link in");
	text(where(), "getcwd here");
	is(chdir("link/back/link"), "chdir through three");
	text(where(), "getcwd at their end");
	chdir(within(""));
	put("f", "x");
	symlink(within("f"), beyond("f"));
	char *real = realpath("link/f", NULL);
	text(real, "realpath there and back");
	text(realpath("link/../across/mark", NULL), "realpath above a link");
	text(realpath("link/missing", NULL), "realpath of nothing");
	snprintf(back, sizeof back, "../../%s/roots/f", last);
	text(realpath(back, NULL), "realpath above the mount");
	chdir(out);
	text(linked("/proc/self/cwd"), "/proc/self/cwd outside");
	FILE *p = popen("pwd -P; cat back/f", "r");
	char s[PATH_MAX + 40] = "";
	s[fread(s, 1, sizeof s - 1, p)] = 0;
	pclose(p);
	text(s, "a shell outside");
	snprintf(s, sizeof s, "cp -a %s/. copied && mv %s/f moved && ls copied && cat moved && test ! -e %s/f", within(""), within(""), within(""));
	p = popen(s, "r");
	s[fread(s, 1, sizeof s - 1, p)] = 0;
	num(pclose(p), "cp and mv");
	text(s, "what they leave");
	struct statfs x, y;
	statfs(base, &x), statfs(within(""), &y);
	yes(x.f_type == y.f_type && x.f_blocks == y.f_blocks, "statfs of the mount is that of what is in it");
}

void across_cases(void)
{
	group("across", names);
	group("roots", roots);
}
