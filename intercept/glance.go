// SPDX-License-Identifier: Apache-2.0

// Glances: calls that go on before anybody has looked closely.

package intercept

import "golang.org/x/sys/unix"

// A Glance is what can be known of a call for next to nothing, and at once: most of what
// traps in some programs is none of the supervisor's business, and a [Call] with its
// task costs more than to see that. It is the asker's until [Rule.Pass] returns.
type Glance struct {
	TID  int        // as in Call
	Args *[6]uint64 // as in Call
}

// Marked reports whether descriptor fd of the thread's own table is the file that m is
// on. False may also mean that it cannot be known: [Call.DupFD] says why. If the thread
// has ended the answer may be about another one; nobody hears it then.
func (g *Glance) Marked(fd int, m *Mark) bool { return fd >= 0 && m.compare(g.TID, fd) == 0 }

// pass lets a call go on if the first rule that matches says so by a glance, and reports
// whether it did, and about what.
func (n *notifier) pass(r *receiver, nt *notification, of *tableEntry) (about string, ok bool) {
	pass := of.passing(&nt.args)
	if pass == nil {
		return "", false
	}
	r.glance = Glance{TID: int(nt.pid), Args: &nt.args}
	if about, ok = pass(&r.glance); ok {
		r.answered = response{id: nt.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		n.sent(n.l.send(&r.answered), int(nt.pid), int(nt.nr))
	}
	return about, ok
}
