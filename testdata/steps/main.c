// SPDX-License-Identifier: Apache-2.0

// steps -make LAYOUT PLACE [UID]          makes what is there before
// steps -flags LAYOUT PLACE               says how a view is started
// steps -native LAYOUT PLACE UID SEED N   mounts, and makes the steps
// steps -run LAYOUT PLACE SEED N          makes the steps where that is mounted
//
// LAB_STEPS has the numbers of the steps that are made, with blanks about each: all
// without it.
#include "steps.h"
#include <pthread.h>
#include <stdarg.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <grp.h>

char place[PATH_MAX / 4], top[PATH_MAX / 2];
const char *self;
int rooted;
int slot[SLOTS];

static uint64_t seed, chance;
static int now, count, depth;

long need(long rc, const char *what)
{
	if (rc < 0) {
		fflush(stdout);
		fprintf(stderr, "steps: %s: %s\n", what, strerror(errno));
		_exit(9);
	}
	return rc;
}

// any is splitmix64: the same with every C library.
unsigned any(unsigned n)
{
	uint64_t z = chance += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % n;
}

int once_in(int n)
{
	return !any(n);
}

static char line[1 << 16];
static size_t used;

void say(const char *format, ...)
{
	int e = errno;
	static char s[1 << 15];
	va_list ap;
	va_start(ap, format);
	vsnprintf(s, sizeof s, format, ap);
	va_end(ap);
	size_t n = strlen(place);
	for (char *p = s; *p && used < sizeof line - 4;) {
		if (!strncmp(p, place, n)) {
			line[used++] = 'P';
			p += n;
		} else if (*p == '\n') {
			line[used++] = '|';
			p++;
		} else {
			line[used++] = *p++;
		}
	}
	errno = e;
}

long said(long rc)
{
	int e = errno;
	if (rc < 0)
		say(" = %s", strerrorname_np(e));
	else
		say(" = ok");
	errno = e;
	return rc;
}

void end(void)
{
	line[used++] = '\n';
	for (size_t done = 0; done < used;) {
		ssize_t n = write(1, line + done, used - done);
		if (n <= 0)
			_exit(8);
		done += n;
	}
	used = 0;
}

static int wanted(int i)
{
	static const char *only;
	static int asked;
	if (!asked)
		only = getenv("LAB_STEPS"), asked = 1;
	char word[24];
	snprintf(word, sizeof word, " %d ", i);
	return !only || strstr(only, word);
}

static void together(void);

static void step(void)
{
	chance = seed * 0x2545f4914f6cdd1d + now * 0x9e3779b97f4a7c15ull + 1;
	any(2);
	say("%d%.*s ", now, depth, "++++");
	unsigned n = any(100);
	whole = n >= 30;
	if (n < 30)
		change();
	else if (n < 45)
		open_one();
	else if (n < 60)
		by_fd();
	else if (n < 72)
		ask();
	else if (n < 80)
		attr();
	else if (n < 88)
		go();
	else if (n < 92)
		watch();
	else if (n < 94)
		program();
	else
		together();
	if (used)
		end();
}

static void steps(int n)
{
	for (; n > 0 && now < count; n--, now++)
		if (wanted(now))
			step();
}

static int left; // steps of the thread

static int alone; // it has a directory of its own

static void *thread(void *unused)
{
	if (alone)
		need(unshare(CLONE_FS), "unshare");
	steps(left);
	return NULL;
}

// together makes the next steps in another process or thread.
static void together(void)
{
	unsigned how = any(6), n = 2 + any(8);
	if (depth > 2) {
		say("no more processes");
		return;
	}
	static const char *const name[] = { "fork", "fork with CLONE_FS", "a thread", "a thread by itself", "fork with CLONE_FILES", "chroot" };
	say("%s, %d steps", name[how], n);
	struct path p;
	if (how == 5) {
		say(", ");
		p = flat(A_DIR);
	}
	if (how == 5 && geteuid()) {
		say(" not by a user");
		return;
	}
	end();
	now++;
	depth++;
	if (how == 2 || how == 3) {
		pthread_t t;
		left = n;
		alone = how == 3;
		need(-pthread_create(&t, NULL, thread, NULL), "thread");
		pthread_join(t, NULL);
	} else {
		unsigned flags = how == 1 ? CLONE_FS : how == 4 ? CLONE_FILES : 0;
		pid_t pid = need(syscall(SYS_clone, (long)flags | SIGCHLD, 0, 0, 0, 0), "clone");
		if (!pid) {
			if (how == 5) {
				say("%d in it", now);
				rooted = said(chroot(p.name)) == 0;
				end();
			}
			steps(n);
			_exit(0);
		}
		int status;
		need(waitpid(pid, &status, 0), "wait");
		if (status) {
			say("ended by %x", status);
			end();
		}
		now += n;
	}
	depth--;
	now--;
}

static void run(void)
{
	umask(022);
	for (int i = 0; i < SLOTS; i++)
		slot[i] = -1;
	need(chdir(top), top);
	alarm(300);
	steps(count);
	for (int i = 0; i < SLOTS; i++)
		if (slot[i] >= 0) {
			struct stat st;
			const char *to = leads(slot[i]);
			say("slot %d: %s ", i, to ? to : "nowhere");
			if (!fstat(slot[i], &st))
				look_fd(slot[i], &st);
			end();
		}
	need(chdir("/"), "/");
	dump(top);
}

static void become(uid_t id)
{
	if (!id)
		return;
	need(setgroups(0, NULL), "setgroups");
	need(setresgid(id, id, id), "setresgid");
	need(setresuid(id, id, id), "setresuid");
	need(prctl(PR_SET_DUMPABLE, 1), "dumpable"); // else its own procfs is root's
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "-say")) {
		static char exe[PATH_MAX], cwd[PATH_MAX];
		ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
		if (n < 0)
			snprintf(exe, sizeof exe, "%s", strerrorname_np(errno));
		if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0)
			snprintf(cwd, sizeof cwd, "%s", strerrorname_np(errno));
		printf("exe %s, in %s, %s\n", exe, cwd, argc > 2 ? argv[argc - 1] : "");
		return 0;
	}
	if (argc < 4 || !layout_named(argv[2])) {
		fprintf(stderr, "usage: steps -make|-flags|-native|-run LAYOUT PLACE ...\n");
		return 2;
	}
	static char exe[PATH_MAX];
	need(readlink("/proc/self/exe", exe, sizeof exe - 1), "exe");
	self = exe;
	snprintf(place, sizeof place, "%s", argv[3]);
	snprintf(top, sizeof top, "%s/1/2/3/4/5/6/top", place);
	umask(022);
	if (!strcmp(argv[1], "-make") && argc == 5) {
		become(atoi(argv[4]));
		layout_make();
		return 0;
	}
	if (!strcmp(argv[1], "-flags")) {
		layout_flags();
		return 0;
	}
	int native = !strcmp(argv[1], "-native");
	if (argc != 6 + native)
		return 2;
	seed = strtoull(argv[4 + native], NULL, 10);
	count = atoi(argv[5 + native]);
	if (native) {
		layout_mount();
		become(atoi(argv[4]));
	}
	run();
	return 0;
}
