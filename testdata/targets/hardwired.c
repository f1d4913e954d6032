// SPDX-License-Identifier: Apache-2.0

// A legacy program: where its files are is compiled in. It reads its configuration,
// keeps a count of its runs, and runs a helper of its own.

#include <stdio.h>
#include <stdlib.h>

#define HOME "/opt/umrun-lab-legacy"

int main(void)
{
	char line[128] = "";
	int runs = 0;
	FILE *f = fopen(HOME "/etc/legacy.conf", "r");

	if (!f || !fgets(line, sizeof line, f)) {
		perror(HOME "/etc/legacy.conf");
		return 1;
	}
	fclose(f);
	if ((f = fopen(HOME "/var/runs", "r"))) {
		if (fscanf(f, "%d", &runs) != 1)
			runs = -1;
		fclose(f);
	}
	if (!(f = fopen(HOME "/var/runs", "w")) || fprintf(f, "%d\n", runs + 1) < 0 || fclose(f)) {
		perror(HOME "/var/runs");
		return 1;
	}
	printf("%srun %d\n", line, runs + 1);
	fflush(stdout);
	return system(HOME "/bin/helper") ? 1 : 0;
}
