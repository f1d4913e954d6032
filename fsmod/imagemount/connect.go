// SPDX-License-Identifier: Apache-2.0

// The child's part: the mount, and the way of its descriptor to the supervisor.

package imagemount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod/detached"
)

// Connect opens /dev/fuse and makes a detached mount that waits for its server. Type is
// shown behind "fuse." in /proc/mounts, and source as what is mounted.
func Connect(typ, source string) (tree int, dev *os.File, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	if tree, err = mount(fd, typ, source); err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("mount fuse.%s: %w", typ, err)
	}
	return tree, os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// maxSource is the longest value that fsconfig(2) takes, bytes without the NUL.
const maxSource = 255

// mount makes the detached mount of dev.
func mount(dev int, typ, source string) (int, error) {
	source = strings.ReplaceAll(source[:min(len(source), maxSource)], "\n", " ")
	options := []string{
		"source=" + source, "subtype=" + typ, fmt.Sprintf("fd=%d", dev), "rootmode=40000",
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()), "ro",
	}
	if os.Geteuid() == 0 {
		options = append(options, "allow_other", "default_permissions")
	}
	return detached.Mount("fuse", options, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// maxAnswer bounds the text of an error, in bytes.
const maxAnswer = 4096

// Supported says why this user cannot mount images here; nil: nothing speaks against it.
func Supported() error {
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		return &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	return nil
}

// Pair makes the two ends that Send, Ask and Receive take.
func Pair() (child *os.File, supervisor *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "images")
	defer f.Close() // FileConn duplicates
	c, err := net.FileConn(f)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[1]), "images"), c.(*net.UnixConn), nil
}

// Send gives dev to the supervisor at the other end of link, as that of mount n, and
// waits until it is served.
func Send(link *os.File, n int, dev *os.File) error {
	_, err := exchange(link, n, unix.UnixRights(int(dev.Fd())))
	return err
}

// Ask returns the detached mount that the supervisor at the other end of link has for mount n.
func Ask(link *os.File, n int) (tree int, err error) {
	oob, err := exchange(link, n, nil)
	if err != nil {
		return -1, err
	}
	return descriptor(oob)
}

// exchange asks and waits for the answer.
func exchange(link *os.File, n int, rights []byte) (oob []byte, err error) {
	if err := unix.Sendmsg(int(link.Fd()), binary.LittleEndian.AppendUint32(nil, uint32(n)), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	answer, oob := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4))
	switch got, oobn, _, _, err := unix.Recvmsg(int(link.Fd()), answer, oob, unix.MSG_CMSG_CLOEXEC); {
	case err != nil || got == 0:
		return nil, fmt.Errorf("nobody serves: %w", errors.Join(err, unix.EIO))
	case answer[0] != 0:
		return nil, fmt.Errorf("%s: %w", answer[1:got], unix.EIO)
	default:
		return oob[:oobn], nil
	}
}

// Receive answers what Send and Ask want, until the other end is closed: with what serve says,
// whose dev is nil if a mount was asked for, which it then returns. That is closed here.
func Receive(c *net.UnixConn, serve func(n int, dev *os.File) (tree *os.File, err error)) error {
	for {
		b, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
		got, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil || got < len(b) {
			return err
		}
		var dev, tree *os.File
		if oobn > 0 {
			var fd int
			if fd, err = descriptor(oob[:oobn]); err == nil {
				unix.CloseOnExec(fd)
				dev = os.NewFile(uintptr(fd), "/dev/fuse")
			}
		}
		if err == nil {
			tree, err = serve(int(binary.LittleEndian.Uint32(b)), dev)
		}
		answer, rights := []byte{0}, []byte(nil)
		if err != nil {
			answer = append([]byte{1}, err.Error()[:min(len(err.Error()), maxAnswer-1)]...)
		}
		if tree != nil {
			rights = unix.UnixRights(int(tree.Fd()))
		}
		_, _, err = c.WriteMsgUnix(answer, rights, nil)
		if tree != nil {
			tree.Close()
		}
		if err != nil {
			return err
		}
	}
}

// descriptor takes the one out of a control message.
func descriptor(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("no descriptor: %w", errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("no descriptor: %w", errors.Join(err, unix.EBADMSG))
	}
	return fds[0], nil
}
