// SPDX-License-Identifier: Apache-2.0

// Owners: what chown(2) does and to whom it is refused, and what others may do in a
// directory of another's, in a sticky one and in a set-gid one. Most is root's to set up.
#include "posix.h"

static const char *owner(const char *path)
{
	static char turn[2][40];
	static int i;
	char *s = turn[i++ % 2];
	struct stat st;
	if (lstat(path, &st))
		return strerrorname_np(errno);
	char uid[12], gid[12];
	snprintf(uid, sizeof uid, "%d", st.st_uid);
	snprintf(gid, sizeof gid, "%d", st.st_gid);
	snprintf(s, sizeof turn[0], "%s:%s", st.st_uid == geteuid() ? "own" : uid, st.st_gid == getegid() ? "own" : gid);
	return s;
}

// mine is what everyone may try with one's own files.
static void mine(void)
{
	put("f", "x");
	mkdir("d", 0755);
	symlink("f", "l");
	symlink("nowhere", "dangling");
	chmod("f", 06755);
	is(chown("f", geteuid(), getegid()), "to oneself");
	text(look("f"), "mode then");
	chmod("f", 06755);
	is(chown("f", -1, -1), "to nobody");
	text(look("f"), "mode after that");
	is(chown("f", USER, -1), "to another user");
	text(owner("f"), "owner then");
	is(chown("f", -1, GROUP), "to another group");
	text(owner("f"), "group then");
	is(chown("f", geteuid(), getegid()), "back");
	text(owner("f"), "owner at last");
	is(lchown("l", USER, GROUP), "a link to others");
	text(owner("l"), "owner of the link");
	text(owner("f"), "owner of what it leads to");
	is(chown("dangling", -1, -1), "by a link to nothing");
	is(lchown("dangling", -1, -1), "the link to nothing");
	is(chown("d", USER, GROUP), "a directory to others");
	text(owner("d"), "owner of the directory");
	int fd = open("f", O_RDONLY), path = open("f", O_PATH);
	is(fchown(fd, USER, -1), "by a descriptor");
	text(owner("f"), "owner by a descriptor");
	is(fchown(fd, -1, -1), "by a descriptor, to nobody");
	is(fchownat(path, "", -1, GROUP, AT_EMPTY_PATH), "by O_PATH");
	text(owner("f"), "group by O_PATH");
	is(fchownat(path, "", -1, -1, 0), "of nothing");
	is(fchownat(AT_FDCWD, "f", -1, -1, 1 << 20), "unknown flag");
	chmod("f", 06777);
	is(chown("f", geteuid(), -1), "a file with set-id bits");
	text(look("f"), "which are");
	chmod("d", 06777);
	is(chown("d", geteuid(), -1), "a directory with set-id bits");
	text(look("d"), "which are its");
}

static const char *dir; // of another user's

// attempts tries everything there.
static void attempts(void)
{
	char s[8];
	if (is(chdir(dir), "%s chdir", dir))
		return;
	int fd = open("f", O_RDONLY);
	is(fd, "%s open to read", dir);
	is(open("f", O_WRONLY), "%s open to write", dir);
	is(open("f", O_RDONLY | O_NOATIME), "%s O_NOATIME", dir);
	is(access("f", W_OK), "%s access W", dir);
	is(truncate("f", 0), "%s truncate", dir);
	is(chmod("f", 0666), "%s chmod", dir);
	is(chown("f", -1, -1), "%s chown to nobody", dir);
	is(chown("f", geteuid(), -1), "%s chown", dir);
	is(utimensat(AT_FDCWD, "f", NULL, 0), "%s touch", dir);
	is(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 0 }, { 1, 0 } }, 0), "%s set times", dir);
	is(open("new", O_CREAT | O_WRONLY, 0644), "%s create", dir);
	text(owner("new"), "%s owner of that", dir);
	is(mkdir("newdir", 0755), "%s mkdir", dir);
	text(owner("newdir"), "%s owner of that directory", dir);
	text(look("newdir"), "%s mode of that directory", dir);
	is(symlink("f", "newlink"), "%s symlink", dir);
	is(link("f", "newhard"), "%s link", dir);
	is(rename("f", "g"), "%s rename", dir);
	is(rename("mine", "mine2"), "%s rename one's own", dir);
	is(rename("g", "f"), "%s rename back", dir);
	put("../open/mine3", "x");
	is(rename("../open/mine3", "f"), "%s rename over", dir);
	is(renameat2(AT_FDCWD, "../open/mine3", AT_FDCWD, "f", RENAME_EXCHANGE), "%s exchange", dir);
	is(rename("d", "../open/d"), "%s rename a directory to another", dir);
	is(unlink("f"), "%s unlink", dir);
	is(unlink("mine2"), "%s unlink one's own", dir);
	is(rmdir("d"), "%s rmdir", dir);
	is(rmdir("newdir"), "%s rmdir one's own", dir);
	is(open(".", O_RDONLY), "%s list", dir);
	is(unlink("newlink"), "%s unlink one's own link", dir);
	if (fd >= 0)
		is(read(fd, s, 1), "%s read what was open", dir);
	need(chdir(".."), "chdir");
}

static void others(void)
{
	static const struct { const char *name; int mode; } dirs[] = {
		{ "open", 0777 }, { "sticky", 01777 }, { "setgid", 02777 }, { "readonly", 0755 }, { "searchonly", 0711 }, { "closed", 0700 }, { "listonly", 0744 },
	};
	if (!root)
		return;
	chmod(".", 0755);
	for (int i = 0; i < LEN(dirs); i++) {
		char path[100];
		mkdir(dirs[i].name, 0755);
		snprintf(path, sizeof path, "%s/f", dirs[i].name);
		put(path, "x");
		snprintf(path, sizeof path, "%s/mine", dirs[i].name);
		put(path, "x");
		need(chown(path, USER, GROUP), "chown");
		snprintf(path, sizeof path, "%s/d", dirs[i].name);
		mkdir(path, 0755);
		chmod(dirs[i].name, dirs[i].mode);
	}
	for (int i = 0; i < LEN(dirs); i++) {
		dir = dirs[i].name;
		as(USER, GROUP, attempts);
	}
}

static void ofgroup(void)
{
	is(open("f", O_RDONLY), "the group reads");
	is(open("f", O_WRONLY), "the group writes");
	is(chmod("mine", 02755), "set-gid by one who is not of the group");
	text(look("mine"), "which leaves");
	is(chown("mine", -1, getegid()), "to one's own group");
	is(chmod("mine", 02755), "set-gid by one who is of the group");
	text(look("mine"), "which leaves then");
	is(chown("mine", -1, 0), "to root's group");
	is(chown("mine", USER + 1, -1), "to another user");
	int fd = open("suid", O_WRONLY);
	is(write(fd, "y", 1), "write to a set-id file");
	text(look("suid"), "which is then");
}

static void byowner(void) { is(open("u", O_RDONLY), "an owner without the mode"); }
static void bygroup(void) { is(open("u", O_RDONLY), "a group with the mode"); }
static void bygroupless(void) { is(open("u", O_RDONLY), "a group without the mode"); }
static void byothers(void) { is(open("u", O_RDONLY), "others with the mode"); }

static void groups(void)
{
	static const struct { int mode; const char *name; } devices[] = { { S_IFCHR, "character" }, { S_IFBLK, "block" } };
	for (int i = 0; i < LEN(devices); i++)
		is(mknod(devices[i].name, devices[i].mode | 0600, 0), "mknod %s", devices[i].name);
	if (!root)
		return;
	put("f", "x");
	chown("f", 0, GROUP);
	chmod("f", 0640);
	put("mine", "x");
	chown("mine", USER, 0);
	put("suid", "x");
	chmod("suid", 06777);
	as(USER, GROUP, ofgroup);
	put("u", "x");
	chown("u", USER, GROUP);
	chmod("u", 0077);
	as(USER, GROUP, byowner);
	as(USER + 1, GROUP, bygroup);
	chmod("u", 0707);
	as(USER + 1, GROUP, bygroupless);
	as(USER + 1, GROUP + 1, byothers);
}

void owner_cases(void)
{
	group("chown", mine);
	group("other", others);
	group("group", groups);
}
