// SPDX-License-Identifier: Apache-2.0

// Steps that look, go elsewhere, and use what is open.
#include "steps.h"
#include <sys/inotify.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static void tell_link(const char *s, ssize_t n)
{
	if (n < 0) {
		said(-1);
		return;
	}
	char pid[40];
	snprintf(pid, sizeof pid, "%d", getpid());
	say(" = %.*s", (int)n, !strncmp(s, pid, strlen(pid)) ? "PID" : s);
}

void ask(void)
{
	struct path p;
	struct stat st;
	char s[PATH_MAX];
	unsigned n = any(100);
	if (n < 40) {
		int flags = once_in(2) ? AT_SYMLINK_NOFOLLOW : 0;
		say("stat %x ", flags);
		p = somewhere(ANY);
		if (once_in(8)) {
			say(", of where that begins");
			*p.name = 0, flags |= AT_EMPTY_PATH;
		}
		long rc = said(fstatat(p.dir, p.name, &st, flags));
		if (!rc && *p.name)
			look(&st, mount_of(p, flags ? O_NOFOLLOW : 0, NULL), p.dir, p.name, flags);
		else if (!rc)
			look(&st, in(leads(p.dir) ?: "", NULL), p.dir, "", 0);
	} else if (n < 55) {
		say("readlink ");
		p = somewhere(A_LINK);
		tell_link(s, readlinkat(p.dir, p.name, s, sizeof s));
	} else if (n < 62) {
		static const char *const all[] = { "/proc/self/cwd", "/proc/self/root", "/proc/thread-self/cwd", "/proc/self" };
		const char *name = all[any(LEN(all))];
		say("readlink %s", name);
		tell_link(s, readlink(name, s, sizeof s));
	} else if (n < 80) {
		say("list ");
		p = somewhere(A_DIR);
		int fd = openat(p.dir, p.name, O_RDONLY | O_DIRECTORY);
		if (said(fd) >= 0)
			names(fd);
		close(fd);
	} else if (n < 92) {
		int mode = ONE_OF(F_OK, R_OK, W_OK, X_OK, R_OK | W_OK), flags = ONE_OF(0, AT_EACCESS, AT_SYMLINK_NOFOLLOW);
		say("access %d %x ", mode, flags);
		p = somewhere(ANY);
		said(syscall(439, p.dir, p.name, mode, flags));
	} else if (n < 96) {
		struct statfs fs;
		say("statfs ");
		p = flat(ANY);
		if (!said(statfs(p.name, &fs)))
			say(" %s", fs.f_flags & ST_RDONLY ? "read-only" : "to be written");
	} else {
		say("realpath ");
		p = flat(ANY);
		char *real = realpath(p.name, s);
		if (!real)
			said(-1);
		else
			say(" = %s", s);
	}
}

void go(void)
{
	char s[PATH_MAX];
	unsigned n = any(10);
	if (n < 7) {
		say("chdir ");
		struct path p = flat(A_DIR);
		said(chdir(p.name));
	} else if (n < 9) {
		int i = any(SLOTS);
		say("fchdir %d", i);
		said(fchdir(slot[i]));
	} else {
		say("getcwd");
	}
	long rc = syscall(SYS_getcwd, s, sizeof s);
	if (rc < 0) {
		say(", in %s", strerrorname_np(errno));
		const char *to = leads(AT_FDCWD);
		say(", %s", to ? to : strerrorname_np(errno));
		return;
	}
	say(", in %s", s);
	if (!rooted && strncmp(s, top, strlen(top))) {
		say(", and back");
		said(chdir(top));
	}
}

static const char *const attrs[] = { "user.one", "user.two" };

void attr(void)
{
	struct path p;
	int root;
	char value[100];
	unsigned n = any(100);
	if (n < 25) {
		say("chmod ");
		p = somewhere(any(3) ? A_FILE : A_DIR);
		int mode = ONE_OF(0755, 0644, 0600, 0444, 0700, 0);
		mount_of(p, 0, &root);
		if (root || mode == 0 && any(3))
			mode = 0755; // what lies above a mount can always be searched
		said(fchmodat(p.dir, p.name, mode, 0));
	} else if (n < 40) {
		int flags = once_in(3) ? AT_SYMLINK_NOFOLLOW : 0;
		say("utimensat %x ", flags);
		p = somewhere(ANY);
		struct timespec at[2] = { { 1000 + any(99), 0 }, { 2000 + any(99), 0 } };
		said(utimensat(p.dir, p.name, at, flags));
	} else if (n < 60) {
		const char *name = attrs[any(2)];
		say("setxattr %s ", name);
		p = flat(ANY);
		snprintf(value, sizeof value, "%u", any(100));
		int how = ONE_OF(0, 0, XATTR_CREATE, XATTR_REPLACE);
		said(once_in(3) ? lsetxattr(p.name, name, value, strlen(value), how) : setxattr(p.name, name, value, strlen(value), how));
	} else if (n < 75) {
		const char *name = attrs[any(2)];
		say("getxattr %s ", name);
		p = flat(ANY);
		ssize_t len = once_in(3) ? lgetxattr(p.name, name, value, sizeof value) : getxattr(p.name, name, value, sizeof value);
		if (said(len) > 0)
			say(" %.*s", (int)len, value);
	} else if (n < 85) {
		say("removexattr ");
		p = flat(ANY);
		said(removexattr(p.name, attrs[any(2)]));
	} else {
		say("chown ");
		p = somewhere(ANY);
		said(fchownat(p.dir, p.name, -1, getegid(), once_in(2) ? AT_SYMLINK_NOFOLLOW : 0));
	}
}

void by_fd(void)
{
	struct stat st;
	int i = any(SLOTS), fd = slot[i];
	unsigned n = any(100);
	char s[80];
	say("%d: ", i);
	if (n < 15) {
		say("fstat");
		if (!said(fstat(fd, &st)))
			look_fd(fd, &st);
	} else if (n < 30) {
		const char *to = leads(fd);
		say("leads to %s", to ? to : strerrorname_np(errno));
	} else if (n < 45) {
		snprintf(s, sizeof s, "by %u", any(1000));
		say("pwrite %s", s);
		said(pwrite(fd, s, strlen(s), any(20)));
	} else if (n < 60) {
		say("read");
		content(fd);
	} else if (n < 65) {
		say("ftruncate");
		said(ftruncate(fd, any(30)));
	} else if (n < 75) {
		say("list");
		names(fd);
	} else if (n < 78) {
		say("fchmod");
		int root;
		in(leads(fd) ?: "", &root);
		said(fchmod(fd, root ? 0755 : ONE_OF(0755, 0640, 0700)));
	} else if (n < 81) {
		say("fsetxattr");
		said(fsetxattr(fd, attrs[any(2)], "fd", 2, 0));
	} else if (n < 84) {
		const struct mount *m = in(leads(fd) ?: "", NULL);
		if (m && m->copies) {
			say("not what may be a file as it was");
			return;
		}
		say("fgetxattr");
		said(fgetxattr(fd, attrs[any(2)], s, sizeof s));
	} else if (n < 90) {
		const struct mount *m = in(leads(fd) ?: "", NULL);
		if (m && m->copies) {
			say("no link of what may be a file as it was");
			return;
		}
		say("link ");
		snprintf(s, sizeof s, "/proc/self/fd/%d", fd);
		struct path p = somewhere(A_FILE);
		said(linkat(AT_FDCWD, s, p.dir, p.name, AT_SYMLINK_FOLLOW));
	} else if (n < 95) {
		int j = any(SLOTS);
		say("dup to %d", j);
		if (fd >= 0 && j != i) {
			if (slot[j] >= 0)
				close(slot[j]);
			slot[j] = need(fcntl(fd, F_DUPFD, 20 + 10 * j), "dup");
		}
	} else {
		say("close");
		said(close(fd));
		slot[i] = -1;
	}
}

static int notify = -1;

static const struct { uint32_t bit; const char *name; } events[] = {
	{ IN_CREATE, "create" }, { IN_DELETE, "delete" }, { IN_MOVED_FROM, "from" }, { IN_MOVED_TO, "to" }, { IN_MODIFY, "modify" },
	{ IN_ATTRIB, "attrib" }, { IN_DELETE_SELF, "self deleted" }, { IN_MOVE_SELF, "self moved" }, { IN_IGNORED, "ignored" },
	{ IN_ISDIR, "directory" }, { IN_OPEN, "open" }, { IN_CLOSE_WRITE, "close written" }, { IN_CLOSE_NOWRITE, "close" }, { IN_ACCESS, "access" } };

void watch(void)
{
	if (notify < 0)
		notify = need(inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify");
	if (once_in(2) && !rooted) {
		say("watch ");
		struct path p = flat(any(4) ? A_DIR : A_FILE);
		const struct mount *m = mount_of(p, 0, NULL);
		if (m && m->copies) {
			say(" not what is copied");
			return;
		}
		int wd = inotify_add_watch(notify, p.name, IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF);
		if (said(wd) >= 0)
			say(" %d", wd);
		return;
	}
	static char buf[1 << 15];
	say("events");
	for (ssize_t n; (n = read(notify, buf, sizeof buf)) > 0;)
		for (char *s = buf; s < buf + n;) {
			struct inotify_event *e = (void *)s;
			say(" %d", e->wd);
			for (int i = 0; i < LEN(events); i++)
				if (e->mask & events[i].bit)
					say(" %s", events[i].name);
			if (e->len)
				say(" %s", *e->name == '#' ? "#" : e->name);
			say(";");
			s += sizeof *e + e->len;
		}
}

// program executes what may be one, and says what that says.
void program(void)
{
	say("execute ");
	struct path p = once_in(3) ? somewhere(A_FILE) : flat(A_FILE);
	char *last = strrchr(p.name, '/');
	if (any(4))
		snprintf(last ? last + 1 : p.name, 3, "%s", once_in(3) ? "y" : "x");
	say(" or %s", p.name);
	int to[2];
	need(pipe2(to, O_CLOEXEC), "pipe");
	pid_t pid = need(fork(), "fork");
	if (!pid) {
		dup2(to[1], 1);
		char *argv[] = { "x", "-say", "end", NULL }, *env[] = { NULL };
		if (p.dir == AT_FDCWD)
			execve(p.name, argv, env);
		else
			syscall(SYS_execveat, p.dir, p.name, argv, env, 0);
		char s[80];
		int n = snprintf(s, sizeof s, "%s", strerrorname_np(errno));
		write(1, s, n);
		_exit(0);
	}
	close(to[1]);
	char s[2 * PATH_MAX];
	ssize_t n, used = 0;
	while ((n = read(to[0], s + used, sizeof s - 1 - used)) > 0)
		used += n;
	s[used] = 0;
	close(to[0]);
	int status;
	need(waitpid(pid, &status, 0), "wait");
	say(" = %s", s);
	if (status)
		say(" status %x", status);
}
