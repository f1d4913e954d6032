// SPDX-License-Identifier: Apache-2.0

// inotify(7): what is told of a directory and of files in it.
#include "posix.h"
#include <poll.h>
#include <sys/inotify.h>
#include <sys/mman.h>

static int in;

// told prints the events that came, in their order.
static void told(const char *label)
{
	static const struct { uint32_t m; const char *s; } bits[] = {
		{ IN_ACCESS, "ACCESS" }, { IN_MODIFY, "MODIFY" }, { IN_ATTRIB, "ATTRIB" }, { IN_CLOSE_WRITE, "CLOSE_WRITE" }, { IN_CLOSE_NOWRITE, "CLOSE_NOWRITE" },
		{ IN_OPEN, "OPEN" }, { IN_MOVED_FROM, "MOVED_FROM" }, { IN_MOVED_TO, "MOVED_TO" }, { IN_CREATE, "CREATE" }, { IN_DELETE, "DELETE" },
		{ IN_DELETE_SELF, "DELETE_SELF" }, { IN_MOVE_SELF, "MOVE_SELF" }, { IN_IGNORED, "IGNORED" }, { IN_UNMOUNT, "UNMOUNT" }, { IN_Q_OVERFLOW, "OVERFLOW" },
		{ IN_ISDIR, "ISDIR" },
	};
	char buf[4096] __attribute__((aligned(8))), out[2000] = "";
	for (ssize_t n; (n = read(in, buf, sizeof buf)) > 0;)
		for (ssize_t o = 0; o < n && strlen(out) < 1800;) {
			struct inotify_event *e = (void *)(buf + o);
			strcat(out, *out ? ", " : "");
			for (int i = 0, some = 0; i < LEN(bits); i++)
				if (e->mask & bits[i].m)
					strcat(strcat(out, some++ ? "|" : ""), bits[i].s);
			if (e->len)
				strcat(strcat(out, " "), e->name);
			o += sizeof *e + e->len;
		}
	text(*out ? out : "none", "%s", label);
}

// TOLD prints what comes of an operation.
#define TOLD(label, op) do { op; told(label); } while (0)

enum { ALL = IN_ALL_EVENTS };

static void directory(void)
{
	in = need(inotify_init1(IN_NONBLOCK), "inotify");
	mkdir("d", 0755);
	mkdir("e", 0755);
	put("d/f", "x");
	is(inotify_add_watch(in, "d", ALL), "watch");
	int fd;
	TOLD("open", fd = open("d/f", O_RDWR));
	TOLD("read", read(fd, &(char){ 0 }, 1));
	TOLD("write", write(fd, "y", 1));
	TOLD("ftruncate", ftruncate(fd, 0));
	TOLD("fchmod", fchmod(fd, 0600));
	TOLD("close", close(fd));
	TOLD("truncate", truncate("d/f", 5));
	TOLD("chmod", chmod("d/f", 0644));
	TOLD("utimensat", utimensat(AT_FDCWD, "d/f", NULL, 0));
	TOLD("stat", struct stat st; stat("d/f", &st); access("d/f", R_OK));
	TOLD("create", close(open("d/new", O_CREAT | O_RDWR, 0644)));
	TOLD("open to read", close(open("d/f", O_RDONLY)));
	TOLD("O_PATH", close(open("d/f", O_PATH)));
	TOLD("link", link("d/f", "d/hard"));
	TOLD("write by another name", put("d/hard", "z"));
	TOLD("rename", rename("d/f", "d/g"));
	TOLD("rename over", rename("d/g", "d/new"));
	TOLD("rename out", rename("d/new", "e/out"));
	TOLD("rename in", rename("e/out", "d/in"));
	TOLD("exchange", renameat2(AT_FDCWD, "d/in", AT_FDCWD, "d/hard", RENAME_EXCHANGE));
	TOLD("unlink", unlink("d/in"));
	TOLD("mkdir", mkdir("d/sub", 0755));
	TOLD("what is below", put("d/sub/f", "x"); unlink("d/sub/f"));
	TOLD("rmdir", rmdir("d/sub"));
	TOLD("symlink", symlink("hard", "d/l"));
	TOLD("read by a link", give("d/l"));
	TOLD("mkfifo", mkfifo("d/fifo", 0644));
	TOLD("failed create", open("d/hard", O_CREAT | O_EXCL, 0644));
	TOLD("chmod of itself", chmod("d", 0700));
	TOLD("rename of itself", rename("d", "moved"));
	TOLD("create after that", put("moved/late", "x"));
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		put("moved/by", "x");
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	told("another process");
	unlink("moved/late"), unlink("moved/by"), unlink("moved/l"), unlink("moved/fifo"), unlink("moved/hard");
	told("five unlinked");
	TOLD("rmdir of itself", rmdir("moved"));
}

static void files(void)
{
	in = need(inotify_init1(IN_NONBLOCK), "inotify");
	put("f", "x");
	link("f", "hard");
	symlink("f", "l");
	int wd = is(inotify_add_watch(in, "f", ALL), "watch");
	yes(inotify_add_watch(in, "f", ALL) == wd, "again is the same");
	yes(inotify_add_watch(in, "hard", ALL) == wd, "another name is the same");
	yes(inotify_add_watch(in, "l", ALL) == wd, "a link is the same");
	yes(inotify_add_watch(in, "l", ALL | IN_DONT_FOLLOW) != wd, "the link itself is not");
	is(inotify_add_watch(in, "f", ALL | IN_ONLYDIR), "IN_ONLYDIR of a file");
	is(inotify_add_watch(in, "f", ALL | IN_MASK_CREATE), "IN_MASK_CREATE of what is watched");
	is(inotify_add_watch(in, "f", 0), "nothing to watch");
	is(inotify_add_watch(in, "missing", ALL), "nothing");
	is(inotify_add_watch(99, "f", ALL), "by a closed descriptor");
	is(inotify_add_watch(open("f", O_PATH), "f", ALL), "by a descriptor that is none");
	TOLD("of these", );
	TOLD("write", put("f", "y"));
	TOLD("by another name", put("hard", "z"));
	TOLD("rename", rename("f", "g"));
	TOLD("write after it", put("g", "y"));
	TOLD("unlink of one name", unlink("hard"));
	int fd = open("g", O_RDWR);
	TOLD("open", );
	TOLD("unlink while open", unlink("g"));
	TOLD("write to what is gone", write(fd, "x", 1));
	TOLD("close of what is gone", close(fd));
	is(inotify_rm_watch(in, wd), "rm_watch of what is gone");
	put("f", "x");
	wd = inotify_add_watch(in, "f", IN_MODIFY | IN_ONESHOT);
	TOLD("one shot", put("f", "1"); put("f", "2"));
	mkdir("dir", 0300);
	is(inotify_add_watch(in, "dir", ALL), "what may not be read");
	wd = inotify_add_watch(in, "f", IN_MODIFY);
	TOLD("mask", close(open("f", O_RDWR | O_TRUNC)));
	is(inotify_add_watch(in, "f", IN_ATTRIB | IN_MASK_ADD), "IN_MASK_ADD");
	TOLD("larger mask", chmod("f", 0600); put("f", "3"));
	is(inotify_rm_watch(in, wd), "rm_watch");
	TOLD("its last word", put("f", "4"));
	fd = open("f", O_RDWR);
	ftruncate(fd, 4096);
	inotify_add_watch(in, "f", IN_MODIFY | IN_ACCESS);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TOLD("a store to a mapping", p[0] = 'x'; msync(p, 4096, MS_SYNC));
}

void event_cases(void)
{
	group("watch", directory);
	group("watched", files);
}
