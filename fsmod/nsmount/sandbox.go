// SPDX-License-Identifier: Apache-2.0

// Sandboxes that programs of the view have put themselves into.
//
// The kernel refuses mount(2) and umount2(2) to who is in a Landlock domain with rules about files,
// whatever capabilities it has: what it may not open would be found at another place
// (security/landlock/fs.c:hook_sb_mount). Our child is in no domain, and nothing tells who is in
// one. But such a domain allows no rename from one directory to another where no rule of it is
// about a directory above, whatever else it allows. So, once a program of the view has asked for a
// domain, each thread that wants to mount is made to move a file first, in a file system that
// nobody has seen before.

package nsmount

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/imagemount"
	"umrun/intercept"
)

// Numbers of the i386 entry.
const (
	i386Close     = 6
	i386Renameat2 = 353
)

// restrict notes a landlock_restrict_self(2), which goes on.
func (k *Calls) restrict(*intercept.Call) intercept.Action {
	k.domains.Store(true)
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.free) // another thread's, too, may be in the domain now
	return intercept.Continue()
}

// inDomain reports whether the caller must show first that it is in no domain that keeps it from
// mounting: then by what the handler returns, after which it makes its call again.
func (k *Calls) inDomain(n *Namespace, c *intercept.Call) (a intercept.Action, must bool) {
	if !k.domains.Load() {
		return a, false
	}
	began := began(c.TID)
	k.mu.Lock()
	was, ok := k.free[c.TID]
	delete(k.free, c.TID) // it holds for one call
	k.mu.Unlock()
	if ok && was == began && c.Valid() {
		return a, false
	}
	if !c.Injectable() {
		k.warned.Do(func() {
			k.Log.Warn("a program with a tracer or filters of its own mounts nothing: it cannot be told whether it is in a Landlock sandbox, as others of the view are", "tid", c.TID)
		})
		return intercept.Fail(unix.EPERM), true
	}
	t, err := n.trial()
	if err != nil {
		k.Log.Error("a mount by the program", "err", err)
		return intercept.Fail(unix.EPERM), true
	}
	fd, err := c.AddFD(t.dir, true)
	if err != nil {
		t.close()
		return intercept.Fail(intercept.Errno(err)), true
	}
	return c.Inject(intercept.Injection{Over: t.close, Run: func(_ int, do func(intercept.Injected) (int64, error)) (int64, error) {
		moved, err := t.move(c, uint64(fd), do)
		if err != nil || !moved {
			return -int64(unix.EPERM), err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.free == nil {
			k.free = make(map[int]string)
		}
		k.free[c.TID] = began
		return 0, intercept.ErrAgain
	}}), true
}

// began tells a thread from all others of its number: field 22 of proc_pid_stat(5).
func began(tid int) string {
	b, _ := os.ReadFile(taskFile(tid, "stat")) // of who is gone nothing is asked
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	if f := strings.Fields(rest); len(f) > 19 {
		return f[19]
	}
	return ""
}

// A trial is a file system with the file a/f, and the directory b.
type trial struct {
	dir  int // its root
	b    int // O_PATH
	file uint64
}

// The names in one, as the thread is given them.
const (
	trialFrom = "a/f\x00"
	trialTo   = "b/f\x00"
)

// trial has a child make one.
func (n *Namespace) trial() (t trial, err error) {
	theirs, ours, err := imagemount.Pair()
	if err != nil {
		return t, err
	}
	var tree *os.File
	done := make(chan struct{})
	go func() { // ends with the last copy of the child's end
		defer close(done)
		_ = imagemount.Receive(ours, func(_ int, f *os.File) (*os.File, error) {
			if f == nil { // we may have no more descriptors
				return nil, unix.EMFILE
			}
			tree = f
			return nil, nil
		})
	}()
	n.mu.Lock()
	err = n.do(order{Trial: true}, theirs)
	n.mu.Unlock()
	theirs.Close()
	<-done
	ours.Close()
	if tree != nil {
		defer tree.Close()
	}
	if err != nil {
		return t, err
	}
	if t.dir, err = openDir(int(tree.Fd()), "."); err != nil {
		return t, err
	}
	if t.b, err = openPath(t.dir, "b"); err != nil {
		unix.Close(t.dir)
		return t, err
	}
	var st unix.Stat_t
	if err = unix.Fstatat(t.dir, "a/f", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.close()
	}
	t.file = st.Ino
	return t, err
}

// makeTrial makes one, in the child.
func makeTrial(link *os.File) error {
	tree, err := newTmpfs("mode=777", "size=64k", "nr_inodes=16")
	if err != nil {
		return err
	}
	unix.Umask(0)
	for _, dir := range []string{"a", "b"} {
		if err := unix.Mkdirat(tree, dir, 0o777); err != nil {
			return err
		}
	}
	f, err := unix.Openat(tree, "a/f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	unix.Close(f)
	return imagemount.Send(link, 0, os.NewFile(uintptr(tree), "trial"))
}

// move has the caller move the file to b, by its descriptor fd, which it closes. Other threads may
// have the descriptor, too, and do there what their domain lets them; but not bring that file to
// that directory.
func (t trial) move(c *intercept.Call, fd uint64, do func(intercept.Injected) (int64, error)) (moved bool, err error) {
	renameat2, closeNR := unix.SYS_RENAMEAT2, unix.SYS_CLOSE
	if c.Arch == intercept.I386 {
		renameat2, closeNR = i386Renameat2, i386Close
	}
	result, err := fsmod.OnPage(c, do, []byte(trialFrom+trialTo), func(_ int, at uint64) (int64, error) {
		return do(intercept.Injected{NR: renameat2, Args: [6]uint64{fd, at, fd, at + uint64(len(trialFrom))}})
	})
	if err == nil {
		_, err = do(intercept.Injected{NR: closeNR, Args: [6]uint64{fd}})
	}
	var st unix.Stat_t
	if err != nil || result != 0 || unix.Fstatat(t.b, "f", &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false, err
	}
	return st.Ino == t.file, nil
}

func (t trial) close() {
	unix.Close(t.b)
	unix.Close(t.dir)
}
