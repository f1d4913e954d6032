// SPDX-License-Identifier: Apache-2.0

// The jail: a network with nothing but loopback, and a process tree that ends
// as one.

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// jailed returns the command that runs argv in a jail, in directory dir. The
// process that it starts is the first of a PID namespace: when it ends, all do.
func jailed(dir string, argv ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", append([]string{"jail", dir}, argv...)...)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return c
}

// jail is the first process inside. It returns an exit status.
func jail(args []string) int {
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err)
		return 125
	}
	c := exec.Command(args[1], args[2:]...)
	c.Dir = args[0]
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// With the whole of /etc/subuid the jail of an ordinary user could have this
	// too; without, its tests are root of their namespace.
	if _, err := os.ReadFile("/proc/self/uid_map"); err == nil && canBe(nobody) {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	quit := make(chan os.Signal, 1) // one is enough: it is sent once
	signal.Notify(quit, unix.SIGQUIT)
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err)
		return 125
	}
	go func() { // ends with the process
		<-quit
		_ = c.Process.Signal(unix.SIGQUIT) // a Go program tells where it hangs
	}()
	if err := c.Wait(); err != nil && c.ProcessState.ExitCode() < 0 {
		return 1
	}
	return c.ProcessState.ExitCode()
}

// enter makes the jail complete, and refuses if there is a way out.
func enter() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("not the first process of a namespace")
	}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Flags&net.FlagUp != 0 {
			return fmt.Errorf("interface %s is up: this network is not an empty one", l.Name)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, fs := range []string{"proc", "sysfs"} {
		at := map[string]string{"proc": "/proc", "sysfs": "/sys"}[fs]
		if err := unix.Mount(fs, at, fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 10); err != nil {
		return fmt.Errorf("nice: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}

// canBe reports whether a user exists in this user namespace.
func canBe(uid int) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, size int
	if _, err := fmt.Sscan(string(b), &inside, &outside, &size); err != nil {
		return false
	}
	return uid < inside+size
}
