// SPDX-License-Identifier: Apache-2.0

// Package view builds a view and runs a program in it: it is the only place that
// knows every part, and the API for Go programs that want a view without the
// umrun command.
//
//	func main() {
//		view.Init() // first: the process that becomes the program is a copy of this one
//		n, _ := view.ParseNetwork("office.conf")
//		v, err := view.Start(ctx, view.Config{Networks: []view.Network{n}, Argv: os.Args[1:], Log: log})
//		...
//		status, err := v.Wait(ctx)
//		v.Close()
//	}
//
// # From a SPEC to a program
//
// [ParseNetwork] reads one SPEC of the command line and touches nothing.
// [MakePlan] checks a [Config], reads the files it names and the machine's
// resolv.conf, and finds the program; a [Plan] can be printed and holds no
// secrets that show. [Plan.Start] then does, in this order:
//
//	link      WireGuard, NAT, a proxy, VDE, a TAP or TUN: opened, with the first
//	          handshakes under way; of each network
//	stack     a netstack on it, or the kernel's in a private namespace, with the
//	          addresses and routes of the plan; several are joined by multihome
//	wait      until the link is up, and the network has told its configuration
//	          where it is to do so, at most Config.Wait
//	module    netmod: socket calls -> stack; the DNS stub, which asks through
//	          the stack; the rules for doors to the host's daemons. fsmod: with a
//	          userspace stack /proc/net and /sys/class/net, mounts of the trap engine,
//	          devices. observe: captures, flows
//	program   intercept: forked, with the mounts of the ns engine made, filtered, executed
//
// A network that a VPN client brings has a view of its own for that client, which is
// started and ended with the network's stack ([provider]).
//
// [View.Wait] waits for the program, ends what it left behind, and waits until
// what it wrote was acknowledged. [View.Close] takes all down in reverse. What of a view
// is outside of umrun's own process goes with it: a helper that holds the private
// namespace of a kernel stack, a device that it has made, the socket of a VDE plug, the
// command of a provider, that of a mount, which a process of ours outlives umrun to end,
// the control socket of a view that has a name, and a directory of fsmod's; if umrun was
// killed, the next view of that name replaces the one, and the next view removes the other.
//
// # What the program cannot use
//
// The program and what it starts are in a Landlock domain (intercept), and look into nobody
// else: not into umrun, nor its helpers, the client of a provider and the commands that
// serve mounts, of which none is in it. With mounts of the trap engine umrun opens files
// for the program, and fsmod keeps it from the same ones ([View.has]).
//
// # Networks that tell
//
// Where a SPEC says dhcp, slaac or the like, a client of package netconf stands between
// link and stack. What it learns, a learner applies: to the stack's State as if the
// program had run ip(8), in turn with the program's own changes once there is a module,
// and to the DNS stub. It goes on until the stack closes its link.
//
// # Errors
//
// What a person can mend is a [Problem]: what failed, why, what to try, and the
// exit status. [Report] prints any error in that form.
//
// # Goroutines and locks
//
// While a view runs there are of this package those that publish ports: one for
// --publish-all, and those of each port that is relayed; one that receives the mounts of
// images from the child; one that waits for each mount to go that a program has made of an image, or
// was removed and is in use; of a provider, and of a command that serves a mount, those that hear what
// it says and wait for its end, and of a provider the one that reads what it writes to resolv.conf. Each Close waits for its own. A learner's lock,
// and a farStack's, is held while what it learned is applied, before those of the module
// and the stack; those of published ports, of the names of flows, of images and of what
// a command has said are leaves. The parts own theirs, and Close waits for them. A process
// can have any number of views one after the other, and several at once.
package view
