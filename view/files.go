// SPDX-License-Identifier: Apache-2.0

// Files of the view: what is mounted, what serves it, and what can be said of it
// before anything runs.

package view

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/nsmount"
	"umrun/intercept"
)

// An FSEngine says what makes the mounts of a view.
type FSEngine string

// The engines. The empty one is EngineAuto.
const (
	EngineAuto FSEngine = "auto" // EngineNS where the machine allows it, else EngineTrap
	EngineNS   FSEngine = "ns"   // the kernel, in a mount namespace of the program's own
	EngineTrap FSEngine = "trap" // umrun, which answers the program's path calls
)

// ParseMount is [fsmod.ParseMount] with its errors as Problems.
func ParseMount(spec, cwd string) (fsmod.Mount, error) {
	m, err := fsmod.ParseMount(spec, cwd)
	var bad *fsmod.SpecError
	if !errors.As(err, &bad) {
		return m, err
	}
	p := &Problem{Code: ExitConfig, What: bad.Error(), Try: bad.Try, Err: err}
	if hint := didYouMean(bad.Got, bad.Known); hint != "" {
		p.What += hint
	} else if bad.Known != nil {
		p.Why = "There are " + strings.Join(bad.Known, ", ") + "."
	}
	return m, p
}

// A HostName is a name that /etc/hosts of the view has, see --hosts.
type HostName struct {
	Name string
	Addr netip.Addr
}

// hostNameRE is what hosts(5) and hostname(7) allow in a name.
var hostNameRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

// ParseHostName reads NAME=IP.
func ParseHostName(s string) (HostName, error) {
	name, ip, _ := strings.Cut(s, "=")
	a, err := netip.ParseAddr(ip)
	switch {
	case !hostNameRE.MatchString(name):
		return HostName{}, &Problem{Code: ExitConfig, What: fmt.Sprintf("--hosts %s: %q is no name of a host", s, name), Try: []string{"--hosts db.example=192.0.2.7"}}
	case err == nil && a.Zone() != "":
		return HostName{}, &Problem{Code: ExitConfig, What: fmt.Sprintf("--hosts %s: an address in /etc/hosts has no zone: most programs would not see it", s)}
	case err != nil:
		return HostName{}, &Problem{Code: ExitConfig, What: fmt.Sprintf("--hosts %s: %q is no address", s, ip), Try: []string{"--hosts " + name + "=192.0.2.7"}}
	}
	return HostName{name, a}, nil
}

// A PlanMount is a mount that will be made.
type PlanMount struct {
	Kind     fsmod.Kind `json:"kind"`
	Source   string     `json:"source,omitempty"`
	Target   string     `json:"target"`
	ReadOnly bool       `json:"read_only"`
	Size     int64      `json:"size_bytes,omitempty"`
}

// PlanFiles says what of the host's files the program sees otherwise.
type PlanFiles struct {
	Engine   FSEngine    `json:"engine"`         // ns or trap
	Why      string      `json:"why"`            // it was taken
	Mounts   []PlanMount `json:"mounts"`         // in the order in which they are made
	Fuse     string      `json:"fuse,omitempty"` // by what the commands of mounts mount: namespace or fusermount3
	Hosts    []string    `json:"hosts,omitempty"`
	Hostname string      `json:"hostname,omitempty"`
}

// wantsFiles reports whether the program shall see other files than the host's, now or,
// since an engine was asked for, later.
func (c *Config) wantsFiles() bool {
	return len(c.Mounts) > 0 || len(c.Hosts) > 0 || c.Hostname != "" || c.FSEngine == EngineNS || c.FSEngine == EngineTrap
}

// planFiles decides who makes the mounts, and looks whether they can be made.
func (p *Plan) planFiles() error {
	c := &p.conf
	if !slices.Contains([]FSEngine{"", EngineAuto, EngineNS, EngineTrap}, c.FSEngine) {
		return badConfig("--fs-engine %s: it is auto, ns or trap", c.FSEngine)
	}
	if !c.wantsFiles() {
		return nil
	}
	if c.Hostname != "" && (!hostNameRE.MatchString(c.Hostname) || len(c.Hostname) > 64) {
		return badConfig("--hostname %q is no name of a host: it has up to 64 letters, digits, ., - and _, and begins and ends with a letter or digit", c.Hostname)
	}
	f := &PlanFiles{Mounts: []PlanMount{}, Hostname: c.Hostname}
	ordered := fsmod.Order(c.Mounts)
	var absent []string
	for i, m := range ordered {
		there, err := checkMount(m, ordered[:i])
		if err != nil {
			return err
		}
		if !there {
			absent = append(absent, m.Target)
		}
		f.Mounts = append(f.Mounts, PlanMount(m))
	}
	for _, h := range c.Hosts {
		f.Hosts = append(f.Hosts, h.Name+"="+h.Addr.String())
	}
	found := lookForOthers(ordered, p.places())
	p.others = found.dirs
	var err error
	if f.Engine, f.Why, err = chooseEngine(c, ordered, &found); err != nil {
		return err
	}
	if i := slices.IndexFunc(ordered, fsmod.Mount.Served); i >= 0 {
		var problem *Problem
		if f.Fuse, problem = fuseWay(f.Engine, ordered[i]); problem != nil {
			return problem
		}
	}
	for _, target := range absent {
		if f.Engine == EngineTrap && existing(target) == filepath.Dir(target) {
			continue // nothing is different
		}
		p.Warnings = append(p.Warnings, f.Engine.absence(target))
	}
	p.Files = f
	return nil
}

// absence says what is different about a mount whose place is not there.
func (e FSEngine) absence(target string) string {
	up := existing(target)
	if e == EngineTrap {
		return fmt.Sprintf("%s does not exist. What is missing of it below %s is shown, and takes no other names; it helps to make it first", target, up)
	}
	return fmt.Sprintf("%s does not exist. It is shown by a read-only copy of the directory %s, whose entries are the real ones; it helps to make it first", target, up)
}

// chooseEngine decides who makes the mounts, and says why.
func chooseEngine(c *Config, mounts []fsmod.Mount, o *others) (FSEngine, string, error) {
	trap := func(why string) (FSEngine, string, error) {
		for _, m := range mounts {
			if !trapSupports(m) {
				return "", "", NotBuilt(fmt.Sprintf("-m %v with --fs-engine trap", m))
			}
		}
		return EngineTrap, why, nil
	}
	if c.FSEngine == EngineTrap {
		return trap("it was asked for")
	}
	if err := nsmount.Probe(); err != nil {
		if c.FSEngine != EngineNS {
			if engine, why, err := trap(err.Error()); err == nil {
				return engine, why, nil
			}
		}
		p := &Problem{Code: ExitMachine, What: "mounts: " + err.Error(), Try: []string{"umrun doctor"}, Err: err}
		var un *nsmount.UnavailableError
		if errors.As(err, &un) && un.Mend != "" {
			p.Try = append([]string{un.Mend}, p.Try...)
		}
		return "", "", p
	}
	for _, m := range mounts {
		if err := nsmount.Supports(m); err != nil {
			if c.FSEngine != EngineNS {
				if engine, why, err := trap(fmt.Sprintf("only it has %s", m)); err == nil {
					return engine, why, nil
				}
			}
			if m.Kind == fsmod.Image || m.Served() {
				return "", "", &Problem{Code: ExitMachine, What: fmt.Sprintf("-m %v: %v", m, err), Try: []string{"--fs-engine trap"}, Err: err}
			}
			return "", "", NotBuilt(fmt.Sprintf("-m %v: %v", m, err))
		}
	}
	if o.file != "" && c.FSEngine != EngineNS {
		if engine, why, err := trap(o.why()); err == nil {
			return engine, why, nil
		}
	}
	why := "this machine allows a private mount namespace"
	if c.FSEngine == EngineNS {
		why = "it was asked for"
	}
	return EngineNS, why, nil
}

// checkMount tells what is wrong with a mount as the host's files are now, and whether its
// place is there. earlier are those that are made before it: what lies in one of them
// cannot be judged yet, and counts as there.
func checkMount(m fsmod.Mount, earlier []fsmod.Mount) (there bool, err error) {
	if err := checkSource(m); err != nil {
		return false, err
	}
	return checkPlace(m, earlier)
}

// missing is what is wrong with a path of a mount.
func missing(m fsmod.Mount, path string, err error, try ...string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %s: %v", m, path, err), Try: try, Err: err}
}

// checkSource tells what is wrong with the file of the host that a mount shows.
func checkSource(m fsmod.Mount) error {
	switch m.Kind {
	case fsmod.Bind, fsmod.Merge, fsmod.File, fsmod.Image:
	default:
		return nil
	}
	source, err := os.Stat(m.Source)
	switch {
	case m.Kind == fsmod.Bind && errors.Is(err, fs.ErrNotExist):
		return missing(m, m.Source, err, "mkdir -p "+m.Source)
	case err != nil:
		return missing(m, m.Source, err)
	case m.Kind == fsmod.Merge && !source.IsDir():
		return missing(m, m.Source, unix.ENOTDIR)
	case m.Kind == fsmod.Image && source.IsDir():
		return missing(m, m.Source, unix.EISDIR)
	case m.Kind == fsmod.File && !source.Mode().IsRegular():
		return missing(m, m.Source, errors.New("it is no regular file"), fmt.Sprintf("-m bind:%s:%s", m.Source, m.Target))
	case m.Kind == fsmod.Image && !m.ReadOnly:
		return checkWritable(m, m.Source)
	}
	return nil
}

// checkPlace is checkMount of the target alone.
func checkPlace(m fsmod.Mount, earlier []fsmod.Mount) (there bool, err error) {
	if slices.ContainsFunc(earlier, func(e fsmod.Mount) bool { return covers(e.Target, m.Target) }) {
		return true, nil
	}
	target, err := os.Stat(m.Target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, missing(m, m.Target, err)
	}
	if err != nil {
		if link, to := dangling(m.Target); link != "" {
			rest, _ := filepath.Rel(link, m.Target)
			return false, missing(m, link, fmt.Errorf("it is a symbolic link to %s, which is not there", to), filepath.Join(to, rest)+" in its place")
		}
		switch m.Kind {
		case fsmod.Cow, fsmod.Merge:
			return false, missing(m, m.Target, err, "mkdir -p "+m.Target, "-m tmpfs:"+m.Target)
		case fsmod.Hide:
			return false, missing(m, m.Target, err, "leave it out: there is nothing to hide")
		}
		return false, nil
	}
	dir := target.IsDir()
	switch m.Kind {
	case fsmod.Bind:
		if source, err := os.Stat(m.Source); err == nil && dir != source.IsDir() {
			return false, missing(m, m.Target, errors.New("only one of it and "+m.Source+" is a directory"))
		}
	case fsmod.File, fsmod.Dev:
		if dir {
			return false, missing(m, m.Target, unix.EISDIR)
		}
	case fsmod.Hide:
	default:
		if !dir {
			return false, missing(m, m.Target, unix.ENOTDIR)
		}
	}
	return true, nil
}

// covers reports whether path is at or below root.
func covers(root, path string) bool {
	return path == root || root == "/" || strings.HasPrefix(path, root+"/")
}

// dangling returns the symbolic link on the way to path that leads to nothing, and where it
// leads; "" if there is none. A mount cannot be made behind it.
func dangling(path string) (link, to string) {
	for ; path != "/"; path = filepath.Dir(path) {
		to, err := os.Readlink(path)
		if err != nil {
			if _, err := os.Lstat(path); err == nil {
				break
			}
			continue
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		return path, to
	}
	return "", ""
}

// existing returns the nearest directory above path that there is.
func existing(path string) string {
	for path != "/" {
		path = filepath.Dir(path)
		if _, err := os.Stat(path); err == nil {
			break
		}
	}
	return path
}

// inMounts has the program begin in the view of its mounts: its directory is gone into
// anew, as something may be mounted above it, and the program is searched there.
func (p *Plan) inMounts(conf *intercept.Config) {
	conf.Dir = p.Dir
	names := candidates(p.Argv[0], searchPath(p.conf.Env))
	conf.Path, conf.Search = names[0], names[1:]
}

// candidates are the files that execvp(3) tries.
func candidates(name, path string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var all []string
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		all = append(all, d+"/"+name)
	}
	if all == nil {
		all = []string{name}
	}
	return all
}

// checkMountNamespace tells what --fs-engine=auto takes, and why.
func checkMountNamespace() Finding {
	err := nsmount.Probe()
	if err == nil {
		text := "mounts (-m) are made by the kernel, in a private mount namespace"
		if nsmount.Unprivileged() {
			text += " with a user namespace of its own; a cow of what this user may write and does not own is made by umrun (--fs-engine trap)"
		}
		return Finding{Name: "mount-namespace", Verdict: OK, Text: text}
	}
	f := Finding{Name: "mount-namespace", Verdict: Note, Text: "mounts (-m) cannot be made by the kernel: " + err.Error()}
	var un *nsmount.UnavailableError
	if errors.As(err, &un) {
		f.Mend = un.Mend
	}
	return f
}
