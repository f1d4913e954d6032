// SPDX-License-Identifier: Apache-2.0

// The walk over the options: what is refused must be refused as the tables say.

package viewtest_test

import (
	"slices"
	"strings"

	"umrun/netmod/sockapi"
)

func init() {
	for _, kind := range []string{"tcp4", "tcp6", "udp4", "udp6", "ping4", "ping6",
		"connected4", "connected6", "listening4", "listening6", "connectedudp4", "connectedudp6"} {
		transcripts = append(transcripts, "sockopt "+kind)
	}
	transcripts = append(transcripts, "sockopt netlink")
	transcripts = append(transcripts, "effect 4", "effect 6", "urgent 4", "urgent 6")
	const quickAck = "Linux tells the mode of the moment"
	const buffers = "the stack's buffers begin larger, and may be larger"
	const oneByte = "a placeholder counts the urgent byte as one that can be read, and makes it one when another is urgent"
	differences = append(differences,
		difference{where: "urgent/alone-?", native: "poll: PRI", umrun: "poll: IN|PRI", reason: oneByte},
		difference{where: "urgent/alone-?", native: "bytes: 0", umrun: "bytes: 1", reason: oneByte},
		difference{where: "urgent/two-?", native: "read: EAGAIN", umrun: "read: 1 \"1\"", reason: oneByte},
		difference{where: "sockopt/*[46].SOL_SOCKET.SO_SNDBUF", native: "get*", umrun: "get*", reason: buffers},
		difference{where: "sockopt/*[46].SOL_SOCKET.SO_RCVBUF", native: "get*", umrun: "get*", reason: buffers},
		difference{where: "sockopt/*.SOL_SOCKET.SO_???BUF", native: "  then: 4 bytes *", umrun: "  then: 4 bytes 8388608", sometimes: true, reason: buffers},
		difference{where: "sockopt/*.IPPROTO_TCP.TCP_CONGESTION", native: "get*r*", umrun: "get*c*", reason: "Linux has cubic too, unless the administrator has chosen another"},
		difference{where: "sockopt/connected?.SOL_SOCKET.SO_INCOMING_CPU", native: "get*", umrun: "get*", sometimes: true, reason: "packets come to no processor in particular"},
		difference{where: "sockopt/connected?.IPPROTO_TCP.TCP_WINDOW_CLAMP", native: "get*", umrun: "get*", reason: "without a value there is no bound"},
		difference{where: "sockopt/connected?.IPPROTO_TCP.TCP_QUICKACK", native: "*: 4 bytes 0", umrun: "*: 4 bytes 1", sometimes: true, reason: quickAck},
		difference{where: "sockopt/connected?.IPPROTO_TCP.TCP_QUICKACK", native: "get into *", umrun: "get into *", sometimes: true, reason: quickAck},
		difference{where: "sockopt/netlink.SOL_NETLINK.NETLINK_*_MEMBERSHIP", native: "set 6[34]: EINVAL", umrun: "set 6[34]: ok", sometimes: true, reason: "how many groups there are depends on the kernel"},
		difference{where: "sockopt/*.IPPROTO_TCP.TCP_REPAIR_WINDOW", native: "get into 20 bytes: EPERM", umrun: "get into 20 bytes: EINVAL", reason: "the length is not looked at: it takes a connection in repair"},
	)
}

// promised turns the kernel's transcript of a case into what umrun must say: of
// an option that the tables refuse, each step that does not go as it does natively
// gives their errno, and there is one. Everything else is as the kernel has it.
func promised(name string, native, got []string) []string {
	option, ok := strings.CutPrefix(name, "sockopt/")
	if !ok {
		return native
	}
	native = slices.Clone(native)
	for i, line := range native {
		// The value is read before anything is looked at.
		if strings.HasPrefix(line, "set, no value: E") {
			native[i] = "set, no value: EFAULT"
		}
	}
	_, option, _ = strings.Cut(option, ".")
	if option == "SOL_SOCKET.SO_MARK" {
		return granted(native)
	}
	row, ok := refused[option]
	if !ok {
		return native
	}
	var want []string
	told := false
	for i := 0; i < len(native); i++ {
		line, then := native[i], ""
		if i+1 < len(native) && strings.HasPrefix(native[i+1], " ") { // what a set left
			i++
			then = native[i]
		}
		what, result, _ := strings.Cut(line, ": ")
		at := slices.Index(got, line)
		if at < 0 || then != "" && (at+1 == len(got) || got[at+1] != then) {
			line, then, told = what+": "+sockapi.ErrnoName(row.Errno), "", true
		}
		told = told || result == sockapi.ErrnoName(row.Errno)
		want = append(want, line)
		if then != "" {
			want = append(want, then)
		}
	}
	if !told {
		return []string{"to be refused with " + sockapi.ErrnoName(row.Errno)}
	}
	return want
}

// granted is the transcript of an option that natively takes a capability, as one
// who has it gets it: the rules that look at a mark are the program's own.
func granted(native []string) (want []string) {
	for _, line := range native {
		value, ok := strings.CutSuffix(line, ": EPERM")
		if !ok {
			want = append(want, line)
			continue
		}
		then := strings.TrimPrefix(value, "set ")
		if strings.HasSuffix(then, "bytes") {
			then = "1" // the walk's longer values begin with it
		}
		want = append(want, value+": ok", "  then: 4 bytes "+then)
	}
	return want
}

// refused has the rows that refuse, by LEVEL.NAME.
var refused = func() map[string]sockapi.Option {
	m := map[string]sockapi.Option{}
	for _, l := range sockapi.Levels() {
		for _, o := range l.Options {
			if o.Support == sockapi.Refused {
				m[l.Name+"."+o.Name] = o
			}
		}
	}
	return m
}()
