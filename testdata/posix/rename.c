// SPDX-License-Identifier: Apache-2.0

// rename(2): each kind of file over each other, by every flag, over itself, into
// itself, and who sees it.
#include "posix.h"

static const char *kinds[] = { "file", "empty", "full", "link", "dirlink", "dangling", "fifo", "nothing", "hard" };

// make makes a thing of a kind under a name.
static void make(const char *kind, const char *name)
{
	char path[80];
	if (!strcmp(kind, "file")) // empty, or some file systems wait for the disk when it replaces another
		put(name, "");
	else if (!strcmp(kind, "empty"))
		need(mkdir(name, 0755), "mkdir");
	else if (!strcmp(kind, "full")) {
		need(mkdir(name, 0755), "mkdir");
		snprintf(path, sizeof path, "%s/in", name);
		put(path, "");
	} else if (!strcmp(kind, "link"))
		need(symlink("target", name), "symlink");
	else if (!strcmp(kind, "dirlink"))
		need(symlink("dir", name), "symlink");
	else if (!strcmp(kind, "dangling"))
		need(symlink("nowhere", name), "symlink");
	else if (!strcmp(kind, "fifo"))
		need(mkfifo(name, 0644), "mkfifo");
	else if (!strcmp(kind, "hard"))
		need(link("target", name), "link");
}

static void clear(const char *name)
{
	char path[80];
	snprintf(path, sizeof path, "%s/in", name);
	unlink(path);
	if (unlink(name) < 0)
		rmdir(name);
}

static void matrix(void)
{
	static const struct { unsigned f; const char *name; } flags[] = {
		{ 0, "" }, { RENAME_NOREPLACE, " NOREPLACE" }, { RENAME_EXCHANGE, " EXCHANGE" },
	};
	put("target", "t");
	mkdir("dir", 0755);
	for (int f = 0; f < LEN(flags); f++)
		for (int i = 0; i < LEN(kinds); i++)
			for (int j = 0; j < LEN(kinds); j++) {
				char s[200];
				make(kinds[i], "a");
				make(kinds[j], "b");
				long rc = renameat2(AT_FDCWD, "a", AT_FDCWD, "b", flags[f].f);
				snprintf(s, sizeof s, "%s, a %s, b %s", rc ? strerrorname_np(errno) : "ok", look("a"), look("b"));
				text(s, "%s over %s%s", kinds[i], kinds[j], flags[f].name);
				clear("a");
				clear("b");
			}
}

static void special(void)
{
	mkdir("d", 0755);
	mkdir("d/sub", 0755);
	mkdir("d/sub/subsub", 0755);
	mkdir("e", 0755);
	put("f", "f");
	put("g", "g");
	link("f", "same");
	symlink("d", "l");
	is(rename("f", "f"), "over itself");
	is(rename("f", "same"), "over another name of it");
	text(look("f"), "which both stay");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "f", RENAME_NOREPLACE), "NOREPLACE over itself");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "f", RENAME_EXCHANGE), "EXCHANGE with itself");
	is(rename("d", "d/in"), "into itself");
	is(rename("d", "d/sub/in"), "deeper into itself");
	is(rename("d", "d/sub"), "over what is in it");
	is(rename("d/sub", "d"), "over what it is in");
	is(rename("d/sub/subsub", "d"), "over what that is in");
	is(renameat2(AT_FDCWD, "d", AT_FDCWD, "d/sub", RENAME_EXCHANGE), "EXCHANGE with what is in it");
	is(renameat2(AT_FDCWD, "d/sub", AT_FDCWD, "d", RENAME_EXCHANGE), "EXCHANGE with what it is in");
	is(rename("l/sub", "d/moved"), "through a link");
	is(rename("d/moved", "l/sub"), "back through a link");
	is(rename(".", "x"), "the working directory");
	is(rename("d/.", "x"), "d/.");
	is(rename("d/..", "x"), "d/..");
	is(rename("e", "d/."), "to d/.");
	is(rename("e", "d/.."), "to d/..");
	is(rename("e", "."), "to .");
	is(rename("e", ".."), "to ..");
	is(rename("f", "e/"), "a file to a directory with a slash");
	is(rename("f", "new/"), "a file to nothing with a slash");
	is(rename("e", "new/"), "a directory to nothing with a slash");
	is(rename("new/", "e/"), "with two slashes");
	is(rename("l/", "m"), "a link with a slash");
	is(rename("e", "l"), "a directory over a link to one");
	is(rename("e", "l/"), "a directory over a link to one with a slash");
	is(rename("missing", "missing"), "nothing to nothing");
	is(rename("missing", "f"), "nothing over a file");
	is(rename("f", "missing/f"), "into nothing");
	is(rename("f", "g/f"), "into a file");
	is(rename("f", ""), "to an empty name");
	is(rename("", "f"), "an empty name");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "h", RENAME_NOREPLACE | RENAME_EXCHANGE), "NOREPLACE and EXCHANGE");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "h", 1 << 10), "unknown flag");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "missing", RENAME_EXCHANGE), "EXCHANGE with nothing");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_EXCHANGE), "EXCHANGE a file with a directory");
	text(look("d"), "d then");
	text(look("f"), "f then");
	text(look("f/sub"), "f/sub then");
	is(renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_EXCHANGE), "and back");
	int d = open("d", O_RDONLY | O_DIRECTORY), e = open("e", O_PATH | O_DIRECTORY);
	is(renameat(d, "sub", e, "sub"), "renameat between descriptors");
	text(look("e/sub/subsub"), "what came with it");
	is(renameat(e, "sub", d, "../back"), "renameat with ..");
	is(renameat2(d, "../f", e, "f", RENAME_NOREPLACE), "renameat2 with ..");
	text(give("e/f"), "which is");
}

// seen is what others see: descriptors, mappings and the names of directories.
static void seen(void)
{
	put("a", "of a");
	put("b", "of b");
	int fa = open("a", O_RDWR), fb = open("b", O_RDWR);
	char s[8] = "";
	is(rename("a", "b"), "over an open file");
	pread(fa, s, 7, 0);
	text(s, "the one that moved");
	pread(fb, s, 7, 0);
	text(s, "the one that went");
	struct stat st;
	fstat(fb, &st);
	num(st.st_nlink, "its links");
	pwrite(fa, "OF", 2, 0);
	text(give("b"), "written by its descriptor");
	text(look("a"), "the old name");
	mkdir("d", 0755);
	mkdir("e", 0755);
	mkdir("d/sub", 0755);
	put("d/sub/f", "deep");
	struct stat before, after;
	stat("d/sub", &before);
	int sub = open("d/sub", O_RDONLY | O_DIRECTORY);
	is(rename("d/sub", "e/sub"), "a directory to another");
	stat("e/sub", &after);
	yes(before.st_ino == after.st_ino && before.st_dev == after.st_dev, "which is the same");
	text(look("d"), "where it was");
	text(look("e"), "where it is");
	int fd = openat(sub, "f", O_RDONLY);
	is(fd, "what is in it, by its descriptor");
	is(openat(sub, "../sub/f", O_RDONLY), "above it, by its descriptor");
	text(give("e/sub/../sub/f"), "by the new name");
	is(rename("e/sub/f", "e/f"), "up");
	is(rename("e/f", "d/f"), "across");
	text(give("d/f"), "which is");
	// A name that is there all the time, though it is replaced all the time.
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		for (int i = 0; i < 60; i++) {
			put("next", i % 2 ? "odd" : "even");
			need(rename("next", "d/f"), "rename");
		}
		_exit(0);
	}
	int lost = 0, torn = 0, status;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		const char *is = give("d/f");
		lost += !is;
		torn += is && strcmp(is, "odd") && strcmp(is, "even") && strcmp(is, "deep");
	}
	num(lost, "times that it was not there");
	num(torn, "times that it was half there");
	// Two who exchange names, and one who looks that both are there.
	put("x", "1");
	put("y", "2");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 300; i++)
			need(renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_EXCHANGE), "exchange");
		_exit(0);
	}
	lost = 0;
	while (waitpid(pid, &status, WNOHANG) == 0)
		lost += access("x", F_OK) || access("y", F_OK);
	num(lost, "times that one was not there");
}

void rename_cases(void)
{
	group("rename", matrix);
	group("renames", special);
	group("replace", seen);
}
