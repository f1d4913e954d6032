// SPDX-License-Identifier: Apache-2.0

// Several at once: of those who make one name, one wins, and nothing is lost.
#include "posix.h"

enum { RACERS = 4, ROUNDS = 30 };

static int gate[2]; // what all wait at
static int round_;

// race starts f at once in several processes, and returns how many succeeded. Others
// must fail with the errno.
static int race(int (*f)(int), int expected)
{
	int won = 0, status;
	for (round_ = 0; round_ < ROUNDS; round_++) {
		pid_t pid[RACERS];
		int winners = 0;
		need(pipe(gate), "pipe");
		fflush(stdout);
		for (int i = 0; i < RACERS; i++)
			if (!(pid[i] = fork())) {
				close(gate[1]);
				read(gate[0], &(char){ 0 }, 1);
				_exit(f(i) >= 0 ? 0 : errno == expected ? 1 : 2);
			}
		close(gate[0]);
		close(gate[1]); // off they go
		for (int i = 0; i < RACERS; i++) {
			waitpid(pid[i], &status, 0);
			winners += status == 0;
			if (status && WEXITSTATUS(status) != 1)
				won += 100000;
		}
		won += winners;
	}
	return won;
}

static const char *of(const char *what)
{
	static char s[40];
	snprintf(s, sizeof s, "%s%d", what, round_);
	return s;
}

static int excl(int i) { return open(of("f"), O_CREAT | O_EXCL | O_WRONLY, 0644); }
static int dir(int i) { return mkdir(of("d"), 0755); }
static int lnk(int i) { return link("source", of("l")); }
static int sym(int i) { return symlink("source", of("s")); }
static int fifo(int i) { return mkfifo(of("p"), 0644); }
static int gone(int i) { return unlink(of("f")); }
static int nodir(int i) { return rmdir(of("d")); }
static int noreplace(int i) { return renameat2(AT_FDCWD, (char[2]){ 'a' + i, 0 }, AT_FDCWD, of("r"), RENAME_NOREPLACE); }
static int away(int i) { return rename(of("l"), of(i % 2 ? "m" : "n")); }

static void races(void)
{
	put("source", "x");
	num(race(excl, EEXIST), "O_EXCL");
	num(race(dir, EEXIST), "mkdir");
	num(race(lnk, EEXIST), "link");
	num(race(sym, EEXIST), "symlink");
	num(race(fifo, EEXIST), "mkfifo");
	num(race(gone, ENOENT), "unlink");
	num(race(nodir, ENOENT), "rmdir");
	num(race(away, ENOENT), "rename");
	struct stat st;
	stat("source", &st);
	num(st.st_nlink, "links at last");
	int won = 0;
	for (int i = 0; i < RACERS; i++)
		put((char[2]){ 'a' + i, 0 }, "x");
	won = race(noreplace, EEXIST);
	yes(won >= 0, "RENAME_NOREPLACE came to its end");
	int left = 0;
	for (int i = 0; i < RACERS; i++)
		left += access((char[2]){ 'a' + i, 0 }, F_OK) == 0;
	num(left, "all names were moved");
}

static void appends(void)
{
	int status;
	put("log", "");
	fflush(stdout);
	for (int i = 0; i < RACERS; i++)
		if (!fork()) {
			for (int j = 0; j < 100; j++) {
				int fd = need(open("log", O_WRONLY | O_APPEND), "open");
				char line[10];
				snprintf(line, sizeof line, "%d-%05d\n", i, j);
				need(write(fd, line, 8), "write");
				close(fd);
			}
			_exit(0);
		}
	while (waitpid(-1, &status, 0) > 0)
		;
	FILE *f = fopen("log", "r");
	char line[20];
	int n = 0, order = 1, last[RACERS] = { -1, -1, -1, -1 }, i, j;
	while (fgets(line, sizeof line, f)) {
		n++;
		if (sscanf(line, "%d-%d\n", &i, &j) != 2 || i < 0 || i >= RACERS || j != last[i] + 1)
			order = 0;
		else
			last[i] = j;
	}
	num(n, "lines that several have appended");
	yes(order, "each in its order");
	mkdir("d", 0755);
	for (int k = 0; k < RACERS; k++)
		if (!fork()) { // each makes, renames and removes its own, in one directory
			for (int m = 0; m < 60; m++) {
				char a[30], b[30];
				snprintf(a, sizeof a, "d/a%d-%d", k, m);
				snprintf(b, sizeof b, "d/b%d-%d", k, m);
				put(a, "x");
				need(rename(a, b), "rename");
				if (m % 2)
					need(unlink(b), "unlink");
			}
			_exit(0);
		}
	int bad = 0;
	while (waitpid(-1, &status, 0) > 0)
		bad += status != 0;
	num(bad, "who failed in one directory");
	FILE *p = popen("ls d | wc -l", "r");
	fscanf(p, "%d", &n);
	num(n, "names that are left");
}

void race_cases(void)
{
	group("race", races);
	group("busy", appends);
}
