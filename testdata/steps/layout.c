// SPDX-License-Identifier: Apache-2.0

// The trees that the steps are in, and what is mounted there.
#include "steps.h"
#include <sys/mount.h>
#include <sys/xattr.h>

// Mounts are made in this order. A place is the child of another one's or of the tree's
// root: what lies above a place cannot be moved in a view, natively it can.
static const struct layout layouts[] = {
	{ "many", {
		{ "bind", "b", "b", 0 },
		{ "tmpfs", "", "b/t", 0 },
		{ "ro", "r", "r", 0 },
		{ "bind", "w", "r/w", 0 },
		{ "tmpfs", "", "t", 0 },
		{ "cow", "", "c", 1 },
		{ "bind", "d", "c/w", 0 },
		{ "merge", "m", "m", 1 },
		{ "hide", "", "h", 0 },
		{ "hide", "", "hf", 0 },
		{ "file", "ff", "ff", 0 },
		{ "bind", "g", "gf", 0 },
		{ "bind", "e", "k", 0 },
		{ "away", "", "e", 1 },
	} },
	{ "nested", {
		{ "bind", "b", "b", 0 },
		{ "cow", "", "b", 1 },
		{ "bind", "d", "b/t", 0 },
		{ "bind", "g", "b/gf", 0 },
		{ "tmpfs", "", "b/w", 0 },
		{ "merge", "m", "m", 1 },
		{ "cow", "", "m", 1 },
		{ "ro", "w", "m/w", 0 },
		{ "cow", "", "c", 1 },
		{ "hide", "", "c/h", 0 },
		{ "bind", "e", "k", 0 },
	} },
	{ "binds", {
		{ "bind", "b", "b", 0 },
		{ "bind", "w", "b/t", 0 },
		{ "ro", "r", "r", 0 },
		{ "bind", "d", "r/w", 0 },
		{ "bind", "e", "k", 0 },
		{ "bind", "c", "c", 0 },
		{ "tmpfs", "", "t", 0 },
		{ "bind", "g", "gf", 0 },
	} },
	{ "all", {
		{ "cow", "", "", 1 },
		{ "bind", "b", "b", 0 },
		{ "tmpfs", "", "t", 0 },
		{ "bind", "d", "k", 0 },
		{ "ro", "r", "r", 0 },
	} },
};

const struct layout *layout = layouts;

int layout_named(const char *name)
{
	for (layout = layouts; layout < layouts + LEN(layouts); layout++)
		if (!strcmp(layout->name, name))
			return 1;
	return 0;
}

static const char *under(const char *dir, const char *name)
{
	static char turn[256][PATH_MAX];
	static int i;
	char *s = turn[i++ % LEN(turn)];
	snprintf(s, sizeof turn[0], "%s%s%s", dir, *name ? "/" : "", name);
	return s;
}

static const char *from(const char *name)
{
	char src[PATH_MAX];
	snprintf(src, sizeof src, "%s/src", place);
	return under(src, name);
}

static void put(const char *dir, const char *name, const char *text, mode_t mode)
{
	int fd = need(open(under(dir, name), O_WRONLY | O_CREAT | O_TRUNC, 0644), name);
	need(write(fd, text, strlen(text)), "write");
	need(fchmod(fd, mode), "fchmod");
	close(fd);
}

static void copy(const char *dir, const char *name)
{
	static char all[4 << 20];
	int fd = need(open(self, O_RDONLY), self);
	ssize_t n = need(read(fd, all, sizeof all), "read");
	close(fd);
	fd = need(open(under(dir, name), O_WRONLY | O_CREAT | O_TRUNC, 0755), name);
	need(write(fd, all, n), "write");
	close(fd);
}

// fill makes names in a directory and those in it, some of which lead to others.
static void fill(const char *dir, const char *abroad, int deep)
{
	char text[PATH_MAX];
	if (mkdir(dir, 0755) && errno != EEXIST)
		need(-1, dir);
	snprintf(text, sizeof text, "f of %s", dir + strlen(place));
	put(dir, "f", text, 0644);
	need(symlink(deep == 1 ? "d" : "../f", under(dir, "l")), "symlink");
	snprintf(text, sizeof text, "%s/%s/d", top, abroad);
	need(symlink(deep == 2 ? "../../t/d" : text, under(dir, "n")), "symlink");
	if (deep < 3) {
		fill(under(dir, "d"), abroad, deep + 1);
		fill(under(dir, "e"), abroad, deep + 1);
	}
	if (deep > 1)
		return;
	put(dir, "gf", "covered", 0644);
	put(dir, "g", "short", 0640);
	need(link(under(dir, "g"), under(dir, "d/g")), "link");
	setxattr(under(dir, "f"), "user.one", "1", 1, 0);
	// For what may be mounted there.
	mkdir(under(dir, "t"), 0755);
	mkdir(under(dir, "w"), 0755);
	mkdir(under(dir, "h"), 0755);
}

void layout_make(void)
{
	char deep[PATH_MAX];
	snprintf(deep, sizeof deep, "%s", place);
	for (char *s = top + strlen(place); s; s = strchr(s + 1, '/')) {
		snprintf(deep, s - top + 1, "%s", top);
		mkdir(deep, 0755);
	}
	need(mkdir(top, 0755), top);
	need(mkdir(from(""), 0755), "src");
	snprintf(deep, sizeof deep, "%s/up", place);
	need(mkdir(deep, 0755), "up");
	static const char *const all[] = { "a", "b", "c", "d", "e", "k", "m", "r", "t", "w" };
	for (int i = 0; i < LEN(all); i++) {
		fill(under(top, all[i]), all[(i + 1) % LEN(all)], 1);
		fill(from(all[i]), all[(i + 3) % LEN(all)], 1);
	}
	need(mkdir(under(top, "h"), 0755), "h");
	put(top, "h/secret", "secret", 0644);
	put(top, "hf", "secret", 0644);
	put(top, "ff", "covered", 0644);
	put(top, "gf", "covered", 0644);
	put(top, "f", "of the tree", 0644);
	put(from(""), "ff", "a file of its own", 0644);
	put(from(""), "g", "a file of the host's", 0644);
	copy(under(top, "a"), "x");
	copy(under(top, "c"), "x");
	copy(from("b"), "x");
	put(top, "a/y", "#!/proc/self/cwd/x -say\n", 0755);
	put(from("e"), "y", "#!d/../x -say\n", 0755);
	put(from("b"), "y", "#!x -say\n", 0755);
}

static void overlay(const char *over, const char *at, int n)
{
	char options[4 * PATH_MAX], up[PATH_MAX / 2], work[PATH_MAX];
	if (over) {
		snprintf(options, sizeof options, "lowerdir=%s:%s,userxattr", over, at);
	} else {
		snprintf(up, sizeof up, "%s/up/%d", place, n);
		mkdir(up, 0755);
		snprintf(work, sizeof work, "%s/work", up);
		mkdir(work, 0755);
		snprintf(work, sizeof work, "%s/upper", up);
		mkdir(work, 0755);
		snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr,index=off,metacopy=off", at, up, up);
		struct stat st;
		need(stat(at, &st), at);
		need(chown(work, st.st_uid, st.st_gid), "chown");
		need(chmod(work, st.st_mode & 07777), "chmod");
	}
	need(mount("overlay", at, "overlay", 0, options), options);
}

void layout_mount(void)
{
	need(unshare(CLONE_NEWNS), "unshare");
	need(mount("", "/", "", MS_REC | MS_PRIVATE, ""), "private");
	char none[PATH_MAX], s[PATH_MAX];
	for (int i = 0; i < LEN(layout->mounts) && layout->mounts[i].kind; i++) {
		const struct mount *m = &layout->mounts[i];
		const char *at = under(top, m->at);
		struct stat st;
		need(stat(at, &st), at);
		if (!strcmp(m->kind, "bind") || !strcmp(m->kind, "ro")) {
			need(mount(from(m->from), at, "", MS_BIND, ""), at);
			if (!strcmp(m->kind, "ro"))
				need(mount("", at, "", MS_BIND | MS_REMOUNT | MS_RDONLY, ""), at);
		} else if (!strcmp(m->kind, "tmpfs")) {
			snprintf(s, sizeof s, "mode=755,uid=%d,gid=%d", st.st_uid, st.st_gid);
			need(mount("tmpfs", at, "tmpfs", 0, s), at);
		} else if (!strcmp(m->kind, "cow") || !strcmp(m->kind, "away")) {
			overlay(NULL, at, i);
		} else if (!strcmp(m->kind, "merge")) {
			overlay(from(m->from), at, i);
		} else if (!strcmp(m->kind, "file")) {
			snprintf(s, sizeof s, "%s/copied", place);
			rename(from(m->from), s);
			need(mount(s, at, "", MS_BIND, ""), at);
		} else {
			snprintf(none, sizeof none, "%s/none", place);
			mkdir(none, 0755);
			need(mount("tmpfs", none, "tmpfs", 0, "mode=755"), none);
			snprintf(s, sizeof s, "%s/none/0", place);
			if (S_ISDIR(st.st_mode))
				need(mkdir(s, 0), s);
			else
				need(mknod(s, S_IFREG, 0), s);
			need(chown(s, st.st_uid, st.st_gid), s);
			need(mount(s, at, "", MS_BIND, ""), at);
			need(mount("", at, "", MS_BIND | MS_REMOUNT | MS_RDONLY, ""), at);
			need(umount2(none, MNT_DETACH), none);
		}
	}
}

void layout_flags(void)
{
	for (int i = 0; i < LEN(layout->mounts) && layout->mounts[i].kind; i++) {
		const struct mount *m = &layout->mounts[i];
		const char *at = under(top, m->at);
		if (!strcmp(m->kind, "bind") || !strcmp(m->kind, "ro") || !strcmp(m->kind, "merge") || !strcmp(m->kind, "file"))
			printf("%s:%s:%s%s\n", strcmp(m->kind, "ro") ? m->kind : "bind", from(m->from), at, strcmp(m->kind, "ro") ? "" : ":ro");
		else if (!strcmp(m->kind, "cow"))
			printf("cow:%s/up/%d:%s\n", place, i, at);
		else
			printf("%s:%s\n", strcmp(m->kind, "away") ? m->kind : "cow:", at);
	}
}

const struct mount *in(const char *path, int *root)
{
	const struct mount *best = NULL;
	size_t longest = 0;
	if (root)
		*root = 0;
	size_t n = strlen(top);
	if (strncmp(path, top, n) || path[n] && path[n] != '/')
		return NULL;
	path += n + !!path[n];
	for (int i = 0; i < LEN(layout->mounts) && layout->mounts[i].kind; i++) {
		const struct mount *m = &layout->mounts[i];
		size_t len = strlen(m->at);
		if (!strncmp(path, m->at, len) && (!len || !path[len] || path[len] == '/') && (!best || len >= longest)) {
			best = m;
			longest = len;
			if (root)
				*root = !path[len];
		}
	}
	return best;
}
