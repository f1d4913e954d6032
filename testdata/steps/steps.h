// SPDX-License-Identifier: Apache-2.0

// Random sequences of calls with paths, over a tree of several mounts.
//
// A run is a seed and a number of steps. What a step does depends on these two and on
// nothing else, so that steps can be left out of a run that went wrong. Each prints what
// it asked and what it was told, with nothing in it that varies from run to run: inodes
// and mounts by the order in which they were first seen, and the directory of the run as
// P. So the transcript of a view is held against that of the kernel's own mounts
// (view/viewtest/integration_steps_test.go).
#ifndef STEPS_H
#define STEPS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN(a) ((int)(sizeof(a) / sizeof((a)[0])))

extern char place[PATH_MAX / 4]; // the directory of the run
extern char top[PATH_MAX / 2];   // the tree in it that the steps are in
extern int rooted;               // there is another root: no path leads to top

// A mount of a layout. from is below PLACE/src, at below the tree.
struct mount {
	const char *kind, *from, *at;
	int copies; // it copies files before it changes them: their numbers are not compared
};

struct layout {
	const char *name;
	struct mount mounts[24];
};

extern const struct layout *layout;

int layout_named(const char *name); // 0: there is none
void layout_make(void);             // the tree and what is mounted in it, before it is mounted
void layout_mount(void);            // by the kernel, in a namespace of our own
void layout_flags(void);            // prints what a view is started with

// need ends the run when something fails that is not under test.
long need(long rc, const char *what);

// Chance, from the seed and the step: below n, or once in n.
unsigned any(unsigned n);
int once_in(int n);

#define ONE_OF(...) (((const int[]){ __VA_ARGS__ })[any(sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))])

// say adds to the line of the step, with PLACE as P; said is what a call returned; end ends it.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
long said(long rc);
void end(void);

// A path and the descriptor that it begins at.
struct path {
	int dir;
	char name[PATH_MAX];
};

// kinds of last names, for what is to be made.
enum { ANY, A_FILE, A_DIR, A_LINK };

// somewhere makes a path, and says it. flat: for calls without a descriptor.
struct path somewhere(int kind);
struct path flat(int kind);
struct path absolute(int kind);
extern int whole; // it may be a name of procfs, which is neither made nor removed
void target(char *to, size_t n); // of a symbolic link

// The descriptors that steps have.
enum { SLOTS = 6 };
extern int slot[SLOTS];
int held(int i); // the descriptor of a slot, AT_FDCWD if it has none

// Where a descriptor leads by /proc: NULL if nowhere. in is what it is mounted as, or NULL.
const char *leads(int fd);
const struct mount *in(const char *path, int *root);
const struct mount *mount_of(struct path p, int flags, int *root);

// look says what stat(2) tells.
void look(const struct stat *st, const struct mount *m, int dir, const char *path, int flags);
void look_fd(int fd, const struct stat *st); // but what was open before it was copied is as it was
void content(int fd);
void names(int fd);
void dump(const char *path); // all that is there

void change(void); // a step that changes names
void open_one(void);
void by_fd(void);  // by what is open
void ask(void);    // that only looks
void attr(void);   // attributes
void go(void);     // to another directory
void watch(void);
void program(void);

extern const char *self; // the program's own path

#endif
