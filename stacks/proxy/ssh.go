// SPDX-License-Identifier: Apache-2.0

// SSH: one connection to the server, and a channel in it for each stream.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

const (
	sshTime  = 20 * time.Second // for a connection to be made, with credentials
	sshPause = time.Second      // after an attempt that failed

	// sshAlive is how often the server is asked whether it is there; one that does
	// not answer for that long is not.
	sshAlive = 15 * time.Second
)

// sshTunnel is the carrier. The connection is made when it is first needed, and
// anew when it is needed after it has broken. Streams that were in it are reset.
type sshTunnel struct {
	u    *Upstream
	keys *hostKeys

	mu      sync.Mutex
	client  *sshClient    // +checklocks:mu, nil: there is none
	dialing chan struct{} // +checklocks:mu, closed when the attempt under way has ended; nil: there is none
	err     error         // +checklocks:mu, of the last attempt
	again   time.Time     // +checklocks:mu, before it there is no other
	closed  bool          // +checklocks:mu
}

// An sshClient is a connection and its end: a channel reads the end of the
// connection as that of its stream.
type sshClient struct {
	*ssh.Client
	broke *atomic.Bool
}

// A watchedConn notes that it has ended.
type watchedConn struct {
	net.Conn
	broke atomic.Bool
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.broke.Store(true)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.broke.Store(true)
	return c.Conn.Close()
}

func newSSH(u *Upstream) (*sshTunnel, error) {
	keys, err := newHostKeys(&u.conf)
	if err != nil {
		return nil, err
	}
	return &sshTunnel{u: u, keys: keys}, nil
}

func (s *sshTunnel) close() {
	s.mu.Lock()
	s.closed = true
	c := s.client
	s.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

func (s *sshTunnel) probe(ctx context.Context) error {
	_, err := s.get(ctx)
	return err
}

// get returns the connection, and makes it if there is none; whoever comes while
// it is made waits for it too.
func (s *sshTunnel) get(ctx context.Context) (*sshClient, error) {
	s.mu.Lock()
	for {
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, context.Canceled
		case s.client != nil:
			defer s.mu.Unlock()
			return s.client, nil
		case s.dialing == nil && s.err != nil && time.Now().Before(s.again):
			defer s.mu.Unlock()
			return nil, s.err
		case s.dialing == nil:
			s.dialing = make(chan struct{})
			if !s.u.start(s.run) {
				s.closed, s.dialing = true, nil
				continue
			}
		}
		wait := s.dialing
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.mu.Lock()
		if s.client == nil && s.dialing == nil && s.err != nil {
			defer s.mu.Unlock()
			return nil, s.err
		}
	}
}

// run makes the connection and keeps it until it breaks.
func (s *sshTunnel) run() {
	c, err := s.connect()
	s.mu.Lock()
	if err == nil && s.closed {
		err = context.Canceled
		defer c.Close()
	}
	if err == nil {
		s.client = c
	}
	s.err, s.again = err, time.Now().Add(sshPause)
	close(s.dialing)
	s.dialing = nil
	s.mu.Unlock()
	if err != nil {
		return
	}
	err = s.keep(c)
	s.mu.Lock()
	s.client = nil
	ended := s.closed
	s.mu.Unlock()
	if !ended {
		s.u.log.Warn("the connection to the SSH server broke: what went through it is reset", "proxy", s.u.host.String(), "err", err)
	}
}

// keep asks for signs of life until the connection has ended, and says why.
func (s *sshTunnel) keep(c *sshClient) error {
	ended := make(chan error, 1)
	s.u.wg.Go(func() { ended <- c.Wait() }) // run is counted
	answers := make(chan struct{}, 1)
	tick := time.NewTicker(sshAlive)
	defer tick.Stop()
	asked := false
	for {
		select {
		case err := <-ended:
			return err
		case <-answers:
			asked = false
		case <-tick.C:
			if asked {
				_ = c.Close()
				<-ended
				return fmt.Errorf("no sign of life for %s", sshAlive)
			}
			asked = true
			s.u.wg.Go(func() {
				// Servers refuse what they do not know: that is an answer as well.
				if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answers <- struct{}{}
				}
			})
		}
	}
}

// connect makes a connection to the server.
func (s *sshTunnel) connect() (*sshClient, error) {
	u := s.u
	ctx, cancel := context.WithTimeout(u.ctx, sshTime)
	defer cancel()
	c, err := u.dialHost(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = &UnusableError{Proxy: u.String(), Cause: Silent}
		}
		return nil, err
	}
	methods, agent, notes := u.methods()
	defer agent.Close()
	conf := &ssh.ClientConfig{
		User: u.conf.User,
		Auth: methods,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if err := s.keys.check(s.keys.addr, c.RemoteAddr(), key); err != nil {
				return keyError(u, key, err)
			}
			return nil
		},
		HostKeyAlgorithms: s.keys.algorithms(),
	}
	var client *sshClient
	err = handshake(ctx, c, func() error {
		w := &watchedConn{Conn: c}
		conn, chans, reqs, err := ssh.NewClientConn(w, s.keys.addr, conf)
		if err == nil {
			client = &sshClient{ssh.NewClient(conn, chans, reqs), &w.broke}
		}
		return err
	})
	var un *UnusableError
	switch {
	case err == nil:
		return client, nil
	case errors.As(err, &un):
		return nil, un
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &UnusableError{Proxy: u.String(), Cause: Silent}
	case strings.Contains(err.Error(), "unable to authenticate"): // ssh has no type for it
		un := &UnusableError{Proxy: u.String(), Cause: BadAuth, Err: fmt.Errorf("%s may not log in", u.conf.User)}
		if len(methods) == 0 {
			un.Err = errors.New("there is no key and no password to show it")
		}
		if len(notes) > 0 {
			un.Hint = "Not used: " + strings.Join(notes, "; ") + "."
		}
		return nil, un
	}
	return nil, u.cut(err)
}

// directTCPIP is what a channel is asked for with, RFC 4254 §7.2.
type directTCPIP struct {
	Host     string
	Port     uint32
	From     string
	FromPort uint32
}

func (s *sshTunnel) dial(ctx context.Context, to target) (stacks.UpstreamConn, error) {
	c, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	type result struct {
		ch  ssh.Channel
		err error
	}
	opened := make(chan result)
	ok := s.u.start(func() { // opening knows no context; the end of the connection ends it
		ch, reqs, err := c.OpenChannel("direct-tcpip", ssh.Marshal(&directTCPIP{to.host(), uint32(to.port), "127.0.0.1", 0}))
		if err == nil {
			s.u.wg.Go(func() { ssh.DiscardRequests(reqs) })
		}
		select {
		case opened <- result{ch, err}:
		case <-ctx.Done():
			if err == nil {
				_ = ch.Close()
			}
		}
	})
	if !ok {
		return nil, context.Canceled
	}
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, s.channelError(r.err)
		}
		return s.u.bridge(r.ch, c.broke)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// channelError says why a channel was not opened.
func (s *sshTunnel) channelError(err error) error {
	var no *ssh.OpenChannelError
	if !errors.As(err, &no) {
		return &UnusableError{Proxy: s.u.String(), Cause: Silent, Err: err} // it broke
	}
	r := &refusal{unix.EHOSTUNREACH, no.Error()}
	switch no.Reason {
	case ssh.Prohibited:
		r.errno = unix.EACCES
	case ssh.UnknownChannelType, ssh.ResourceShortage:
		r.errno = unix.ENETUNREACH
	case ssh.ConnectionFailed:
		// Servers tell the error of their connect(2) in words.
		for _, e := range []unix.Errno{unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH} {
			if strings.Contains(strings.ToLower(no.Message), strings.ToLower(e.Error())) {
				r.errno = e
			}
		}
	}
	return r
}
