// SPDX-License-Identifier: Apache-2.0

// Images that are written to, by the well-kept tools there are.

package view

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/fusemount"
	"umrun/fsmod/image"
)

// What writes ext2, ext3 and ext4: e2fsck puts right what was not unmounted, fuse2fs serves.
// That keeps no journal; fsync(2) writes all that it holds to the image, and syncs that.
const (
	extCheck = "e2fsck"
	extServe = "fuse2fs"
)

// extScript has the image as $1, the mount point as $2, options as $3. e2fsck -p asks nothing:
// from 4 on it has left something wrong.
const extScript = extCheck + ` -p "$1"; [ $? -lt 4 ] || exit; exec ` + extServe + ` -f -o "$3" "$1" "$2"`

// rwTools are where tools of the system are that PATH may not name.
const rwTools = "/usr/sbin:/sbin"

// Places in an ext superblock (ext4's documentation, "Super Block").
const (
	extSuper     = 1024
	extMagic     = 0x38 // u16: 0xef53
	extState     = 0x3a // u16
	extUnmounted = 1    // of extState
)

// extField reads a field of the superblock in f.
func extField(f *os.File, at int64) uint16 {
	var b [2]byte
	_, _ = f.ReadAt(b[:], extSuper+at) // of what is too short it is 0
	return binary.LittleEndian.Uint16(b[:])
}

// checkWritable tells why the image of m, which is in file, cannot be written to.
func checkWritable(m fsmod.Mount, file string) error {
	ro := m
	ro.ReadOnly = true
	cow := fmt.Sprintf("-m %v -m cow:UPPER:%s (what is written is kept in the directory UPPER)", ro, m.Target)
	bad := func(err error) error {
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Try: []string{cow}, Err: err}
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	if extField(f, extMagic) != 0xef53 {
		what := errors.New("it is no image that umrun knows")
		if fs, err := image.Open(file); err == nil {
			what = fmt.Errorf("it is %s, and only ext2, ext3 and ext4, not compressed, can be written to", fs.Format())
			fs.Close()
		}
		return bad(what)
	}
	for _, tool := range []string{extCheck, extServe} {
		if !haveTool(tool) {
			pkg := map[string]string{extCheck: "e2fsprogs", extServe: "fuse2fs"}[tool]
			return &Problem{Code: ExitMachine, What: fmt.Sprintf("-m %v: writing to ext4 takes %s, which is not installed", m, tool), Try: []string{"apt-get install " + pkg, cow}}
		}
	}
	return nil
}

// haveTool looks for a tool.
func haveTool(name string) bool {
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	for _, dir := range filepath.SplitList(rwTools) {
		if unix.Access(filepath.Join(dir, name), unix.X_OK) == nil {
			return true
		}
	}
	return false
}

// serveWritable is what serves the image of m, which is in file, to be written to. It holds the
// image until the command has ended.
func serveWritable(m fsmod.Mount, file string) (c fusemount.Config, err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return c, &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
	}
	if err := holdImage(f, m, unix.LOCK_EX); err != nil {
		f.Close()
		return c, err
	}
	c.Hold = f
	options := "fakeroot,allow_other,default_permissions"
	if os.Geteuid() != 0 {
		// All is shown as the user's own: what is another's nobody could write to.
		options = "fakeroot,uid=" + strconv.Itoa(os.Geteuid()) + ",gid=" + strconv.Itoa(os.Getegid())
	}
	if file != m.Source {
		file = fusemount.Held // it is ours alone
	}
	c.Command = func(point string) []string {
		return []string{shell, "-c", "PATH=$PATH:" + rwTools + "; " + extScript, "sh", file, point, options}
	}
	return c, nil
}

// holdImage locks an image against views that would have it otherwise: many may read, or one
// write.
func holdImage(f *os.File, m fsmod.Mount, how int) error {
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		what := "it is mounted already, to be written to"
		if how == unix.LOCK_EX {
			what = "it is mounted already"
		}
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %s", m, what), Try: []string{"a copy of the image"}, Err: unix.EBUSY}
	}
	return nil // a file system without locks
}

// unmounted reports whether an image that was written to says that it was unmounted: of what
// fuse2fs could not write at its end its exit status says nothing.
func unmounted(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return extField(f, extState)&extUnmounted != 0
}
