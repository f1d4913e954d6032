// SPDX-License-Identifier: Apache-2.0

// The module: its configuration, its rules, its end.

package fsmod

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A Tree is a directory whose content is made when it is opened.
type Tree interface {
	// Open returns what is at a path, relative to the tree, "" for itself: the content
	// of a file, or the entries of a directory. ENOENT and ENOTDIR are its errors, and
	// ErrHost for what the host's own file is right for.
	Open(path string) (Node, error)

	// Has reports whether a name may occur as the last one of a path of a file, or
	// directory, in the tree. It is asked at each open of the program and must be
	// quick; it may err on the side of true.
	Has(name string) bool
}

// A Node is a file or a directory.
type Node struct {
	Content []byte
	Dir     bool
	Entries []Entry // of a directory
}

// An Entry is a name in a directory.
type Entry struct {
	Name string
	Dir  bool
}

// Config says which trees there are, by the paths that they cover, without symbolic
// links: "/proc/net" stands for the network directory of every process; and which mounts.
type Config struct {
	Trees  map[string]Tree
	Mounts []Mounted // a later one covers what an earlier one shows; they are the module's to close
	// Devices are there by their paths, absolute and clean.
	Devices map[string]Device
	// Sealed are directories of the host in which nothing is opened for writing (EROFS),
	// by whatever path they are reached; absolute and clean. Without mounts the kernel opens
	// what was found not to be in one, and may find another file if links change meanwhile.
	Sealed []string
	// Mountable has path calls trap even if there is no mount yet, see [Module.Mount].
	Mountable bool
	// Image opens the image in a file for a mount by the target, and says of what format it
	// is. To be written to it gets ramdisks alone, whose path is good as long as they are. It
	// may be nil: then the target mounts none.
	Image func(file string, m Mount) (_ Mounted, format string, err error)
	// Tasks returns the processes of the target, among which users of a mount are looked
	// for. It may be nil: then none are found.
	Tasks func() []int
	// Member reports whether a task is of the target: of others procfs shows what it shows
	// to one who may not trace them. It may be nil: then all tasks are.
	Member func(tid int) bool
	// Hostname is the name of the machine that uname(2) tells; empty: the host's. It takes
	// mounts, or Mountable.
	Hostname string
	Log      *slog.Logger
}

// A Module serves the path calls of one target. It is what the target has at one moment:
// a change of the mounts makes another one, with another table, and calls keep the one
// that they began with.
type Module struct {
	*state
	table *table       // nil: no mounts
	using sync.RWMutex // read while a call is answered
}

// state is what a module is whatever its mounts are.
type state struct {
	trees   map[string]Tree
	devices map[string]Device
	blocks  []*Disk // those among devices
	seals   []string
	log     *slog.Logger
	tasks   func() []int
	member  func(tid int) bool
	image   func(file string, m Mount) (Mounted, string, error)
	listing bool // getdents64(2) traps

	hostname string // that the view has; empty: the host's

	identifying bool // fstat(2) does

	now      atomic.Pointer[Module] // with the mounts as they are
	changing sync.Mutex             // held while they change

	pid     int            // our own
	fds     int            // /proc/self/fd, with O_PATH, by which what is open is opened anew; 0: no mounts
	creds   credentials    // our own
	mixed   atomic.Bool    // some task may have other credentials
	umasked atomic.Bool    // some task may have another umask
	watched atomic.Bool    // some task watches files: inotify(7)
	waits   sync.WaitGroup // opens that wait, and what is prepared
	waiting atomic.Int32   // opens that may wait for long, no more than mostWaiting
	apart   sync.Map       // calls (*intercept.Call) that goroutines of their own answer
	kept    keptPages      // by the parents of scripts
	where   stands         // working directories
	whose   whose          // credentials
	cores   bool           // RLIMIT_CORE is kept at 0; set by Rules
	limited sync.Once      // it was set

	unbounded, crowded sync.Once // the log says that a tmpfs has no bounds, that too many opens wait

	mu      sync.Mutex
	private string   // the directory of directories; "": not made yet. Guarded by mu
	lock    *os.File // of private, see makePrivate. Guarded by mu
	closed  bool     // guarded by mu
}

// New makes a module. Close ends it.
func New(conf Config) (*Module, error) {
	m := &Module{state: &state{trees: conf.Trees, devices: conf.Devices, seals: conf.Sealed, log: conf.Log, tasks: conf.Tasks, member: conf.Member, image: conf.Image, hostname: conf.Hostname, pid: os.Getpid()}}
	m.blocks = m.disks()
	m.now.Store(m)
	if len(conf.Mounts) == 0 && !conf.Mountable {
		return m, nil
	}
	var err error
	if m.creds, err = taskCredentials("self"); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if m.fds, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /proc/self/fd: %w", err)
	}
	if m.table, err = newTable(conf.Mounts); err != nil {
		unix.Close(m.fds)
		return nil, err
	}
	m.listing = conf.Mountable || len(m.table.absent) > 0 || slices.ContainsFunc(m.table.rows, func(mt *mount) bool { return mt.dir == nil })
	m.identifying = conf.Mountable || len(m.table.identifiers) > 0
	return m, nil
}

// Numbers of the i386 entry (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	i386Open    = 5
	i386Creat   = 8
	i386Openat  = 295
	i386Openat2 = 437
)

// Rules declares what the module must see: with mounts every path call, else the opens
// that can read, and with devices or seals those that only write, too; of which there are none
// without either.
func (m *Module) Rules() intercept.Rules {
	rules := m.deviceRules()
	switch {
	case m.table != nil:
		return slices.Concat(rules, m.mountRules(), m.nameRules())
	case len(m.trees)+len(m.devices)+len(m.seals) == 0:
		return nil
	}
	add := func(arch intercept.Arch, nr int, f intercept.HandlerFunc, args ...intercept.Arg) {
		rules = append(rules, intercept.Rule{Arch: arch, NR: nr, Args: args, Do: intercept.Notify, Handler: f})
	}
	modes := []uint64{unix.O_RDONLY, unix.O_RDWR}
	if m.writing() {
		modes = append(modes, unix.O_WRONLY)
	}
	for _, mode := range modes {
		for _, e := range []struct {
			arch     intercept.Arch
			at, at32 int
		}{{intercept.Native, unix.SYS_OPENAT, sysOpen}, {intercept.I386, i386Openat, i386Open}} {
			add(e.arch, e.at, m.handleOpenat, intercept.ArgMasked(2, unix.O_ACCMODE, mode))
			if e.at32 >= 0 {
				add(e.arch, e.at32, m.handleOpen, intercept.ArgMasked(1, unix.O_ACCMODE, mode))
			}
		}
	}
	if m.writing() {
		if sysCreat >= 0 {
			add(intercept.Native, sysCreat, m.handleCreat)
		}
		add(intercept.I386, i386Creat, m.handleCreat)
	}
	add(intercept.Native, unix.SYS_OPENAT2, m.handleOpenat2)
	add(intercept.I386, i386Openat2, m.handleOpenat2)
	return rules
}

// writing tells whether opens that only write matter, too.
func (m *Module) writing() bool { return len(m.devices)+len(m.seals) > 0 }

// closesAfter is how long Close waits for a change of the mounts.
const closesAfter = time.Second

// Close removes what the module made, once the supervisor is closed. Twice is fine.
func (m *Module) Close() error {
	m.waits.Wait()
	m.where.end()
	// A change waits for calls that a file system may never answer; both end with the process.
	for end := time.Now().Add(closesAfter); ; time.Sleep(time.Millisecond) {
		if m.changing.TryLock() {
			defer m.changing.Unlock()
			break
		}
		if time.Now().After(end) {
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	if t := m.now.Load().table; t != nil && !m.closed {
		errs = append(errs, t.close(), unix.Close(m.fds))
	}
	m.closed = true
	if m.private != "" {
		dir := m.private
		m.private = ""
		errs = append(errs, os.RemoveAll(dir), m.lock.Close())
	}
	return errors.Join(errs...)
}

// has reports whether the last name of path occurs in a tree.
func (m *Module) has(path string) bool {
	path = strings.TrimRight(path, "/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	for at, t := range m.trees {
		if name == at[strings.LastIndexByte(at, '/')+1:] || t.Has(name) {
			return true
		}
	}
	return name == "." || name == ".."
}
