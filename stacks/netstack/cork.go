// SPDX-License-Identifier: Apache-2.0

// Holding back segments that are not full: TCP_CORK and MSG_MORE.

package netstack

import (
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// corkTime is how long a segment that is not full is held back at most (tcp(7),
// TCP_CORK). gVisor has a timer for it that it forgets to start again once the
// option was taken back.
const corkTime = 200 * time.Millisecond

// A cork is what keeps the last segment of a stream, beside TCP_CORK.
type cork struct {
	more  bool        // the last send had MSG_MORE
	timer *time.Timer // runs while data may be held back
}

var _ stacks.Corked = (*stream)(nil)

// More tells whether what is sent next has MSG_MORE; see [stacks.Corked].
func (s *stream) More(more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cork.more != more {
		s.cork.more = more
		s.corkLocked()
	}
}

// corkLocked puts what the cork is into effect. Without one, what was held back is
// sent.
//
// +checklocks:s.mu
func (s *stream) corkLocked() {
	on := s.corkSet() || s.cork.more
	if on {
		s.st.bypasses.recall(s)
	}
	if !on && s.cork.timer != nil {
		s.cork.timer.Stop()
		s.cork.timer = nil
	}
	s.endpoint().SocketOptions().SetCorkOption(on)
}

// corkedLocked is called after data was queued: it must not be held back for longer
// than corkTime.
//
// +checklocks:s.mu
func (s *stream) corkedLocked() {
	if !s.corkSet() && !s.cork.more || s.cork.timer != nil {
		return
	}
	s.cork.timer = time.AfterFunc(corkTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cork.timer == nil || s.closed.Load() || s.st.closed.Load() {
			return
		}
		s.cork.timer = nil
		o := s.endpoint().SocketOptions()
		o.SetCorkOption(false) // sends
		o.SetCorkOption(s.corkSet() || s.cork.more)
	})
}

// corkSet tells whether TCP_CORK is set.
//
// +checklocks:s.mu
func (s *stream) corkSet() bool { return s.val(optKey{ltcp, unix.TCP_CORK}, 0) != 0 }

// SetOption is setsockopt(2).
func (s *stream) SetOption(level, name int, value []byte) error {
	err := s.sock.SetOption(level, name, value)
	if err == nil && level == ltcp && name == unix.TCP_CORK {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.corkLocked()
	}
	return err
}
