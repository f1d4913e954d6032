// SPDX-License-Identifier: Apache-2.0

// Steps that change names and what they stand for.
#include "steps.h"
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/un.h>

// tell says where a link that was made leads.
static void make_link(void)
{
	char to[PATH_MAX];
	target(to, sizeof to);
	say("symlink %s at ", to);
	struct path p = somewhere(A_LINK);
	said(symlinkat(to, p.dir, p.name));
}

static void make_hard(void)
{
	unsigned how = any(8);
	int flags = how < 4 ? 0 : how < 6 ? AT_SYMLINK_FOLLOW : how < 7 ? AT_EMPTY_PATH : 0;
	say("link %x ", flags);
	struct path a = somewhere(how < 6 ? A_FILE : ANY);
	if (flags & AT_EMPTY_PATH && !geteuid()) {
		*a.name = 0;
		say(", of the descriptor");
	}
	say(" at ");
	struct path b = somewhere(A_FILE);
	said(linkat(a.dir, a.name, b.dir, b.name, flags));
}

static void move(void)
{
	static const unsigned how[] = { 0, 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE };
	unsigned flags = how[any(LEN(how))];
	int kind = 1 + any(3);
	say("rename %x ", flags);
	struct path a = somewhere(kind);
	say(" to ");
	struct path b = somewhere(any(5) ? kind : ANY);
	// From a copy without its directory: which of several files is a reader's own affair.
	said(renameat2(a.dir, a.name, b.dir, b.name, flags));
}

static void make_socket(void)
{
	say("bind ");
	struct path p = flat(A_FILE);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	if (strlen(p.name) >= sizeof un.sun_path || once_in(2)) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		snprintf(un.sun_path, sizeof un.sun_path, "%s", p.name);
		say(" or connect");
		said(connect(fd, (void *)&un, sizeof un));
		close(fd);
		return;
	}
	snprintf(un.sun_path, sizeof un.sun_path, "%s", p.name);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	said(bind(fd, (void *)&un, sizeof un));
	close(fd);
}

void change(void)
{
	struct path p;
	unsigned n = any(100);
	if (n < 15) {
		say("mkdir ");
		p = somewhere(A_DIR);
		said(mkdirat(p.dir, p.name, ONE_OF(0755, 0755, 0700, 0777)));
	} else if (n < 25) {
		say("rmdir ");
		p = somewhere(A_DIR);
		said(unlinkat(p.dir, p.name, AT_REMOVEDIR));
	} else if (n < 37) {
		say("unlink ");
		p = somewhere(1 + any(3));
		said(unlinkat(p.dir, p.name, 0));
	} else if (n < 50) {
		make_link();
	} else if (n < 62) {
		make_hard();
	} else if (n < 90) {
		move();
	} else if (n < 93) {
		say("mkfifo ");
		p = somewhere(A_FILE);
		said(mkfifoat(p.dir, p.name, 0644));
	} else if (n < 96) {
		make_socket();
	} else {
		say("truncate ");
		p = flat(A_FILE);
		said(truncate(p.name, any(40)));
	}
}

// keep puts a descriptor into a slot, unless it leads out of the tree.
static void keep(int fd)
{
	if (said(fd) < 0)
		return;
	int i = any(SLOTS);
	const char *to = leads(fd);
	size_t n = strlen(top);
	struct stat st;
	need(fstat(fd, &st), "fstat");
	if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)) { // which have the host's name
		close(fd);
		return;
	}
	if (!to || strncmp(to, top, n) && !strstr(to, "(deleted)")) {
		say(" elsewhere");
		close(fd);
		return;
	}
	say(" %s", to);
	look(&st, in(to, NULL), fd, "", 0);
	if (slot[i] >= 0)
		close(slot[i]);
	// Numbers above those that a program gets by itself.
	slot[i] = need(fcntl(fd, F_DUPFD, 20 + 10 * i), "dup");
	close(fd);
	say(" in %d", i);
}

void open_one(void)
{
	static const int how[] = { O_RDONLY, O_RDONLY, O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_CREAT, O_WRONLY | O_CREAT | O_EXCL, O_RDWR | O_TRUNC,
		O_WRONLY | O_CREAT | O_TRUNC, O_RDWR | O_APPEND, O_DIRECTORY, O_DIRECTORY, O_DIRECTORY, O_RDONLY | O_NOFOLLOW, O_PATH, O_PATH,
		O_PATH | O_NOFOLLOW, O_PATH | O_DIRECTORY, O_RDWR | O_TMPFILE, O_WRONLY | O_CREAT | O_NOFOLLOW, O_RDONLY | O_CREAT, O_DIRECTORY | O_NOFOLLOW };
	int flags = how[any(LEN(how))] | O_NONBLOCK | O_CLOEXEC;
	if (flags & O_PATH)
		flags &= ~O_NONBLOCK;
	int kind = flags & O_DIRECTORY ? A_DIR : flags & O_NOFOLLOW ? ANY : A_FILE;
	int mode = flags & (O_CREAT | O_TMPFILE & ~O_DIRECTORY) ? ONE_OF(0644, 0600, 0666) : 0;
	if (any(3)) {
		say("open %x ", flags & ~(O_CLOEXEC | O_NONBLOCK));
		struct path p = somewhere(kind);
		keep(openat(p.dir, p.name, flags, mode));
		return;
	}
	static const int by[] = { RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS,
		RESOLVE_IN_ROOT | RESOLVE_NO_XDEV, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH | RESOLVE_NO_XDEV };
	struct open_how at = { .flags = flags, .mode = mode, .resolve = by[any(LEN(by))] };
	say("openat2 %x, %llx ", flags & ~(O_CLOEXEC | O_NONBLOCK), at.resolve);
	// Of a path that does not begin at the root the kernel has not asked for that yet where an absolute
	// link leads there, and takes it for another mount (fs/namei.c: nd_jump_root, v6.18).
	struct path p = at.resolve == RESOLVE_NO_XDEV ? absolute(kind) : somewhere(kind);
	keep(syscall(SYS_openat2, p.dir, p.name, &at, sizeof at));
}
