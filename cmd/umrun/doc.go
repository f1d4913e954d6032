// SPDX-License-Identifier: Apache-2.0

// Umrun runs an unmodified program on a network of its own.
//
//	umrun [flags] [--] PROGRAM [ARG...]
//
// It is thin: it turns words into a [view.Config], passes signals and job control
// through (signals.go), and turns errors into texts and exit statuses. What a
// view is and does is package view.
//
// # Which word is what
//
// The first word that is no flag is the program, unless it names a subcommand;
// after `--` it is always the program. Cobra parses; words.go settles which of
// the two it is before cobra sees the arguments, and exactly as pflag would.
//
// # Where settings come from
//
// Flags, then UMRUN_* of the environment (UMRUN_NET for --net, and so on), then
// defaults. A flag that is reserved and has nothing behind it yet is an error
// (reserved.go), never accepted and ignored.
//
// # No program
//
// `umrun` alone prints how it is used on stderr and exits with 122, as timeout(1)
// and others do with a missing operand; it starts no shell, so that a script whose
// variable was empty does not hang.
package main
