// SPDX-License-Identifier: Apache-2.0
//
// Mounts a file system whose server answers nothing but that it is there, on the first argument,
// and then executes the rest. It goes with the mount namespace, and its server with the program
// that is executed.

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

static int say(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return say("/dev/fuse");
	char options[100];
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd);
	if (mount("hung", argv[1], "fuse.hung", 0, options))
		return say("mount");
	char request[FUSE_MIN_READ_BUFFER + 4096];
	if (read(fd, request, sizeof request) < (int)sizeof(struct fuse_in_header))
		return say("read");
	struct {
		struct fuse_out_header head;
		struct fuse_init_out init;
	} answer = { { sizeof answer, 0, ((struct fuse_in_header *)request)->unique }, { .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096 } };
	if (write(fd, &answer, sizeof answer) != sizeof answer)
		return say("write");
	pid_t parent = getpid();
	switch (fork()) {
	case -1:
		return say("fork");
	case 0: // the server: it holds the connection, which aborts when it ends
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			sleep(1);
		return 0;
	}
	execvp(argv[2], argv + 2);
	return say(argv[2]);
}
