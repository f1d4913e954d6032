// SPDX-License-Identifier: Apache-2.0

// The supervisor's part: what answers the kernel.

package imagemount

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"umrun/fsmod/image"
)

// forever is how long the kernel may keep what does not change.
const forever = 24 * time.Hour

// maxWait is how long Close waits for the mount to go.
const maxWait = 2 * time.Second

// A Server serves one mount.
type Server struct {
	fuse.RawFileSystem // ENOSYS to what is not below

	fsys  image.FS
	names *image.Names
	size  int64
	as    *Owner
	log   *slog.Logger
	done  chan struct{} // closed when the mount is gone

	mu    sync.Mutex
	last  uint64                // guarded by mu, as is the next
	files map[uint64]image.File // by handle
}

// An Owner is whom all files of a mount belong to, in place of their own owners.
type Owner struct{ UID, GID uint32 }

// Serve answers what the kernel asks of dev, whose mount [Connect] made. dev is the
// Server's from then on, fsys stays the caller's; size is what statfs(2) tells of it; as
// may be nil.
func Serve(dev *os.File, fsys image.FS, size int64, as *Owner, log *slog.Logger) (*Server, error) {
	s := &Server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		fsys:          fsys, names: image.NewNames(fsys), size: size, as: as, log: log,
		done: make(chan struct{}), files: map[uint64]image.File{},
	}
	// The library closes the descriptor that it is given.
	defer dev.Close()
	fd, err := unix.FcntlInt(dev.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	server, err := fuse.NewServer(s, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		Name: fsys.Format(), EnableSymlinkCaching: true, DisableSplice: true,
		Logger: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		PanicHandler: func(p any) fuse.Status {
			log.Error("image", "panic", fmt.Sprint(p))
			return fuse.EIO
		},
	})
	if err != nil {
		return nil, fmt.Errorf("serve the mount: %w", err)
	}
	go func() { // ends with the mount
		defer close(s.done)
		server.Serve()
	}()
	return s, nil
}

// Close waits for the mount to be gone, and closes the files that were open in it. A
// mount that somebody holds on to is an error after some time: then the image is still
// needed.
func (s *Server) Close() error {
	select {
	case <-s.done:
		s.mu.Lock()
		for _, f := range s.files { // a mount that goes closes none
			_ = f.Close()
		}
		clear(s.files)
		s.mu.Unlock()
		return nil
	case <-time.After(maxWait):
		return errors.New("the image is still mounted somewhere")
	}
}

// Done is closed when the mount is gone.
func (s *Server) Done() <-chan struct{} { return s.done }

// node is the number by which the kernel knows an object; 1 is the root, by protocol.
func (s *Server) node(id image.ID) uint64 {
	if id == s.fsys.Root() {
		return fuse.FUSE_ROOT_ID
	}
	return uint64(id) + 2
}

func (s *Server) id(node uint64) image.ID {
	if node == fuse.FUSE_ROOT_ID {
		return s.fsys.Root()
	}
	return image.ID(node - 2)
}

// status is the errno of an error.
func (s *Server) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	if errno == unix.EIO {
		s.log.Warn("image", "format", s.fsys.Format(), "err", err)
	}
	return fuse.Status(errno)
}

// attr puts the attributes of an object into out.
func (s *Server) attr(id image.ID, out *fuse.Attr) error {
	a, err := s.fsys.Attr(id)
	if err != nil {
		return err
	}
	major, minor := unix.Major(a.Rdev), unix.Minor(a.Rdev)
	*out = fuse.Attr{
		Ino: a.Ino, Size: uint64(a.Size), Blocks: uint64(a.Size+511) / 512, Mode: a.Mode, Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID}, Blksize: 4096,
		Rdev: minor&0xff | major<<8 | minor&^0xff<<12, // new_encode_dev of linux/kdev_t.h
	}
	if s.as != nil {
		out.Owner = fuse.Owner{Uid: s.as.UID, Gid: s.as.GID}
	}
	out.SetTimes(&a.Atime, &a.Mtime, &a.Ctime)
	return nil
}

// entry fills what tells of a name.
func (s *Server) entry(id image.ID, out *fuse.EntryOut) error {
	if err := s.attr(id, &out.Attr); err != nil {
		return err
	}
	out.NodeId = s.node(id)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return nil
}

// String is the name that the library logs.
func (s *Server) String() string { return s.fsys.Format() }

// Lookup is LOOKUP: a name that is not there is told as number 0, to be remembered.
func (s *Server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	e, err := s.names.Lookup(s.id(h.NodeId), name)
	if errors.Is(err, unix.ENOENT) {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if err == nil {
		err = s.entry(e.ID, out)
	}
	return s.status(err)
}

// Forget has nothing to forget: numbers are places in the image.
func (s *Server) Forget(uint64, uint64) {}

// GetAttr is GETATTR.
func (s *Server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	return s.status(s.attr(s.id(in.NodeId), &out.Attr))
}

// Readlink is READLINK.
func (s *Server) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := s.fsys.Readlink(s.id(h.NodeId))
	return []byte(target), s.status(err)
}

// GetXAttr is GETXATTR.
func (s *Server) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	all, err := s.fsys.Xattrs(s.id(h.NodeId))
	if err != nil {
		return 0, s.status(err)
	}
	value, ok := all[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return fill(dest, value)
}

// ListXAttr is LISTXATTR.
func (s *Server) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	all, err := s.fsys.Xattrs(s.id(h.NodeId))
	if err != nil {
		return 0, s.status(err)
	}
	var names []byte
	for name := range all {
		names = append(append(names, name...), 0)
	}
	return fill(dest, names)
}

// fill answers with b, or with how much room it needs.
func fill(dest, b []byte) (uint32, fuse.Status) {
	if len(dest) < len(b) {
		return uint32(len(b)), fuse.ERANGE
	}
	return uint32(copy(dest, b)), fuse.OK
}

// Open is OPEN. What the kernel has of a file from before is still right.
func (s *Server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	f, err := s.fsys.Open(s.id(in.NodeId))
	if err != nil {
		return s.status(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.files[s.last] = f
	out.Fh, out.OpenFlags = s.last, fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read is READ.
func (s *Server) Read(_ <-chan struct{}, in *fuse.ReadIn, b []byte) (fuse.ReadResult, fuse.Status) {
	s.mu.Lock()
	f := s.files[in.Fh]
	s.mu.Unlock()
	if f == nil {
		return nil, fuse.EBADF
	}
	n, err := f.ReadAt(b[:min(len(b), int(in.Size))], int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, s.status(err)
	}
	return fuse.ReadResultData(b[:n]), fuse.OK
}

// Release is RELEASE.
func (s *Server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	s.mu.Lock()
	f := s.files[in.Fh]
	delete(s.files, in.Fh)
	s.mu.Unlock()
	if f != nil {
		_ = f.Close()
	}
}

// OpenDir is OPENDIR: what it lists may be kept.
func (s *Server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	_, err := s.names.ReadDir(s.id(in.NodeId))
	out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	return s.status(err)
}

// ReadDir is READDIR.
func (s *Server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(in, func(e fuse.DirEntry, _ image.ID, _ bool) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus is READDIRPLUS: entries with their attributes.
func (s *Server) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(in, func(e fuse.DirEntry, id image.ID, dots bool) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if !dots && s.entry(id, entry) != nil {
			*entry = fuse.EntryOut{} // it is looked up, and has its error, when somebody wants it
		}
		return true
	})
}

// list gives entries to add until it has no more room. An offset is the number of the
// next one, "." and ".." being the first.
func (s *Server) list(in *fuse.ReadIn, add func(e fuse.DirEntry, id image.ID, dots bool) bool) fuse.Status {
	dir := s.id(in.NodeId)
	entries, err := s.names.ReadDir(dir)
	if err != nil {
		return s.status(err)
	}
	for i := in.Offset; i < uint64(len(entries))+2; i++ {
		e := fuse.DirEntry{Mode: unix.S_IFDIR, Off: i + 1}
		id := dir
		if i < 2 {
			e.Name = ".."[:i+1]
		} else {
			e.Name, e.Mode, id = entries[i-2].Name, entries[i-2].Type, entries[i-2].ID
		}
		a, err := s.fsys.Attr(id)
		if err == nil {
			e.Ino, e.Mode = a.Ino, a.Mode
		} else {
			e.Ino = s.node(id)
		}
		if !add(e, id, i < 2) {
			break
		}
	}
	return fuse.OK
}

// StatFs is STATFS: full, as what cannot be written is.
func (s *Server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.Blocks, out.NameLen = 4096, 4096, uint64(s.size+4095)/4096, 255
	return fuse.OK
}
