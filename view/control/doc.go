// SPDX-License-Identifier: Apache-2.0

// Package control is how a running view is spoken to: a socket by its name, and what is said
// there.
//
// The socket of the view NAME is $XDG_RUNTIME_DIR/umrun/NAME (without the variable
// /run/user/UID/umrun/NAME, else /tmp/umrun-UID/NAME), in a directory of mode 0700 that is the
// user's. NAME.lock beside it is locked for as long as the view lives, so that one name is one
// view's, and what a killed umrun has left is replaced.
//
// A connection is one request and one answer, each a line of JSON ([Request], [Answer]).
// It is for processes of the view's user and of root alone (SO_PEERCRED, unix(7)), and not for
// those of the view, nor of another one: a program could undo what its mounts hide. They are
// known by their seccomp filters, of which they have more than the view's supervisor, and
// which nobody can take off. Where a supervisor connects for its program (package netmod), who
// writes is another than who has connected (SCM_CREDENTIALS), which is refused too.
package control
