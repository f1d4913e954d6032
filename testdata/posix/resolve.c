// SPDX-License-Identifier: Apache-2.0

// The ways that a path may take: links to the right and to the root, chains and loops
// of them, "..", deep trees that no path reaches at once, and a directory that is moved
// or removed while somebody is in it.
#include "posix.h"
#include <dirent.h>
#include <sched.h>
#include <pthread.h>

static void links(void)
{
	mkdir("d", 0755);
	mkdir("d/e", 0755);
	put("f", "top");
	put("d/f", "of d");
	put("d/e/f", "of e");
	static const struct { const char *name, *to; } made[] = {
		{ "rel", "d/f" }, { "up", "d/../f" }, { "d/up", "../f" }, { "d/e/upup", "../../f" }, { "d/e/through", "../up" },
		{ "dir", "d" }, { "dirslash", "d/" }, { "dot", "." }, { "d/dotdot", ".." }, { "fslash", "f/" }, { "many", ".//d///./e//f" },
		{ "deep", "dir/e/upup" }, { "a", "b" }, { "b", "a" }, { "d/self", "../d/self" }, { "toward", "dangling/f" }, { "proc", "/proc/self/cwd/f" },
		{ "spaces", "a name with spaces" },
	};
	for (int i = 0; i < LEN(made); i++)
		need(symlink(made[i].to, made[i].name), "symlink");
	put("a name with spaces", "spaces");
	need(symlink(within("d/f"), "abs"), "symlink");
	need(symlink(within("rel"), "absrel"), "symlink");
	need(symlink(within("dir"), "absdir"), "symlink");
	need(symlink(within("missing"), "absdangling"), "symlink");
	static const char *read[] = {
		"rel", "up", "d/up", "d/e/upup", "d/e/through", "dir/f", "dirslash/f", "dot/f", "d/dotdot/f", "fslash", "many", "deep", "a", "b",
		"d/self", "toward", "proc", "spaces", "abs", "absrel", "absdir/f", "absdangling", "dir/../f", "dir/e/../f", "dir/e/../../f", "dirslash/e/../up",
		"d/dotdot/d/dotdot/d/f", "absdir/../f", "dot/dot/dot/f", "rel/", "rel/.", "rel/..", "dir/.", "d/e/../e/./f", "d//..//f", "../link/f",
		"d/missing/../f", "f/../f", "dangling/../f",
	};
	for (int i = 0; i < LEN(read); i++)
		text(give(read[i]), "%s", read[i]);
	is(symlink("", "none"), "an empty link");
	char big[PATH_MAX + 1];
	memset(big, 'x', PATH_MAX);
	big[PATH_MAX] = 0;
	is(symlink(big, "big"), "a link of 4096");
	big[PATH_MAX - 1] = 0;
	is(symlink(big, "big"), "a link of 4095");
	char back[PATH_MAX];
	num(readlink("big", back, sizeof back), "and how much is told");
	num(readlink("big", back, 10), "told into ten bytes");
	num(readlink("rel", back, 0), "told into none");
	is(open("big", O_RDONLY), "open it");
	for (int i = 0; i + 2 < PATH_MAX; i += 2)
		memcpy(big + i, "./", 2);
	memcpy(big + PATH_MAX - 2, "f", 2);
	symlink(big, "long");
	text(give("long"), "a link of 4095 that leads to a file");
	struct stat st;
	lstat("rel", &st);
	num(st.st_size, "size of a link");
	lstat("big", &st);
	num(st.st_size, "size of a long link");
}

// creates makes files through links.
static void creates(void)
{
	mkdir("d", 0755);
	symlink("d/made", "l");
	symlink("missing/made", "none");
	symlink("l", "chain");
	symlink("d/", "dslash");
	symlink("new/", "newslash");
	is(open("l", O_CREAT | O_EXCL | O_WRONLY, 0644), "O_EXCL through a link to nothing");
	is(open("l", O_CREAT | O_NOFOLLOW | O_WRONLY, 0644), "O_NOFOLLOW through a link to nothing");
	is(open("chain", O_CREAT | O_WRONLY, 0644), "O_CREAT through two links");
	text(look("d/made"), "where it is");
	is(open("none", O_CREAT | O_WRONLY, 0644), "O_CREAT through a link to a missing directory");
	is(open("newslash", O_CREAT | O_WRONLY, 0644), "O_CREAT through a link with a slash");
	is(mkdir("newslash", 0755), "mkdir of a link with a slash");
	is(mkdir("newslash/", 0755), "mkdir of a link with a slash, and a slash");
	is(mkdir("fresh/", 0755), "mkdir with a slash");
	is(mkdir("fresh2/.", 0755), "mkdir with a dot");
	is(mkdir("dslash/in", 0755), "mkdir through a link");
	text(look("d/in"), "where it is now");
	is(mkdir("l", 0755), "mkdir of a link");
	is(open("file/", O_CREAT | O_WRONLY, 0644), "O_CREAT with a slash");
	is(open("d/", O_CREAT | O_RDWR, 0644), "O_CREAT of a directory with a slash");
	is(open("d/.", O_CREAT | O_RDWR, 0644), "O_CREAT of a dot");
	is(open("missing/.", O_CREAT | O_RDWR, 0644), "O_CREAT of a dot in nothing");
	is(symlink("x", "slash/"), "symlink with a slash");
	is(link("d/made", "slash/"), "link with a slash");
	is(mkfifo("slash/", 0644), "mkfifo with a slash");
	is(unlink("chain/"), "unlink a link to a file with a slash");
	is(unlink("dslash/"), "unlink a link to a directory with a slash");
	is(rmdir("dslash"), "rmdir of a link to a directory");
	is(rmdir("dslash/"), "rmdir of it with a slash");
	is(rename("dslash/", "moved"), "rename a link with a slash");
	is(rename("d/in/", "moved/"), "rename a directory with slashes");
	text(look("moved"), "where it went");
	is(rename("d/made/", "file"), "rename a file with a slash");
	is(rename("d/made", "file/"), "rename a file to a slash");
}

// deep goes down a tree that is longer than a path, and comes back.
static void deep(void)
{
	char name[201], path[PATH_MAX];
	memset(name, 'd', 200);
	name[200] = 0;
	int depth = 0;
	for (; depth < 30; depth++)
		if (mkdir(name, 0755) || chdir(name))
			break;
	num(depth, "depth");
	int made = is(open("bottom", O_CREAT | O_WRONLY, 0644), "make a file there");
	write(made, "found", 5);
	close(made);
	text(give("bottom"), "a file there");
	text(syscall(SYS_getcwd, path, sizeof path) < 0 ? NULL : "told", "getcwd");
	is(open(within("x"), O_RDONLY), "an absolute path from there");
	text(give("../../../../../../../../../../../../../../../../../../../../../../../../../../../../../../deep-f"), "all the way up, nothing");
	int fd = open(".", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < depth; i++)
		if (chdir(".."))
			is(-1, "chdir up %d", i);
	yes(same(".", within(".")), "up again");
	int b = openat(fd, "bottom", O_RDONLY);
	is(b, "openat of the descriptor of the bottom");
	is(unlinkat(fd, "bottom", 0), "unlinkat there");
	is(fchdir(fd), "fchdir there");
	for (int i = 0; i < depth; i++) {
		need(chdir(".."), "chdir");
		need(rmdir(name), "rmdir");
	}
	yes(same(".", within(".")), "all removed");
}

static void cwd(void)
{
	char small[4];
	mkdir("d", 0755);
	mkdir("d/e", 0755);
	put("d/f", "of d");
	put("f", "top");
	symlink("d/e", "l");
	text(where(), "getcwd");
	text(linked("/proc/self/cwd"), "/proc/self/cwd");
	is(syscall(SYS_getcwd, small, sizeof small), "getcwd into four bytes");
	is(syscall(SYS_getcwd, small, 0), "getcwd into none");
	is(syscall(SYS_getcwd, bad, PATH_MAX), "getcwd to a bad address");
	num(syscall(SYS_getcwd, (char[PATH_MAX]){ 0 }, PATH_MAX) - (long)strlen(within("")), "what getcwd returns");
	is(chdir("l"), "chdir through a link");
	text(where(), "getcwd there");
	text(linked("/proc/self/cwd"), "/proc/self/cwd there");
	text(give("../f"), "the file above");
	is(chdir(".."), "chdir ..");
	text(where(), "getcwd above");
	int fd = open("..", O_RDONLY | O_DIRECTORY);
	is(fchdir(fd), "fchdir");
	text(where(), "getcwd after fchdir");
	is(chdir("/"), "chdir /");
	text(where(), "getcwd of the root");
	is(chdir(".."), "chdir above the root");
	text(where(), "getcwd above the root");
	is(chdir(within("d/../d/./e//")), "chdir by a crooked path");
	text(where(), "getcwd of it");
	is(rename(within("d"), within("moved")), "rename a directory above");
	text(where(), "getcwd after that");
	text(give("../f"), "a file after that");
	is(open(within("d/f"), O_RDONLY), "by the old name");
	fchdir(fd);
	mkdir("gone", 0755);
	chdir("gone");
	is(rmdir("../gone"), "rmdir of the working directory");
	text(where(), "getcwd in what is gone");
	is(open("x", O_CREAT | O_RDWR, 0644), "create in what is gone");
	is(mkdir("x", 0755), "mkdir in what is gone");
	is(open(".", O_RDONLY), "open . of what is gone");
	text(give("../f"), "above what is gone");
	struct stat st;
	is(stat(".", &st), "stat what is gone");
	num(st.st_nlink, "its links");
	DIR *list = opendir(".");
	int n = 0;
	while (list && readdir(list))
		n++;
	num(n, "names in what is gone");
	text(linked("/proc/self/cwd"), "/proc/self/cwd in what is gone");
	fchdir(fd);
	mkdir("barred", 0);
	is(chdir("barred"), "chdir where one may not search");
	fchdir(fd);
	int in = open("moved", O_RDONLY | O_DIRECTORY);
	chmod("moved", 0);
	is(openat(in, "f", O_RDONLY), "openat where one may no longer search");
	is(fchdir(in), "fchdir there");
	chmod("moved", 0644);
	is(stat("moved/f", &st), "stat where one may only read");
	is(open("moved", O_RDONLY), "open it");
	chmod("moved", 0311);
	text(give("moved/f"), "read a file where one may only search");
	is(open("moved", O_RDONLY), "open that");
	chmod("moved", 0755);
}

static void *elsewhere(void *p)
{
	int *fd = p;
	unshare(CLONE_FS);
	*fd = chdir("d") ? -1 : open("f", O_RDONLY);
	return NULL;
}

static void *shared(void *p)
{
	chdir("d");
	return NULL;
}

static void threads(void)
{
	mkdir("d", 0755);
	put("d/f", "of d");
	put("f", "top");
	pthread_t t;
	int fd = -1;
	char s[8] = "";
	pthread_create(&t, NULL, elsewhere, &fd);
	pthread_join(t, NULL);
	num(read(fd, s, sizeof s), "a thread in a directory of its own");
	text(s, "what it reads");
	text(give("f"), "what the others read");
	text(where(), "where the others are");
	pthread_create(&t, NULL, shared, NULL);
	pthread_join(t, NULL);
	text(give("f"), "after a thread that shares it has moved");
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		text(where(), "where a child is");
		chdir("..");
		text(give("f"), "what it reads above");
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	text(give("f"), "what its parent reads after that");
}

void resolve_cases(void)
{
	group("link", links);
	group("create", creates);
	group("deep", deep);
	group("cwd", cwd);
	group("thread", threads);
}
