// SPDX-License-Identifier: Apache-2.0

// The transcripts of testdata/targets/netlink.c and marks.c: changes of the network,
// natively by root of the namespace.

package viewtest_test

func init() {
	privileged = append(privileged, "netlink", "marks")
}
