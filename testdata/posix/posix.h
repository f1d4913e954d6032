// SPDX-License-Identifier: Apache-2.0

// What the cases have: groups, each in a directory and a process of its own, and
// results by name.
//
// The program is given an empty directory, and a second one on another mount, and
// prints one line per case, "GROUP/CASE: RESULT". A result holds nothing that varies
// from run to run: no times, no numbers of inodes or processes, and the directories
// by the names DIR and OUT. So what a file system answers can be held against what
// another one does (view/viewtest/posix_test.go).
#ifndef POSIX_H
#define POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// Numbers of calls that older headers lack.
enum { CALL_faccessat2 = 439, CALL_fchmodat2 = 452, CALL_setxattrat = 463, CALL_getxattrat, CALL_listxattrat, CALL_removexattrat };

#define LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define NAMED(n) __attribute__((format(printf, n, n + 1)))

// Where the cases are, as given; whether root runs them.
extern const char *base, *outside;
extern int root;

// What is no address, and null, that no compiler knows to be it.
extern void *volatile bad, *volatile null;

// The user and group that root gives files to, and becomes.
enum { USER = 61235, GROUP = 61236 };

// group runs cases in BASE/NAME, as a child with the umask 022 and a deadline.
void group(const char *name, void (*cases)(void));

// Each prints one case. is says "ok" or the errno's name, num the number or the
// errno's name, yes "yes" or "no", and text a string in which the directories are
// DIR and OUT, or the errno's name if there is none. is and num return rc.
long is(long rc, const char *name, ...) NAMED(2);
long num(long rc, const char *name, ...) NAMED(2);
void yes(int truth, const char *name, ...) NAMED(2);
void text(const char *s, const char *name, ...) NAMED(2);

// need ends the group when something fails that is not under test.
long need(long rc, const char *what);

// put makes a file with content, give reads one into a static buffer, or NULL.
void put(const char *path, const char *content);
const char *give(const char *path);

// look describes what a name is, without following it, as "file 644 2 links".
const char *look(const char *path);

// same tells whether two names are one file.
int same(const char *a, const char *b);

// where is the working directory, linked what a link says, both from the kernel.
const char *where(void);
const char *linked(const char *path);

// sorted sorts names, and puts them into a static buffer with blanks between them.
const char *sorted(char **all, int n);

// tick waits until a new time stamp differs from those made before.
void tick(void);

// moved names the stamps of b that are not those of a, of "amc".
const char *moved(const struct stat *a, const struct stat *b);

// as runs f in a process of another user, who has one group and no privileges; child
// just in a process of its own. Both return its status.
int as(uid_t uid, gid_t gid, void (*f)(void));
int child(void (*f)(void));

// within is an absolute path of a name in the group's directory.
const char *within(const char *name);

// The groups, by file.
void call_cases(void);
void open_cases(void);
void resolve_cases(void);
void stat_cases(void);
void attr_cases(void);
void owner_cases(void);
void time_cases(void);
void dir_cases(void);
void link_cases(void);
void rename_cases(void);
void exec_cases(void);
void data_cases(void);
void socket_cases(void);
void event_cases(void);
void process_cases(void);
void race_cases(void);
void chroot_cases(void);
void lower_cases(void);
void across_cases(void);

// lower_make makes what lower_cases change in a directory.
void lower_make(const char *at);

// exec_child is main when a case has executed this program; it returns if not so.
void exec_child(int argc, char **argv);

#endif
