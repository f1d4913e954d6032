// SPDX-License-Identifier: Apache-2.0

// Programs in the tree: by every name, with an interpreter or a loader that is in it
// too, and what is none.
#include "posix.h"
#include <elf.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/sendfile.h>

#define TOLD "POSIX_TELL"

// exec_child tells what an executed program sees.
void exec_child(int argc, char **argv)
{
	if (!getenv(TOLD))
		return;
	const char *exe = linked("/proc/self/exe");
	printf("args");
	for (int i = 0; i < argc; i++)
		printf(" [%s]", argv[i]);
	printf(" exe %s", exe ? exe : "none");
	printf(" cwd %s", where());
	if (getenv("MORE"))
		printf(" env %s", getenv("MORE"));
	exit(0);
}

// How a program is executed.
static const char *how_path;
static int how_fd, how_flags;
static char *how_args[8];

static void copy(const char *from, const char *to, int mode)
{
	int in = need(open(from, O_RDONLY), "open"), out = need(open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755), "create");
	struct stat st;
	fstat(in, &st);
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = need(sendfile(out, in, NULL, left), "sendfile");
		left -= n;
	}
	fchmod(out, mode);
	close(in);
	close(out);
}

static char *environment[] = { TOLD "=1", "MORE=value", "PATH=/usr/bin:/bin", NULL };

// said runs the program, and returns what it said or the errno's name.
static const char *said(void)
{
	static char out[4096];
	int p[2], status = 0;
	need(pipe(p), "pipe");
	fflush(stdout);
	pid_t pid = need(fork(), "fork");
	if (!pid) {
		alarm(10);
		close(p[0]);
		if (p[1] != 1) {
			dup2(p[1], 1);
			close(p[1]);
		}
		dup2(1, 2);
		if (how_path && how_fd == AT_FDCWD && !how_flags)
			execve(how_path, how_args, environment);
		else
			syscall(SYS_execveat, how_fd, how_path ? how_path : "", how_args, environment, how_flags);
		dprintf(1, "%s", strerrorname_np(errno));
		_exit(0);
	}
	close(p[1]);
	int n = 0;
	for (ssize_t got; n < (int)sizeof out - 40 && (got = read(p[0], out + n, sizeof out - 40 - n)) > 0;)
		n += got;
	close(p[0]);
	waitpid(pid, &status, 0);
	out[n] = 0;
	if (status)
		snprintf(out + n, 40, " %s %d", WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return out;
}

// run executes a path with up to two arguments; at is as execveat(2) has it.
static const char *runat(int at, const char *path, int flags, const char *a1, const char *a2)
{
	how_fd = at, how_path = path, how_flags = flags;
	how_args[0] = "name", how_args[1] = (char *)a1, how_args[2] = (char *)(a1 ? a2 : NULL), how_args[3] = NULL;
	return said();
}

static const char *run(const char *path, const char *a1) { return runat(AT_FDCWD, path, 0, a1, NULL); }

static void script(const char *name, const char *content)
{
	put(name, content);
	chmod(name, 0755);
}

static void binaries(void)
{
	mkdir("d", 0755);
	copy("/proc/self/exe", "prog", 0755);
	symlink("prog", "l");
	symlink("nowhere", "dangling");
	link("prog", "hard");
	text(run("prog", "one"), "relative");
	text(run("./prog", NULL), "with a dot");
	text(run(within("prog"), NULL), "absolute");
	text(run("l", NULL), "by a link");
	text(run("hard", NULL), "by another name");
	text(run("d/../prog", NULL), "by a crooked path");
	text(run("dangling", NULL), "a link to nothing");
	text(run("missing", NULL), "nothing");
	text(run("d", NULL), "a directory");
	text(run("prog/x", NULL), "below a file");
	text(run("prog/", NULL), "with a slash");
	text(run("", NULL), "an empty path");
	chdir("d");
	text(run("../prog", NULL), "from a directory");
	chdir("..");
	int dir = open("d", O_RDONLY | O_DIRECTORY), fd = open("prog", O_RDONLY | O_CLOEXEC), path = open("prog", O_PATH | O_CLOEXEC), lfd = open("l", O_PATH | O_NOFOLLOW);
	text(runat(dir, "../prog", 0, "a", "b"), "execveat");
	text(runat(dir, "../prog", AT_SYMLINK_NOFOLLOW, NULL, NULL), "execveat without links");
	text(runat(dir, "../l", AT_SYMLINK_NOFOLLOW, NULL, NULL), "execveat of a link without links");
	text(runat(fd, "", AT_EMPTY_PATH, NULL, NULL), "execveat of a descriptor");
	text(runat(path, "", AT_EMPTY_PATH, NULL, NULL), "execveat of O_PATH");
	text(runat(lfd, "", AT_EMPTY_PATH, NULL, NULL), "execveat of a link's descriptor");
	text(runat(fd, "", 0, NULL, NULL), "execveat of nothing");
	text(runat(dir, "../prog", 1 << 20, NULL, NULL), "execveat with an unknown flag");
	text(runat(dir, "", AT_EMPTY_PATH, NULL, NULL), "execveat of a directory's descriptor");
	char by[40];
	snprintf(by, sizeof by, "/proc/self/fd/%d", fd);
	text(run(by, NULL), "by /proc/self/fd");
	text(run("/proc/self/exe", NULL) ? "told" : NULL, "by /proc/self/exe");
	for (int mode = 0; mode < 0200; mode = mode ? mode << 3 : 1) {
		chmod("prog", mode | 0400);
		text(run("prog", NULL), "mode %o", mode | 0400);
	}
	chmod("prog", 0111);
	yes(!strncmp(run("prog", NULL), "args", 4), "one that may only be executed");
	chmod("prog", 0755);
	put("text", "no program\n");
	put("none", "");
	mkfifo("fifo", 0755);
	chmod("text", 0755), chmod("none", 0755);
	text(run("text", NULL), "text");
	text(run("none", NULL), "an empty file");
	text(run("fifo", NULL), "a fifo");
	copy("/proc/self/exe", "short", 0755);
	truncate("short", 40);
	text(run("short", NULL), "the start of a program");
	int w = open("hard", O_WRONLY);
	text(run("prog", NULL), "while it is open for writing");
	close(w);
	text(run("prog", NULL), "and no longer");
	rename("prog", "moved");
	text(run("moved", NULL), "after rename");
	unlink("moved"), unlink("hard");
	text(runat(fd, "", AT_EMPTY_PATH, NULL, NULL), "by a descriptor, after unlink");
	how_args[0] = "x", how_args[1] = NULL;
	is(execve("d", bad, environment), "arguments at a bad address");
	is(execve(bad, how_args, environment), "path at a bad address");
}

static void scripts(void)
{
	char line[2 * PATH_MAX];
	mkdir("bin", 0755);
	copy("/proc/self/exe", "bin/prog", 0755);
	script("sh", "#!/bin/sh\necho \"sh $0 $*\"");
	text(run("sh", "one"), "by /bin/sh");
	text(run("./sh", "one"), "by /bin/sh with a dot");
	text(run(within("sh"), "one"), "by /bin/sh, absolute");
	text(runat(AT_FDCWD, "sh", 0, "two words", "three"), "with arguments");
	script("spaces", "#!  /bin/sh   -e  \necho \"$-\" | grep -c e");
	text(run("spaces", NULL), "with an argument");
	script("rel", "#!bin/prog an argument\n");
	text(run("rel", "one"), "by a relative interpreter");
	snprintf(line, sizeof line, "#!%s a b \n", within("bin/prog"));
	script("abs", line);
	text(run("abs", "one"), "by an absolute interpreter");
	symlink("abs", "l");
	text(run("l", "one"), "by a link");
	script("nolf", "#!bin/prog");
	text(run("nolf", NULL), "without a line's end");
	script("missing", "#!bin/missing\n");
	text(run("missing", NULL), "by a missing interpreter");
	script("empty", "#!\n");
	text(run("empty", NULL), "by none");
	script("blank", "#!   \n");
	text(run("blank", NULL), "by spaces");
	script("dir", "#!bin\n");
	text(run("dir", NULL), "by a directory");
	put("bin/plain", "x");
	script("plain", "#!bin/plain\n");
	text(run("plain", NULL), "by a file of no mode");
	script("below", "#!bin/prog/x\n");
	text(run("below", NULL), "by what is below a file");
	script("second", "#!rel\n");
	text(run("second", "one"), "by a script");
	char name[8], content[40];
	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof name, "c%d", i);
		if (i)
			snprintf(content, sizeof content, "#!c%d\n", i - 1);
		script(name, i ? content : "#!bin/prog\n");
		text(run(name, NULL), "a chain of %d", i + 1);
	}
	script("self", "#!self\n");
	text(run("self", NULL), "by itself");
	memset(line, ' ', 300);
	memcpy(line, "#!bin/prog", 10);
	strcpy(line + 300, "\n");
	script("wide", line);
	text(run("wide", NULL), "a line of 300");
	memset(line, 'x', 300);
	memcpy(line, "#!bin/", 6);
	script("wide2", line);
	text(run("wide2", NULL), "an interpreter of 300");
	chmod("sh", 0644);
	text(run("sh", NULL), "of no mode");
	chmod("sh", 0755);
	int dir = open(".", O_RDONLY | O_DIRECTORY), shut = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = open("sh", O_RDONLY), cfd = open("sh", O_RDONLY | O_CLOEXEC);
	yes(!!strstr(runat(dir, "sh", 0, "one", NULL), "/sh one"), "execveat");
	text(runat(shut, "sh", 0, NULL, NULL), "execveat of what closes");
	yes(!strncmp(runat(fd, "", AT_EMPTY_PATH, "one", NULL), "sh /dev/fd/", 11), "execveat of a descriptor");
	text(runat(cfd, "", AT_EMPTY_PATH, NULL, NULL), "execveat of a descriptor that closes");
	chdir("bin");
	text(run("../rel", NULL), "by a relative interpreter, from elsewhere");
	text(run("../abs", NULL), "by an absolute one, from elsewhere");
	chdir("..");
	script("bin/cmd", "#!/bin/sh\necho \"found $0 $1\"");
	snprintf(line, sizeof line, "PATH=%s; cmd one; command -v cmd", within("bin"));
	how_args[1] = "-c", how_args[2] = line, how_args[3] = NULL;
	how_path = "/bin/sh", how_fd = AT_FDCWD, how_flags = 0;
	text(said(), "found by a shell");
	snprintf(line, sizeof line, "cd bin && ./cmd two && cd .. && pwd && . ./sourced && cat sourced >copy && test -s copy && echo copied; ls bin; echo */prog");
	script("sourced", "echo sourced\n");
	text(said(), "what a shell does");
	pid_t pid;
	int status = -1;
	char *args[] = { "spawned", NULL };
	fflush(stdout);
	posix_spawn_file_actions_t acts;
	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_addopen(&acts, 1, "out", O_WRONLY | O_CREAT, 0644);
	posix_spawn_file_actions_addchdir_np(&acts, "bin");
	errno = posix_spawn(&pid, "./prog", &acts, NULL, args, environment);
	is(errno ? -1 : 0, "posix_spawn");
	waitpid(pid, &status, 0);
	num(WEXITSTATUS(status), "its status");
	text(give("out"), "its output");
}

// loader makes of the program in file one whose loader is at path.
static void loader(const char *file, const char *path)
{
#if __SIZEOF_POINTER__ == 8
	int fd = need(open(file, O_RDWR), "open");
	Elf64_Ehdr e;
	need(pread(fd, &e, sizeof e, 0), "read");
	off_t end = lseek(fd, 0, SEEK_END);
	for (int i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;
		off_t at = e.e_phoff + i * e.e_phentsize;
		need(pread(fd, &p, sizeof p, at), "read");
		if (p.p_type != PT_INTERP)
			continue;
		char old[100] = "";
		need(pread(fd, old, sizeof old - 1, p.p_offset), "read");
		if (access("ld.so", F_OK))
			copy(old, "ld.so", 0755);
		p.p_offset = end;
		p.p_filesz = strlen(path) + 1;
		need(pwrite(fd, &p, sizeof p, at), "write");
		need(pwrite(fd, path, strlen(path) + 1, end), "write");
	}
	close(fd);
#endif
}

static void loaders(void)
{
	copy("/proc/self/exe", "rel", 0755);
	loader("rel", "ld.so");
	text(run("rel", NULL), "a relative one");
	mkdir("d", 0755);
	chdir("d");
	text(run("../rel", NULL), "a relative one, from elsewhere");
	chdir("..");
	copy("/proc/self/exe", "abs", 0755);
	loader("abs", within("ld.so"));
	text(run("abs", NULL), "an absolute one");
	symlink("ld.so", "ldlink");
	copy("/proc/self/exe", "link", 0755);
	loader("link", within("ldlink"));
	text(run("link", NULL), "one by a link");
	copy("/proc/self/exe", "missing", 0755);
	loader("missing", within("missing-ld"));
	text(run("missing", NULL), "a missing one");
	copy("/proc/self/exe", "dir", 0755);
	loader("dir", within("d"));
	text(run("dir", NULL), "a directory");
	chmod("ld.so", 0644);
	text(run("abs", NULL), "one that may not be executed");
	chmod("ld.so", 0755);
	copy("/proc/self/exe", "prog", 0755);
	how_args[0] = "ld.so", how_args[1] = "./prog", how_args[2] = "one", how_args[3] = NULL;
	how_path = "./ld.so", how_fd = AT_FDCWD, how_flags = 0;
	text(said(), "as a program");
}

void exec_cases(void)
{
	group("exec", binaries);
	group("script", scripts);
	group("loader", loaders);
}
