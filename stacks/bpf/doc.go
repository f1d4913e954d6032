// SPDX-License-Identifier: Apache-2.0

// Package bpf checks and runs classic BPF programs, the filters of SO_ATTACH_FILTER
// (socket(7)): those that libpcap compiles, and those that ping(8) and others write
// by hand.
//
// A [Program] is what [Parse] took; it does not change and is safe for concurrent
// use. [Program.Run] has the semantics of net/core/filter.c: arithmetic of 32 bits,
// a load outside of the packet or a division by zero ends the program with 0 (drop
// the packet), and loads from SKF_AD_OFF on tell of the packet instead of its bytes.
package bpf
