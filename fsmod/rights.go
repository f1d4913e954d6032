// SPDX-License-Identifier: Apache-2.0

// The credentials of a task, for who acts for it in another process.

package fsmod

import "strconv"

// Rights are what a task is to files: its file system user, group and groups, and its effective
// capabilities.
type Rights struct {
	UID, GID uint32
	Groups   []uint32
	Caps     uint64
}

// RightsOf returns those of a task.
func RightsOf(tid int) (Rights, error) {
	cr, err := taskCredentials(strconv.Itoa(tid))
	return Rights{cr.uid, cr.gid, cr.groups, cr.caps}, err
}

// Take gives them to the calling thread, to which the goroutine is locked for good, as far as the
// process has them. It may look at all tasks still: who asks sees to it that it is the right one.
func (r *Rights) Take() error {
	own, err := effectiveCaps()
	if err != nil {
		return err
	}
	cr := credentials{uid: r.UID, gid: r.GID, groups: r.Groups}
	return cr.become(own&^fileCaps|r.Caps&fileCaps&own, nil)
}
