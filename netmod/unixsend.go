// SPDX-License-Identifier: Apache-2.0

// What AF_UNIX messages carry beside their bytes, where they are sent from here: descriptors
// and credentials are the program's.

package netmod

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// maxRights is SCM_MAX_FD of include/net/scm.h: how many descriptors a message carries.
const maxRights = 253

// carry puts into s what the control messages of x mean to the calling thread, as
// net/core/scm.c:__scm_send.
func (s *sending) carry(c *intercept.Call, x *transfer) error {
	messages, err := unix.ParseSocketControlMessage(x.ancillary)
	if err != nil {
		return unix.EINVAL
	}
	if me == 0 { // else the kernel knows: the user is the same, and the process we may not say
		if err := s.introduce(c, nil); err != nil {
			return err
		}
	}
	for i := range messages {
		msg := &messages[i]
		switch {
		case msg.Header.Level != unix.SOL_SOCKET:
		case msg.Header.Type == unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(msg)
			if err != nil {
				return unix.EINVAL
			}
			if len(s.files)+len(fds) > maxRights {
				return unix.EINVAL
			}
			var ours []int
			for _, fd := range fds {
				dup, err := c.Dup(fd)
				if err != nil {
					return err
				}
				s.files, ours = append(s.files, dup), append(ours, dup)
			}
			s.control = append(s.control, unix.UnixRights(ours...)...)
		case msg.Header.Type == unix.SCM_CREDENTIALS:
			theirs, err := unix.ParseUnixCredentials(msg)
			if err != nil {
				return unix.EINVAL
			}
			if err := s.introduce(c, theirs); err != nil {
				return err
			}
		default:
			return unix.EINVAL
		}
	}
	return nil
}

// introduce has the message say who sends it: what the program claims, if it may, or else what
// the kernel would say of it.
func (s *sending) introduce(c *intercept.Call, claim *unix.Ucred) error {
	who := int32(c.Task.TGID())
	users, groups, err := taskIDs(c)
	if err != nil {
		return err
	}
	s.who = &unix.Ucred{Pid: who, Uid: users[0], Gid: groups[0]} // net/core/scm.c:scm_set_cred
	if claim != nil {
		if !mayClaim(c, claim, users, groups) {
			return unix.EPERM
		}
		s.who = claim
	}
	s.own = s.who.Pid == who
	return nil
}

// ids are the real, the effective and the saved user or group of a thread.
type ids [3]uint32

// taskIDs are those of the calling thread.
func taskIDs(c *intercept.Call) (users, groups ids, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.TID))
	if err != nil || !c.Valid() { // else the number is the thread's that waits
		return users, groups, errors.Join(intercept.ErrGone, err)
	}
	read := func(name string) (v ids) {
		_, rest, _ := bytes.Cut(status, []byte("\n"+name+":"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		words := bytes.Fields(line)
		for i := range v {
			if i >= len(words) {
				err = unix.EIO
				break
			}
			n, e := strconv.ParseUint(string(words[i]), 10, 32)
			if e != nil {
				err = unix.EIO
			}
			v[i] = uint32(n)
		}
		return v
	}
	users, groups = read("Uid"), read("Gid")
	return users, groups, err
}

// mayClaim reports whether the calling thread may say that it is cred
// (net/core/scm.c:scm_check_creds). The kernel asks us, who may more.
func mayClaim(c *intercept.Call, cred *unix.Ucred, users, groups ids) bool {
	return (int(cred.Pid) == c.Task.TGID() || c.Capable(unix.CAP_SYS_ADMIN)) &&
		(slices.Contains(users[:], cred.Uid) || c.Capable(unix.CAP_SETUID)) &&
		(slices.Contains(groups[:], cred.Gid) || c.Capable(unix.CAP_SETGID))
}
