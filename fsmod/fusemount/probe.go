// SPDX-License-Identifier: Apache-2.0

// Probe: whether this machine allows it, tried and not guessed.

package fusemount

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Fusermount is the program by which an ordinary user mounts without namespaces.
const Fusermount = "fusermount3"

// Probe makes a FUSE mount in namespaces, and lets it go.
func Probe() error {
	if err := device(); err != nil {
		return err
	}
	s, err := start(&spec{Trial: true}, &Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	<-s.heard
	select {
	case a := <-s.first:
		return a.failure()
	default:
	}
	if s.reaped.ExitStatus() != exitOrderly {
		return fmt.Errorf("the helper has ended: %w", unix.EIO)
	}
	return nil
}

// ProbeShared looks whether a command could mount by [Fusermount].
func ProbeShared() error {
	if err := device(); err != nil {
		return err
	}
	path, err := exec.LookPath(Fusermount)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSetuid == 0 && os.Geteuid() != 0 {
		return fmt.Errorf("%s has no set-user-ID bit: %w", path, unix.EPERM)
	}
	return nil
}

// device looks whether the user may open the device by which file systems are served.
func device() error {
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		return &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	return nil
}
