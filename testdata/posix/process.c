// SPDX-License-Identifier: Apache-2.0

// Whose a call is: the umask, the credentials and the directory of a thread, of a
// process that shares them, and of children.
#include "posix.h"
#include <pthread.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void masks(void)
{
	umask(0);
	close(open("a", O_CREAT | O_WRONLY, 0666));
	text(look("a"), "umask 0");
	umask(027);
	close(open("b", O_CREAT | O_WRONLY, 0777));
	text(look("b"), "umask 27");
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		close(open("c", O_CREAT | O_WRONLY, 0666));
		umask(077);
		mkdir("d", 0777);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	text(look("c"), "a child's first");
	text(look("d"), "a child's own");
	close(open("e", O_CREAT | O_WRONLY, 0666));
	text(look("e"), "its parent's");
	num(umask(022), "umask told");
}

static void *ownmask(void *p)
{
	unshare(CLONE_FS);
	umask(0);
	close(open("thread", O_CREAT | O_WRONLY, 0666));
	return NULL;
}

static void *sharedmask(void *p)
{
	umask(0);
	return NULL;
}

static int fsuid; // errno's, of the thread that has it

// other becomes another user for files alone, which is a thread's own.
static void *other(void *p)
{
	setfsgid(GROUP);
	setfsuid(USER);
	close(open("theirs/fsuid", O_CREAT | O_WRONLY, 0644));
	mkdir("theirs/fsdir", 0755);
	fsuid = open("secret", O_RDONLY) < 0 ? errno : 0;
	return NULL;
}

static void threads(void)
{
	pthread_t t;
	umask(077);
	pthread_create(&t, NULL, ownmask, NULL);
	pthread_join(t, NULL);
	close(open("main", O_CREAT | O_WRONLY, 0666));
	text(look("thread"), "a thread with its own umask");
	text(look("main"), "the others");
	pthread_create(&t, NULL, sharedmask, NULL);
	pthread_join(t, NULL);
	close(open("after", O_CREAT | O_WRONLY, 0666));
	text(look("after"), "after a thread has set it for all");
	if (!root)
		return;
	umask(022);
	mkdir("theirs", 0777);
	chmod("theirs", 0777);
	put("secret", "x");
	chmod("secret", 0600);
	pthread_create(&t, NULL, other, NULL);
	pthread_join(t, NULL);
	struct stat st = { 0 };
	stat("theirs/fsuid", &st);
	yes(st.st_uid == USER && st.st_gid == GROUP, "a file of a thread's setfsuid");
	stat("theirs/fsdir", &st);
	yes(st.st_uid == USER && st.st_gid == GROUP, "a directory of a thread's setfsuid");
	text(fsuid ? strerrorname_np(fsuid) : "ok", "what it may not read");
	is(open("secret", O_RDONLY), "what the others may");
}

static void effective(void)
{
	is(access("secret", R_OK), "access asks for the real user");
	is(faccessat(AT_FDCWD, "secret", R_OK, AT_EACCESS), "AT_EACCESS for the effective one");
	is(open("secret", O_RDONLY), "open for the effective one");
}

static void dropped(void)
{
	need(chdir(within("")), "chdir");
	is(open("secret", O_RDONLY), "after setresuid");
	is(open("group", O_RDONLY), "by a group");
	is(open("more", O_RDONLY), "by a supplementary group");
	put("theirs/new", "x");
	struct stat st = { 0 };
	stat("theirs/new", &st);
	yes(st.st_uid == USER && st.st_gid == GROUP, "owner of a new file");
	stat("setgid", &st);
	close(open("setgid/new", O_CREAT | O_WRONLY, 0644));
	stat("setgid/new", &st);
	num(st.st_gid, "group of a new file in a set-gid directory");
	mkdir("setgid/d", 0755);
	text(look("setgid/d"), "a directory there");
	stat("setgid/d", &st);
	num(st.st_gid, "its group");
}

static void users(void)
{
	if (!root)
		return;
	put("secret", "x");
	chmod("secret", 0600);
	put("group", "x");
	chmod("group", 0640);
	chown("group", 0, GROUP);
	put("more", "x");
	chmod("more", 0640);
	chown("more", 0, GROUP + 1);
	mkdir("theirs", 0777);
	chmod("theirs", 0777);
	mkdir("setgid", 0777);
	chown("setgid", 0, GROUP + 5);
	chmod("setgid", 02777);
	as(USER, GROUP, dropped);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		need(setresuid(USER, 0, 0), "setresuid");
		effective();
		need(seteuid(USER), "seteuid");
		is(open("secret", O_RDONLY), "open after seteuid");
		put("theirs/euid", "x");
		need(seteuid(0), "seteuid back");
		is(open("secret", O_RDONLY), "open after seteuid back");
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	pid = fork();
	if (!pid) {
		gid_t more = GROUP + 1;
		need(syscall(SYS_setgroups, 1, &more), "setgroups");
		need(setresgid(GROUP, GROUP, GROUP), "setresgid");
		need(setresuid(USER, USER, USER), "setresuid");
		is(open("more", O_RDONLY), "by a supplementary group that one has");
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	pid = fork();
	if (!pid) { // root without the capability
		prctl(PR_CAPBSET_DROP, 1 /* CAP_DAC_OVERRIDE */, 0, 0, 0);
		struct { uint32_t version; int pid; } h = { 0x20080522, 0 };
		struct { uint32_t e, p, i; } c[2];
		syscall(SYS_capget, &h, c);
		c[0].e &= ~6U, c[0].p &= ~6U; // and CAP_DAC_READ_SEARCH
		need(syscall(SYS_capset, &h, c), "capset");
		put("nomode", "x");
		chmod("nomode", 0);
		is(open("nomode", O_RDONLY), "root without CAP_DAC_OVERRIDE");
		is(open("theirs/euid", O_WRONLY), "root without it, of another's");
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static char stack[65536] __attribute__((aligned(16)));

static int sharer(void *p)
{
	chdir("d");
	umask(0);
	return 0;
}

static void shares(void)
{
	mkdir("d", 0755);
	put("d/f", "of d");
	put("f", "top");
	int status;
	pid_t pid = clone(sharer, stack + sizeof stack, CLONE_FS | SIGCHLD, NULL);
	waitpid(pid, &status, 0);
	text(give("f"), "after a process that shares the directory has moved");
	text(where(), "where that is");
	close(open("made", O_CREAT | O_WRONLY, 0666));
	text(look("made"), "and has set the umask");
	chdir("..");
	umask(022);
	pid = clone(sharer, stack + sizeof stack, SIGCHLD, NULL);
	waitpid(pid, &status, 0);
	text(give("f"), "after a process that does not");
	pid = vfork();
	if (!pid)
		_exit(chdir("d") ? 1 : 0);
	waitpid(pid, &status, 0);
	text(give("f"), "after vfork");
	chdir("d");
	FILE *p = popen("pwd; cat f; cd ..; cat f", "r");
	char s[PATH_MAX + 40] = "";
	s[fread(s, 1, sizeof s - 1, p)] = 0;
	pclose(p);
	text(s, "a shell in the directory");
	chdir("..");
	int fd = open("d", O_RDONLY | O_DIRECTORY);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		chdir("/");
		fchdir(fd);
		text(where(), "a child by its parent's descriptor");
		rename(within("d"), within("e"));
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	fchdir(fd);
	text(where(), "its parent after it has renamed that");
	text(give("f"), "what is there");
	chdir(within(""));
	// A file that a child writes through an inherited descriptor.
	fd = open("log", O_CREAT | O_RDWR, 0644);
	system("echo one >>log; (echo two; echo three) >>log; wc -l <log >count; tr -d ' ' <count >c2 && mv c2 count");
	text(give("log"), "what a shell has appended");
	text(give("count"), "its lines");
	is(system("test -f log && test -d e && test ! -e missing && test -r log && test -w log && test ! -x log"), "what test(1) says");
	is(system("rm -r e && mkdir -p p/q/r && touch p/q/r/f && cp -r p P && diff -r p P && rm -rf p && find P | wc -l >count && ln -s P L && ls L/q >>count"), "what tools do");
	text(give("count"), "and find");
}

void process_cases(void)
{
	group("umask", masks);
	group("threads", threads);
	group("user", users);
	group("share", shares);
}
