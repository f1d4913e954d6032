// SPDX-License-Identifier: Apache-2.0

// Paths by chance, and what is known of where they lead.
#include "steps.h"
#include <sys/xattr.h>

int held(int i)
{
	return slot[i] >= 0 ? slot[i] : AT_FDCWD;
}

const char *leads(int fd)
{
	static char s[PATH_MAX];
	char link[40];
	if (fd == AT_FDCWD)
		snprintf(link, sizeof link, "/proc/thread-self/cwd");
	else
		snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
	ssize_t n = readlink(link, s, sizeof s - 1);
	if (n < 0)
		return NULL;
	s[n] = 0;
	char *nameless = strstr(s, "/#"); // of O_TMPFILE
	if (nameless)
		snprintf(nameless, 20, "/# (deleted)");
	// What was copied and is no more has the copy's name.
	char *gone = strstr(s, " (deleted)");
	const struct mount *m = in(s, NULL);
	if (gone && (m ? m->copies : strncmp(s, top, strlen(top)) != 0))
		memmove(s, gone, strlen(gone) + 1);
	return s;
}

const struct mount *mount_of(struct path p, int flags, int *root)
{
	int e = errno, fd = openat(p.dir, p.name, O_PATH | flags);
	const char *s = fd >= 0 ? leads(fd) : NULL;
	const struct mount *m = in(s ? s : "", root);
	close(fd);
	errno = e;
	return m;
}

static const char *const mounts[] = { "a", "b", "c", "k", "m", "r", "t", "w", "e", "h", "b/t", "r/w", "c/w", "b/w", "m/w", "hf", "ff", "gf", "" };

static void add(char *s, const char *name)
{
	size_t n = strlen(s);
	snprintf(s + n, PATH_MAX - n, "%s", name);
}

// one is a name in a directory.
static const char *one(int kind)
{
	unsigned n = any(10);
	if (kind == A_FILE)
		return n < 4 ? "f" : n < 7 ? "g" : n < 8 ? "gf" : n < 9 ? "x" : "y";
	if (kind == A_DIR)
		return n < 5 ? "d" : n < 9 ? "e" : "h";
	if (kind == A_LINK)
		return n < 5 ? "l" : "n";
	n = any(24);
	return n < 6 ? "d" : n < 9 ? "e" : n < 12 ? "f" : n < 14 ? "g" : n < 16 ? "l" : n < 18 ? "n" : n < 20 ? ".." :
	       n < 21 ? "." : n < 22 ? "t" : n < 23 ? "w" : "h";
}

// tail adds names. Few lead up, so that none lead out of the directory of the run.
static void tail(char *s, int n, int kind)
{
	int up = 0;
	for (; n > 0; n--) {
		const char *name = one(n > 1 ? any(3) ? A_DIR : ANY : any(4) ? kind : ANY);
		if (!strcmp(name, "..") && ++up > 2)
			name = "d";
		// What is hidden is not searched, but by its words.
		size_t len = strlen(s);
		if (*name == '.' && len && s[len - 1] == 'h')
			name = "f";
		if (*s && s[strlen(s) - 1] != '/')
			add(s, "/");
		add(s, name);
		if (once_in(40))
			add(s, "/");
	}
	if (once_in(25))
		add(s, once_in(3) && s[strlen(s) - 1] != 'h' ? "/." : "/");
}

static int length(void)
{
	unsigned n = any(20);
	return n < 11 ? 1 : n < 17 ? 2 : 3;
}

static void from_top(char *s, int kind)
{
	add(s, rooted ? "" : top);
	const char *m = mounts[any(LEN(mounts))];
	if (*m) {
		add(s, "/");
		add(s, m);
	}
	int n = any(5) ? length() : 0;
	if (!*m && !n && !rooted)
		n = 1; // the tree itself is above mounts, which do not move
	if (!n && rooted)
		add(s, "/");
	if (n)
		add(s, "/");
	tail(s, n, kind);
}

int whole;

static struct path make(int kind, int at)
{
	struct path p = { .dir = AT_FDCWD };
	unsigned n = any(100);
	int fd = any(SLOTS);
	char link[40];
	if (!kind)
		kind = any(3) ? A_FILE : any(4) ? A_DIR : A_LINK;
	if (n < 32) {
		from_top(p.name, kind);
	} else if (n < 60 && at && slot[fd] >= 0) {
		p.dir = slot[fd];
		say("[%d]", fd);
		tail(p.name, length(), kind);
	} else if (n < 92) {
		tail(p.name, length(), kind);
	} else if (n < 95 || n > 95 && slot[fd] < 0) {
		add(p.name, once_in(2) ? "/proc/self/cwd" : "/proc/thread-self/cwd/");
		if (any(4) || !whole)
			add(p.name, "/"), tail(p.name, 1 + any(2), kind);
	} else if (n < 96) {
		add(p.name, "/proc/self/root");
		from_top(p.name, kind);
	} else {
		snprintf(link, sizeof link, "/proc/self/fd/%d", slot[fd]);
		add(p.name, link);
		if (any(3) || !whole)
			add(p.name, "/"), tail(p.name, 1 + any(2), kind);
	}
	say("%s", p.name);
	return p;
}

struct path somewhere(int kind) { return make(kind, 1); }
struct path flat(int kind) { return make(kind, 0); }

struct path absolute(int kind)
{
	struct path p = { .dir = AT_FDCWD };
	from_top(p.name, kind);
	say("%s", p.name);
	return p;
}

void target(char *to, size_t n)
{
	char s[PATH_MAX] = "";
	unsigned how = any(10);
	if (how < 5) {
		tail(s, 1 + any(3), 1 + any(3));
	} else if (how < 9) {
		from_top(s, 1 + any(3));
	} else {
		add(s, "/proc/self/cwd/");
		tail(s, 1, 1 + any(2));
	}
	snprintf(to, n, "%s", s);
}

// number is which of those seen this is, from 1 on.
static int number(uint64_t a, uint64_t b)
{
	static struct { uint64_t a, b; } seen[4096];
	static int n;
	for (int i = 0; i < n; i++)
		if (seen[i].a == a && seen[i].b == b)
			return i + 1;
	if (n < LEN(seen)) {
		seen[n].a = a, seen[n].b = b;
		n++;
	}
	return n;
}

void look(const struct stat *st, const struct mount *m, int dir, const char *path, int flags)
{
	const char *kind = S_ISREG(st->st_mode) ? "file" : S_ISDIR(st->st_mode) ? "directory" : S_ISLNK(st->st_mode) ? "link" :
			   S_ISFIFO(st->st_mode) ? "fifo" : S_ISSOCK(st->st_mode) ? "socket" : "device";
	say(" %s %o", kind, st->st_mode & 07777);
	if (!S_ISDIR(st->st_mode) && !S_ISLNK(st->st_mode))
		say(" of %ld", (long)st->st_size);
	if (m && !m->copies) {
		if (!S_ISDIR(st->st_mode))
			say(" %d links", (int)st->st_nlink);
		// The number of a file that is no more may be another's.
		struct statx stx = { 0 };
		statx(dir, path, flags | AT_EMPTY_PATH, STATX_BTIME, &stx);
		say(" #%d", number(st->st_dev ^ (uint64_t)stx.stx_btime.tv_sec << 32, st->st_ino << 32 ^ stx.stx_btime.tv_nsec));
	}
	if (st->st_mtime < 1000000)
		say(" from %ld", (long)st->st_mtime);
	if (st->st_uid != geteuid())
		say(" of %d", (int)st->st_uid);
}

void look_fd(int fd, const struct stat *st)
{
	const char *to = leads(fd);
	const struct mount *m = in(to ? to : "", NULL);
	if (to && *to != ' ' && (!m || !m->copies))
		look(st, m, fd, "", 0);
}

void content(int fd)
{
	char s[121];
	ssize_t n = pread(fd, s, sizeof s - 1, 0);
	if (n < 0) {
		say(" %s", strerrorname_np(errno));
		return;
	}
	unsigned long sum = 0;
	int plain = 1;
	for (int i = 0; i < n; i++) {
		sum = sum * 31 + (unsigned char)s[i];
		if (s[i] < ' ' || s[i] > '~')
			plain = 0;
	}
	s[n] = 0;
	if (plain && n < 60 || n > 2 && s[0] == '#')
		say(" \"%s\"", s);
	else
		say(" sum %lx", sum & 0xffffff);
}

static int byname(const void *a, const void *b)
{
	return strcmp(*(char **)a, *(char **)b);
}

// list reads a directory's names, sorted. fd stays open.
static int list(int fd, char **all, int most)
{
	int n = 0, own = dup(fd);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	if (!d) {
		int e = errno;
		close(own);
		errno = e;
		return -1;
	}
	rewinddir(d);
	errno = 0;
	for (struct dirent *e; n < most && (e = readdir(d));) {
		char s[300];
		snprintf(s, sizeof s, "%s%s", e->d_name, e->d_type == DT_DIR ? "/" : e->d_type == DT_LNK ? "@" : e->d_type == DT_REG ? "" : "?");
		all[n++] = strdup(s);
	}
	int err = errno;
	closedir(d);
	qsort(all, n, sizeof *all, byname);
	if (err) {
		errno = err;
		return -1;
	}
	return n;
}

void names(int fd)
{
	char *all[200];
	int n = list(fd, all, LEN(all));
	if (n < 0)
		say(" %s", strerrorname_np(errno));
	for (int i = 0; i < n; i++) {
		say(" %s", all[i]);
		free(all[i]);
	}
}

void dump(const char *path)
{
	struct stat st;
	say("%s:", path);
	if (lstat(path, &st)) {
		said(-1);
		end();
		return;
	}
	look(&st, in(path, NULL), AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
	if (S_ISLNK(st.st_mode)) {
		char s[PATH_MAX];
		ssize_t n = readlink(path, s, sizeof s - 1);
		s[n > 0 ? n : 0] = 0;
		say(" to %s", s);
	}
	char attrs[2000];
	ssize_t n = llistxattr(path, attrs, sizeof attrs);
	char *all[200];
	int count = 0;
	for (char *s = attrs; n > 0 && s < attrs + n; s += strlen(s) + 1)
		if (!strncmp(s, "user.", 5))
			all[count++] = s;
	qsort(all, count, sizeof *all, byname);
	for (int i = 0; i < count; i++)
		say(" %s", all[i]);
	if (S_ISREG(st.st_mode)) {
		int fd = open(path, O_RDONLY);
		if (fd < 0)
			said(fd);
		else
			content(fd);
		close(fd);
	}
	end();
	if (!S_ISDIR(st.st_mode) || strlen(path) > PATH_MAX - 300)
		return;
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	count = list(fd, all, LEN(all));
	if (count < 0) {
		said(-1);
		end();
	}
	close(fd);
	for (int i = 0; i < count; i++) {
		char *s = malloc(PATH_MAX);
		size_t len = strlen(all[i]);
		if (len && strchr("/@?", all[i][len - 1]))
			all[i][len - 1] = 0;
		snprintf(s, PATH_MAX, "%s/%s", path, all[i]);
		if (strcmp(all[i], ".") && strcmp(all[i], ".."))
			dump(s);
		free(all[i]);
		free(s);
	}
}
