// SPDX-License-Identifier: Apache-2.0
//
// Makes the calls that take a path by the numbers of 32-bit programs, in the directory that is the
// argument, and says what each answers.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
static void say(const char *what, long result)
{
	if (result < 0)
		printf("%s %s\n", what, strerrorname_np(errno));
	else
		printf("%s %ld\n", what, result);
	fflush(stdout);
}

// start executes a program and says how it ended.
static void start(const char *what, const char *path, const char *arg)
{
	pid_t p = fork();
	if (p == 0) {
		execl(path, what, "again", arg, (char *)0);
		_exit(9);
	}
	int w;
	waitpid(p, &w, 0);
	say(what, WEXITSTATUS(w));
}

int main(int c, char **v)
{
	if (c > 2) {
		printf("executed %s\n", v[1]);
		return 7;
	}
	if (chdir(v[1])) return 1;
	char b[4096];
	int fd = open("f", O_RDONLY);
	long n = read(fd, b, 100);
	b[n>0?n:0] = 0;
	printf("f %s", n>0?b:"?\n");
	fd = syscall(SYS_open, "f", O_RDONLY);
	n = read(fd, b, 100);
	b[n>0?n:0] = 0;
	printf("open %s", n>0?b:"?\n");
	struct stat st;
	say("stat", stat("f", &st));
	printf("size %ld mode %o\n", (long)st.st_size, st.st_mode);
	long k[64];
	say("oldstat", syscall(SYS_oldstat, "f", k));
	say("stat16", syscall(SYS_stat, "f", k));
	say("lstat16", syscall(SYS_lstat, "f", k));
	struct stat64 s6;
	memset(&s6, 0, sizeof s6);
	say("stat64", syscall(SYS_stat64, "f", &s6));
	printf("%ld\n", (long)s6.st_size);
	say("fstatat64", syscall(SYS_fstatat64, AT_FDCWD, "f", &s6, 0));
	struct statx sx;
	say("statx", statx(AT_FDCWD, "f", 0, STATX_ALL, &sx));
	printf("%d\n", (int)sx.stx_size);
	DIR *d = opendir(".");
	char names[10][20];
	int n_names = 0;
	for (struct dirent *e; (e = readdir(d)) && n_names < 10;)
		if (e->d_name[0] != '.')
			strcpy(names[n_names++], e->d_name);
	qsort(names, n_names, 20, (void *)strcmp);
	for (int i = 0; i < n_names; i++)
		printf("name %s\n", names[i]);
	closedir(d);
	fd = open(".", O_RDONLY|O_DIRECTORY);
	long g = syscall(SYS_getdents, fd, b, 4096);
	say("getdents", g>0);
	close(fd);
	struct statfs sf;
	say("statfs", statfs("f", &sf)<0?-1:0);
	say("access", access("f", R_OK));
	say("faccessat", syscall(SYS_faccessat, AT_FDCWD, "f", R_OK));
	say("mkdir", mkdir("d", 0755));
	say("rename", rename("d", "e"));
	say("rmdir", rmdir("e"));
	say("symlink", symlink("f", "l"));
	n = readlink("l", b, 100);
	say("readlink", n);
	say("unlink", unlink("l"));
	say("link", link("f", "h"));
	say("unlink", unlink("h"));
	say("chmod", chmod("f", 0640));
	say("truncate", truncate("f", 2));
	say("truncate64", syscall(SYS_truncate64, "f", 3, 0));
	struct timespec ts[2]={{1, 0},{2, 0}};
	say("utimensat", utimensat(AT_FDCWD, "f", ts, 0));
	say("utimensat32", syscall(SYS_utimensat, AT_FDCWD, "f", (int[4]){1, 0, 2, 0},0));
	say("utime", syscall(SYS_utime, "f", (int[2]){5, 6}));
	stat("f", &st);
	printf("mtime %ld\n", (long)st.st_mtime);
	say("chown", chown("f", -1, -1));
	say("chown16", syscall(SYS_chown, "f", 0xffff, 0xffff));
	say("setxattr", setxattr("f", "user.x", "y", 1, 0));
	say("getxattr", getxattr("f", "user.x", b, 100));
	say("listxattr", listxattr("f", b, 100)>0);
	n = syscall(SYS_getcwd, b, 4096);
	printf("getcwd %d\n", n==(long)strlen(v[1])+1 && !strcmp(b, v[1]));
	say("creat", (fd = creat("new", 0600))<0?-1:0);
	close(fd);
	say("unlink", unlink("new"));
	say("mknod", mknod("p", S_IFIFO|0600, 0));
	unlink("p");
	say("uselib", syscall(SYS_uselib, "f"));
	say("umount", syscall(SYS_umount, "f"));
	say("mount", syscall(SYS_mount, "a", "f", "b", 0, 0));
	say("open_by_handle", syscall(SYS_open_by_handle_at, -1, b, 0));
	say("quotactl", syscall(SYS_quotactl, 0, "f", 0, 0));
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un un={AF_UNIX};
	strcpy(un.sun_path, "sock");
	say("bind", bind(s, (void*)&un, sizeof un));
	say("listen", listen(s, 1));
	int q = socket(AF_UNIX, SOCK_STREAM, 0);
	say("connect", connect(q, (void*)&un, sizeof un));
	say("unlink", unlink("sock"));
	int call[3]={q, (int)&un, sizeof un};
	say("socketcall", syscall(SYS_socketcall, 3, call));
	start("exec", "./prog", "x");
	start("script", "./script", "x");
	fd = open("/proc/self/exe", O_RDONLY);
	say("exe", fd<0?-1:0);
	n = readlink("/proc/self/exe", b, 4096);
	if (geteuid() == 0) {
		pid_t p = fork();
		if (p == 0) {
			say("chroot", chroot("."));
			chdir("/");
			say("in root", access("/f", F_OK));
			_exit(0);
		}
		waitpid(p, 0, 0);
	}
	fd = open(".", O_PATH);
	n = openat(fd, "f", O_RDONLY);
	say("O_PATH", n<0?-1:0);
	return 0;
}
