// SPDX-License-Identifier: Apache-2.0

// Raw sockets: transcripts, and the programs that use them.

package viewtest_test

func init() {
	capable = append(capable, "raw 4", "raw 6", "rawsend 4", "rawsend 6")
}
