// SPDX-License-Identifier: Apache-2.0

// Rules: the declaration of what is intercepted, and the table that finds the
// handlers of a call.

package intercept

import "golang.org/x/sys/unix"

// A Rule says what becomes of the calls that it matches. A call that no rule
// matches is the kernel's and costs nothing but the filter.
type Rule struct {
	Arch    Arch
	NR      int   // number in the table of Arch
	Args    []Arg // all must hold; none: every call
	Do      Verdict
	Handler Handler // of Notify

	// Pass, if set, is asked first: whether the call continues, as if Handler had
	// answered [Continue], and what it is about, for the [Meter]. Only the first rule
	// that matches a call is asked. It runs where Handle does and must not block.
	Pass func(*Glance) (about string, ok bool)

	// Apart says that the Handler may run beside any other one, and is over when it has
	// answered or parked the call: few of its calls make goroutines run, and those can wait
	// until another processor of the runtime has them. Such calls may be answered faster.
	Apart bool
}

// Rules is a list of rules. A Deny that matches wins over every Notify, as in the
// kernel (seccomp(2), precedence of actions); of two Deny the first wins. Several
// handlers of one call are asked in the order of their rules until one answers
// something else than [Next]; when none does, the call continues.
//
// Rules of I386 are ignored on machines that have no such entry.
type Rules []Rule

// A Verdict is what the filter answers: [Notify] or [Deny].
type Verdict struct {
	deny  bool
	errno unix.Errno
}

// Notify hands the call to the rule's Handler. It is the zero Verdict.
var Notify = Verdict{}

// Deny makes the call fail with errno in the filter itself, without asking
// anybody, and so also after the supervisor's death. Deny(0) makes it return 0
// and do nothing.
func Deny(errno unix.Errno) Verdict { return Verdict{deny: true, errno: errno} }

// An Arg is a condition on an argument as it stands in its register.
type Arg struct {
	index int
	op    argOp
	mask  uint64
	value uint64
}

type argOp uint8

const (
	argMasked  argOp = iota // args[index] & mask == value
	argNonZero              // args[index] != 0
)

// ArgNonZero holds when argument i (from 0) is not zero in all of its 64 bits: the
// test for a pointer.
func ArgNonZero(i int) Arg { return Arg{index: i, op: argNonZero} }

// ArgEqual32 holds when the low 32 bits of argument i are v: the test for an int,
// of which the kernel ignores the upper half.
func ArgEqual32(i int, v uint32) Arg { return ArgMasked(i, 0xffffffff, uint64(v)) }

// ArgMasked holds when argument i, masked by mask, is v.
func ArgMasked(i int, mask, v uint64) Arg {
	return Arg{index: i, op: argMasked, mask: mask, value: v & mask}
}

// holds evaluates the condition outside of the filter.
func (a Arg) holds(args *[6]uint64) bool {
	if a.op == argNonZero {
		return args[a.index] != 0
	}
	return args[a.index]&a.mask == a.value
}

// matches reports whether all conditions of the rule hold.
func (r *Rule) matches(args *[6]uint64) bool {
	for _, a := range r.Args {
		if !a.holds(args) {
			return false
		}
	}
	return true
}

// sysno names a call in one of the tables.
type sysno struct {
	arch Arch
	nr   int
}

// table holds the rules of the calls that are notified, by entry and number. Read-only
// once made.
type table [I386 + 1][]tableEntry

type tableEntry struct {
	rules []*Rule

	// pass is the first rule's, if that one matches every call.
	pass func(*Glance) (about string, ok bool)

	apart bool // all of them are
}

func newTable(rules Rules) *table {
	t := new(table)
	for i := range rules {
		r := &rules[i]
		if r.Do.deny {
			continue
		}
		if more := r.NR + 1 - len(t[r.Arch]); more > 0 {
			t[r.Arch] = append(t[r.Arch], make([]tableEntry, more)...)
		}
		e := &t[r.Arch][r.NR]
		if len(e.rules) == 0 && len(r.Args) == 0 {
			e.pass = r.Pass
		}
		e.apart = r.Apart && (e.apart || len(e.rules) == 0)
		e.rules = append(e.rules, r)
	}
	return t
}

// of returns what there is for a call.
func (t *table) of(arch Arch, nr int) *tableEntry {
	if nr < 0 || nr >= len(t[arch]) {
		return new(tableEntry)
	}
	return &t[arch][nr]
}

// passing returns Pass of the first rule that matches, or nil.
func (e *tableEntry) passing(args *[6]uint64) func(*Glance) (about string, ok bool) {
	if e.pass != nil {
		return e.pass
	}
	for _, r := range e.rules {
		if r.matches(args) {
			return r.Pass
		}
	}
	return nil
}

// handlers appends to hs the handlers whose rules match.
func (e *tableEntry) handlers(hs []Handler, args *[6]uint64) []Handler {
	for _, r := range e.rules {
		if r.matches(args) {
			hs = append(hs, r.Handler)
		}
	}
	return hs
}
